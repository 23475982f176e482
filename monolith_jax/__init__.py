"""Recommendation-model training on TPUs in JAX and Flax."""

__version__ = "0.1.0"
