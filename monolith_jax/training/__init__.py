"""Training and evaluation of a task: program, loop, metrics, preemption, what a run leaves behind.

This package knows every other room; none of them knows it.
"""

from monolith_jax.preemption import Preemption
from monolith_jax.training.data import evaluation_dataset, training_dataset
from monolith_jax.training.evaluation import evaluate, evaluate_checkpoint, predict_all
from monolith_jax.training.loop import train
from monolith_jax.training.program import Program, TrainState, devices_for
from monolith_jax.training.run_dir import RunDir

__all__ = [
    "Preemption",
    "Program",
    "RunDir",
    "TrainState",
    "devices_for",
    "evaluate",
    "evaluate_checkpoint",
    "evaluation_dataset",
    "predict_all",
    "train",
    "training_dataset",
]
