"""Checkpoints: native ones (orbax), TensorFlow's, and finding the newest."""
