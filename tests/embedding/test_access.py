"""What stands in the padding of a batch's rows reaches nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine


def poisoned(array: jax.Array, width: int) -> jax.Array:
    """Returns the array with NaN in its last row, which padding rows read."""
    rows = array.reshape(-1, width) if array.ndim == 2 else array
    return rows.at[-1].set(jnp.nan).reshape(array.shape)


@pytest.mark.parametrize("form", ["rows", "lines", "words"])
def test_padding_reaches_nothing(rules: dict[str, Any], form: Any) -> None:
    tables = [
        TableConfig(name=name, vocab_size=5000, dim=dim, optimizer=rule)
        for name, rule in rules.items()
        for dim in (5 if name == "adagrad" else 16,)
    ]
    features = [FeatureConfig(name=name, table=name, column="ids") for name in rules]
    engine = XlaEngine(tables, features, batch_size=8, form=form)
    lookups = engine.prepare({"ids": np.array([3, 4, 3, -1, 9, 4999, 0, 7])})

    @jax.jit
    def step(state: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(
            lambda r: sum(jnp.square(x - 1.0).sum() for x in engine.combine(r, lookups).values())
        )(rows)
        squares = engine.gradient_squares(lookups, gradients)
        return engine.update(state, lookups, rows, gradients), gradients, squares

    clean = engine.init(jax.random.key(0))
    widths = {stack.name: stack.layout.width for stack in engine.stacks}
    dirty = {
        "step": clean["step"],
        "stacks": {
            name: {
                "value": poisoned(stack["value"], widths[name]),
                "slots": {k: poisoned(v, widths[name]) for k, v in stack["slots"].items()},
                "scalars": stack["scalars"],
            }
            for name, stack in clean["stacks"].items()
        },
    }
    want, want_gradients, want_squares = step(clean)
    found, gradients, squares = step(dirty)
    jax.tree.map(
        np.testing.assert_array_equal, (gradients, squares), (want_gradients, want_squares)
    )
    assert all(np.isfinite(x).all() for x in gradients.values())
    for name, stack in want["stacks"].items():
        pairs = {"value": (found["stacks"][name]["value"], stack["value"])}
        pairs |= {k: (found["stacks"][name]["slots"][k], v) for k, v in stack["slots"].items()}
        for got, expected in pairs.values():
            shape = (-1, widths[name]) if got.ndim == 2 else got.shape
            got, expected = np.asarray(got).reshape(shape), np.asarray(expected).reshape(shape)
            np.testing.assert_array_equal(got[:-1], expected[:-1])
            assert np.isnan(got[-1]).all()
