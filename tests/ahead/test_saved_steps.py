"""A step that was compiled before: taken where it is the same, else a line says what differs."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.ahead import SavedSteps, file, steps
from monolith_jax.ahead.environment import differences
from monolith_jax.errors import DataError
from monolith_jax.planning.expected import expected_batch
from monolith_jax.storage import NotFoundError
from monolith_jax.task import TaskConfig
from monolith_jax.training.program import Program

Run = Callable[..., Any]


def with_saved(task: TaskConfig, folder: Path, name: str = "small") -> tuple[Program, list[str]]:
    """Returns a program that may take its step from a folder, and what it says."""
    said: list[str] = []
    program = Program(task, jax.devices())
    program.train_step = SavedSteps(program, name, str(folder), said.append)
    return program, said


def find(program: Program) -> Any:
    """Returns the saved step for what the program expects; nothing is compiled."""
    window = program.abstract_checkpoint()["window"]
    return program.train_step.find((program.abstract_state(), window, expected_batch(program)))


def changed_header(saved: Path, target: Path, **changes: Any) -> None:
    header, packed = file.read(str(saved))
    payload = file.unpack(str(saved), header, packed)
    file.write(str(target / saved.name), header | changes, payload)


@pytest.fixture
def compiles() -> Iterator[list[str]]:
    """The names of the programs that XLA compiles from here on."""
    found: list[str] = []

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(about.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_the_saved_step_is_taken_and_leaves_the_same_bits(
    small: TaskConfig, saved: Path, run: Run, compiles: list[str]
) -> None:
    program, said = with_saved(small, saved.parent)
    state, window = run(program)
    assert [line.partition(",")[0] for line in said] == [f"took {saved}"]
    assert "_train_step" not in "".join(compiles)
    plain = Program(small, jax.devices())
    want = run(plain)
    assert "_train_step" in "".join(compiles)
    for got, expected in zip(jax.tree.leaves((state, window)), jax.tree.leaves(want), strict=True):
        assert got.sharding == expected.sharding
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_the_state_is_donated_to_it(small: TaskConfig, saved: Path, batch: Any) -> None:
    program, _ = with_saved(small, saved.parent)
    before = program.init(0)
    program.train_step(before, program.empty_window(), program.prepare(batch(0)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.tables["stacks"]))


def test_another_config_is_named_by_its_fields(small: TaskConfig, saved: Path, run: Run) -> None:
    program, said = with_saved(dataclasses.replace(small, embedding_l2=0.5), saved.parent)
    run(program)
    assert said == [f"{saved} is not taken: embedding_l2: 0.0 saved, 0.5 here; compiling"]


def test_what_does_not_change_the_program_does_not_matter(small: TaskConfig, saved: Path) -> None:
    train = dataclasses.replace(small.train, epochs=9, log_every=3)
    program, said = with_saved(dataclasses.replace(small, train=train), saved.parent)
    assert find(program) is not None
    assert said[0].startswith("took ")


def test_other_shapes_are_named(small: TaskConfig, saved: Path) -> None:
    size = dataclasses.replace(small, input=dataclasses.replace(small.input, batch_size=64))
    program, said = with_saved(size, saved.parent)
    assert find(program) is None
    assert "input.batch_size: 32 saved, 64 here" in said[0]
    assert "batch/label: float32[32] saved, float32[64] here" in said[0]


def test_another_environment_is_named_by_its_fields(
    small: TaskConfig, saved: Path, tmp_path: Path
) -> None:
    header, _ = file.read(str(saved))
    other = header["environment"] | {"jax": "0.0.1", "devices": "16", "XLA_FLAGS": "--a=1"}
    changed_header(saved, tmp_path, environment=other)
    _, said = with_saved(small, tmp_path)
    here = header["environment"]
    for name, value in (("jax", "0.0.1"), ("devices", "16"), ("XLA_FLAGS", "--a=1")):
        assert f"{name}: {value} saved, {here[name]} here" in said[0]
    assert said[0].count(" saved, ") == 3
    assert said[1:] == ["the step is compiled here"]


def test_another_program_of_the_same_config_is_told(
    small: TaskConfig, saved: Path, tmp_path: Path
) -> None:
    changed_header(saved, tmp_path, program="0" * 64)
    program, said = with_saved(small, tmp_path)
    assert find(program) is None
    assert "the code of the model or of the package is another here; compiling" in said[0]


def test_a_payload_that_the_runtime_refuses_is_told(
    small: TaskConfig, saved: Path, tmp_path: Path
) -> None:
    header, _ = file.read(str(saved))
    file.write(str(tmp_path / saved.name), header, b"no machine code")
    program, said = with_saved(small, tmp_path)
    assert find(program) is None
    assert said[0].startswith(f"{tmp_path / saved.name} is not taken: ")
    assert said[0].endswith("; compiling")


def test_files_of_other_models_and_of_other_devices_are_no_noise(
    small: TaskConfig, saved: Path, tmp_path: Path
) -> None:
    program, said = with_saved(small, saved.parent, name="another")
    assert said == [f"{saved.parent} has no step of another", "the step is compiled here"]
    header, _ = file.read(str(saved))
    changed_header(saved, tmp_path, environment=header["environment"] | {"devices": "256"})
    shutil.copy(saved, tmp_path / "good.step")
    program, said = with_saved(small, tmp_path)
    assert find(program) is not None
    assert [line.partition(",")[0] for line in said] == [f"took {tmp_path / 'good.step'}"]


@pytest.mark.parametrize("cut", [0, 10, 40, 2000, -1])
def test_a_file_that_is_cut_off_is_told(
    small: TaskConfig, saved: Path, tmp_path: Path, cut: int
) -> None:
    (tmp_path / saved.name).write_bytes(saved.read_bytes()[:cut])
    with pytest.raises(DataError, match=saved.name):
        file.read(str(tmp_path / saved.name))
    _, said = with_saved(small, tmp_path)
    assert said[0].startswith(f"{tmp_path / saved.name} is not taken: ")


def test_a_payload_larger_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    path = str(tmp_path / "a.step")
    file.write(path, {"model": "m"}, bytes(10_000_000))
    header, packed = file.read(path)
    header["payload"]["bytes"] = 5
    with pytest.raises(DataError, match="not the 5 bytes"):
        file.unpack(path, header, packed)


def test_a_step_is_taken_from_a_bucket(small: TaskConfig, saved: Path, gcs: Any) -> None:
    header, packed = file.read(str(saved))
    path = gcs / f"steps/{saved.name}"
    file.write(path, header, file.unpack(str(saved), header, packed))
    said: list[str] = []
    program = Program(small, jax.devices())
    program.train_step = SavedSteps(program, "small", gcs / "steps", said.append)
    assert find(program) is not None
    assert said[0].startswith(f"took {path}, loaded in ")


def test_a_folder_that_is_not_there_is_an_error(small: TaskConfig, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        with_saved(small, tmp_path / "nowhere")


def test_many_differences_are_cut_short() -> None:
    here = {f"field {i}": "1" for i in range(20)}
    lines = steps._listed(differences({}, here))
    assert lines.count(" saved, ") == 8
    assert lines.endswith(" and 12 more")
