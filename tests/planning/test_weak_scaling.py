"""Bytes that a chip sends, read off the compiled programs: as chips are added they stay."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monolith_jax.planning import _hlo

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu")
def test_bytes_sent_by_a_chip_stay_as_chips_are_added(tmp_path: Path) -> None:
    """1.3 at most: of 8 and 64 chips here, by the module's own command of 512 too."""
    out = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "monolith_jax.planning.weak_scaling", "--quick", "--json", str(out)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode and "async-update" in done.stderr:
        pytest.skip("jaxlib 0.10 cannot print what the newest libtpu compiles")
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = json.loads(out.read_text())
    assert (few["chips"], few["exchange"]) == (8, "buckets")
    assert (many["chips"], many["exchange"]) == (64, "ragged")
    assert set(few["bytes"]) == {"all-to-all", "all-reduce"}
    assert set(many["bytes"]) == {"ragged-all-to-all", "all-reduce"}
    # Both ways, in float32 of dim 16: what is asked for, and at most a fifth of padding.
    for row, kind in ((few, "all-to-all"), (many, "ragged-all-to-all")):
        others = (row["chips"] - 1) / row["chips"]
        least = 2 * row["rows"] * 16 * 4 * others
        assert least <= row["bytes"][kind] <= 1.2 * least
    for what in ("room_bytes", "moved_bytes"):
        assert max(few[what], many[what]) <= 1.3 * min(few[what], many[what])


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("%a = f32[8,10,16] all-to-all(%x), dimensions={0}", {"all-to-all": 4480.0}),
        (
            "%a = ((f32[64,1,128], s32[8]), f32[32,1,128], u32[]) ragged-all-to-all-start(%x, %o)",
            {"ragged-all-to-all": 28672.0},
        ),
        ("%a = (f32[100], f32[20,5]) all-reduce(%x, %y), to_apply=%add", {"all-reduce": 1400.0}),
        ("%a = f32[80] all-gather(%x), dimensions={0}", {"all-gather": 280.0}),
        ("%a = f32[10] reduce-scatter(%x), dimensions={0}", {"reduce-scatter": 280.0}),
        ("%a = f32[10] collective-permute(%x)", {"collective-permute": 40.0}),
        ("%a = f32[10] all-reduce-done(%x)", {}),
        ("%a = f32[10] add(%x, %y)", {}),
    ],
)
def test_what_a_collective_sends(line: str, sent: dict[str, Any]) -> None:
    assert _hlo.sent_bytes(_hlo.instructions(line), 8) == pytest.approx(sent)
