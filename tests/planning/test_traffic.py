"""The bytes that a plan counts for rows: those that are moved, not those that are asked for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.optimizers import Adagrad
from monolith_jax.planning.traffic import Traffic, traffic_of

BATCH, DIM = 64, 32


def counted(engine: XlaEngine, lookups: Any) -> Traffic:
    """What is counted of a step on these lookups, on one device."""
    done: Any = SimpleNamespace(
        program=SimpleNamespace(engine=engine),
        state=SimpleNamespace(tables=engine.abstract_state(), params={}, opt_state={}),
        batch={"lookups": lookups},
        activations=0,
        flops=0.0,
    )
    return traffic_of(engine.stacks, done, devices=1, per_chip=1)


@pytest.mark.parametrize(
    ("form", "times"), [("rows", 1), ("words", 1), ("lines", 4), ("records", 2)]
)
def test_all_of_a_line_is_counted_where_lines_are_moved(form: Any, times: int) -> None:
    table = TableConfig(name="user", vocab_size=4096, dim=DIM, optimizer=Adagrad())
    features = (FeatureConfig(name="user", table="user"),)
    engine = XlaEngine((table,), features, batch_size=BATCH, form=form)
    ids = 64 * np.arange(BATCH)  # each in a line of its own
    lookups = engine.prepare({"user": ids})
    (stack,) = engine.stacks
    asked = lookups[stack.name]
    moved = asked.rows.shape[0] if asked.lines is None else asked.lines.shape[0]
    found = counted(engine, lookups)
    value_and_slot = 2 * 4 * DIM
    assert moved >= BATCH
    assert found.rows == 2 * moved * times * value_and_slot  # in and out


def test_a_bias_is_counted_with_the_record_that_it_lies_in() -> None:
    rule = Adagrad()
    tables = [TableConfig(name=f"t{d}", vocab_size=4096, dim=d, optimizer=rule) for d in (12, 1)]
    features = [FeatureConfig(name=t.name, table=t.name, column="id") for t in tables]
    engine = XlaEngine(tables, features, batch_size=BATCH, form="records")
    lookups = engine.prepare({"id": 64 * np.arange(BATCH)})
    (asked,) = lookups.values()
    found = counted(engine, lookups)
    assert found.rows == 2 * asked.lines.shape[0] * 128 * 4  # 26 lanes of 32, four in a line
    assert found.ids == 3 * BATCH * 4 * (12 + 1)
