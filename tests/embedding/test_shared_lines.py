"""Rows out of shared lines and back: against a reshape, to the last bit."""

import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._shared_lines import rows_of_lines, with_rows

LINES = 7


@pytest.mark.parametrize("dim", [1, 3, 32, 60])
def test_rows_are_those_of_a_reshape(dim: int) -> None:
    """Zeros of either sign, NaN and infinities too; lines of one touched row, several and all."""
    layout = Layout(1, dim, 1)
    rng = np.random.default_rng(dim)
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1.5], np.float32)
    lines = rng.choice(odd, (LINES, 128))
    count = LINES * layout.pack
    asked = np.unique(np.append(np.arange(layout.pack), rng.integers(0, count, count // 2)))
    slot = np.append(asked, np.full(3, NONE)).astype(np.int32)
    want = lines.reshape(count, layout.width)

    found = np.asarray(rows_of_lines(jnp.asarray(lines), jnp.asarray(slot), layout))
    np.testing.assert_array_equal(found[:-3].view(np.int32), want[asked].view(np.int32))
    assert not found[-3:].any()

    new = rng.choice(odd, found.shape)
    written = with_rows(jnp.asarray(lines), jnp.asarray(slot), layout, jnp.asarray(found), new)
    want = want.copy()
    want[asked] = new[:-3]
    got = np.asarray(written).reshape(want.shape)
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))
