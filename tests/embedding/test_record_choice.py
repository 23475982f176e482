"""Which stacks are kept in records, on which chips."""

from types import SimpleNamespace
from typing import Any

import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding import _reach as reach
from monolith_jax.embedding import _record_choice as choice
from monolith_jax.embedding._stacks import Stack, build_stacks
from monolith_jax.optimizers import Adagrad, Adam, LazyAdam, RowwiseAdagrad, Sgd


def device(kind: str, platform: str = "tpu") -> Any:
    return SimpleNamespace(platform=platform, device_kind=kind)


V5E = device("TPU v5 lite")


def stacks(dim: int, rule: Any, rows: int = 1000, bias: bool = True) -> tuple[Stack, ...]:
    sizes = (dim, 1) if bias else (dim,)
    tables = [
        TableConfig(name=f"t{width}", vocab_size=rows, dim=width, optimizer=rule) for width in sizes
    ]
    features = [FeatureConfig(name=t.name, table=t.name, column="c") for t in tables]
    return build_stacks(tables, features, 8)


@pytest.mark.parametrize(
    ("dim", "rule", "want"),
    [
        # Lanes in use, and those that a record takes; the bias beside the vector.
        (32, LazyAdam(), {"t32 t1": (99, 128)}),
        (16, LazyAdam(), {"t16 t1": (51, 64)}),
        (100, Sgd(), {"t100 t1": (101, 128)}),
        # The bias would cost a line more there, as it does alone: it takes the memory of none.
        (128, LazyAdam(), {"t1": (3, 4)}),
        # It would double the record.
        (32, Adagrad(), {"t32": (64, 64), "t1": (2, 2)}),
        # One number a row would double it too.
        (32, RowwiseAdagrad(), {"t1": (2, 2)}),
        # Nothing stands beside the value.
        (16, Sgd(), {}),
        # Every row is moved at each step.
        (32, Adam(), {}),
    ],
)
def test_what_lies_in_records_where_lines_are_moved(dim: int, rule: Any, want: Any) -> None:
    records = choice.records_of(stacks(dim, rule), "auto", V5E, 1)
    found = {" ".join(r.tables): (r.lanes, r.layout.width) for r in records.values()}
    assert found == want


def test_no_other_device_keeps_records(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stacks(32, LazyAdam())
    for other in (device("cpu", "cpu"), device("NVIDIA H200", "gpu")):
        assert choice.records_of(made, "auto", other, 1) == {}
    for words, count in ((True, 0), (False, 1)):  # an older compiler moves lines everywhere
        monkeypatch.setattr(reach, "words_compile", lambda words=words: words)
        assert len(choice.records_of(made, "auto", device("TPU v6 lite"), 1)) == count
    for form in ("rows", "lines", "words"):
        assert choice.records_of(made, form, V5E, 1) == {}


def test_no_records_without_room_for_a_checkpoint() -> None:
    """128 lanes of a record and 99 of its parts: 908 bytes a row, of 14 GiB on each device."""
    most = (14 << 30) // 908
    for rows, devices, count in ((most - 2000, 1, 1), (most + 2000, 1, 0), (most + 2000, 2, 1)):
        made = stacks(32, LazyAdam(), rows)
        assert len(choice.records_of(made, "auto", V5E, devices)) == count


def test_wide_rows_are_moved_by_a_kernel_where_lines_are() -> None:
    """It leaves the padding of their lists out."""
    for dim, kernel in ((128, True), (512, True), (640, False), (32, False)):
        (stack,) = stacks(dim, Sgd(), bias=False)
        assert reach.reach_of(stack, "auto", V5E).kernel == kernel
    (stack,) = stacks(128, Sgd(), bias=False)
    assert not reach.reach_of(stack, "auto", device("cpu", "cpu")).kernel
    assert not reach.reach_of(stack, "lines", V5E).kernel
