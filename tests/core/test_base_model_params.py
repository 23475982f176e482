"""`monolith_jax.core.base_model_params` has the original's class."""

import pytest

from monolith_jax import registry, task
from monolith_jax.core import base_model_params


def test_the_class_is_the_registrys_and_the_tasks() -> None:
    assert base_model_params.SingleTaskModelParams is registry.SingleTaskModelParams
    assert task.SingleTaskModelParams is registry.SingleTaskModelParams


def test_task_is_abstract() -> None:
    with pytest.raises(NotImplementedError):
        base_model_params.SingleTaskModelParams().task()
