"""Names of our variables in TensorFlow's checkpoints: the file, the list, the comparison."""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from monolith_jax.checkpoint.tf import TensorInfo
from monolith_jax.checkpoint.tf.names import (
    MovingAverages,
    NameMap,
    NameRule,
    OptimizerNames,
    Report,
    Variable,
    averages,
    entries,
    match,
    read_names,
)
from monolith_jax.errors import CheckpointError, ConfigError
from monolith_jax.optimizers import Adagrad, Adam, Ftrl, RMSProp

VARIABLES = (
    Variable("params/deep/out/kernel", (8, 1), Adam(), "params"),
    Variable("params/deep/out/bias", (1,), Adam(), "params"),
    Variable("tables/user", (10, 4), Adagrad(), "tables/dim4"),
)
FILE = r"""
global_step = "step"
ignore = ['debug/.*']

[variables]
"tables/user" = "emb/user"

[[rules]]
ours = 'params/deep/(\w+)/(?P<what>\w+)'
tf = 'dnn/\1/\g<what>'

[optimizers.params]
name = "Mine"
scope = "train"
scalar_index = 1

[optimizers."tables/user"]
slot_index = 1

[moving_averages]
name = "EMA"
read = true
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "names.toml"
    file.write_text(text)
    return file


def held(**arrays: tuple[tuple[int, ...], str]) -> dict[str, TensorInfo]:
    return {n: TensorInfo(np.dtype(d), shape, (), 0) for n, (shape, d) in arrays.items()}


def all_of(variables: tuple[Variable, ...], names: NameMap) -> dict[str, TensorInfo]:
    return {e.tf: TensorInfo(e.dtype, e.shape, (), 0) for e in entries(variables, names)}


def compared(tensors: Mapping[str, TensorInfo], names: NameMap | None = None) -> Report:
    names = names or NameMap()
    return match(entries(VARIABLES, names), tensors, names)


def test_without_a_file_names_are_our_paths_without_their_first_part() -> None:
    assert {e.ours: e.tf for e in entries(VARIABLES, NameMap())} == {
        "params/deep/out/kernel": "deep/out/kernel",
        "params/deep/out/kernel@m": "deep/out/kernel/Adam",
        "params/deep/out/kernel@v": "deep/out/kernel/Adam_1",
        "params/deep/out/bias": "deep/out/bias",
        "params/deep/out/bias@m": "deep/out/bias/Adam",
        "params/deep/out/bias@v": "deep/out/bias/Adam_1",
        "tables/user": "user",
        "tables/user@accumulator": "user/Adagrad",
        "params@beta1_power": "beta1_power",
        "params@beta2_power": "beta2_power",
        "step": "global_step",
    }


def test_a_file_gives_names_one_by_one_by_expression_and_to_optimizers(tmp_path: Path) -> None:
    names = read_names(written(tmp_path, FILE))
    found = {e.ours: e.tf for e in entries(VARIABLES, names)}
    assert found == {
        "params/deep/out/kernel": "dnn/out/kernel",
        "params/deep/out/kernel@m": "dnn/out/kernel/Mine",
        "params/deep/out/kernel@v": "dnn/out/kernel/Mine_1",
        "params/deep/out/bias": "dnn/out/bias",
        "params/deep/out/bias@m": "dnn/out/bias/Mine",
        "params/deep/out/bias@v": "dnn/out/bias/Mine_1",
        "tables/user": "emb/user",
        "tables/user@accumulator": "emb/user/Adagrad_1",
        "params@beta1_power": "train/beta1_power_1",
        "params@beta2_power": "train/beta2_power_1",
        "step": "step",
    }
    assert names.ignores("debug/x")
    assert not names.ignores("dnn/debug/x")
    assert entries(VARIABLES, names)[0].average == "dnn/out/kernel/EMA"


def test_slots_can_have_names_of_their_own() -> None:
    variables = (Variable("tables/a", (3, 2), Ftrl()), Variable("tables/b", (3, 2), RMSProp()))
    said = OptimizerNames(renamed={"accumulator": "acc"})
    found = {e.ours: e.tf for e in entries(variables, NameMap(optimizers={"tables": said}))}
    assert found["tables/a@accumulator"] == "a/acc"
    assert found["tables/a@linear"] == "a/Ftrl"
    assert found["tables/b@ms"] == "b/RMSProp"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[variables", "cannot be read"),
        ("[variable]\na = 'b'", "unknown entry 'variable': did you mean variables?"),
        ("variables = 3", "variables must be a table, got 3"),
        ("[variables]\na = 3", "variables.a must be a str, got 3"),
        ("[[rules]]\nours = '('\ntf = ''", r"ours = '\(' is no regular expression"),
        ("[[rules]]\nours = 'a'", "rules: a rule needs tf"),
        ("[[rules]]\nours = 'a'\ntf = 'b'\nto = 'c'", "rules: unknown entry 'to'"),
        ("rules = 3", r"rules must be tables, \[\[rules\]\]"),
        ("optimizers = 3", "optimizers must be tables"),
        ("[optimizers]\nparams = 3", "optimizers.params must be a table, got 3"),
        ("[optimizers.params]\nnam = 'a'", "optimizers.params: .*did you mean name"),
        ("[optimizers.params]\nslot_index = true", "slot_index must be a int, got True"),
        ("[optimizers.params]\nslot_index = -1", "slot_index must be at least 0, got -1"),
        ("[moving_averages]\nread = 1", "moving_averages.read must be a bool, got 1"),
        ("ignore = ['(']", r"ignore '\(' is no regular expression"),
        ("ignore = 'a'", "ignore must be a list"),
        ("global_step = 1", "global_step must be a str"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"{file}.*{message}"):
        read_names(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        read_names(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NameMap(variables={"tables/users": "u"}), "'tables/users': did you mean tables/user?"),
        (NameMap(optimizers={"table": OptimizerNames()}), "'table': did you mean tables"),
        (NameMap(rules=(NameRule(ours="params/.*", tf=r"\1"),)), "does not fit"),
        (NameMap(rules=(NameRule(ours="params/.*", tf="w"),)), "would both be 'w'"),
        (NameMap(variables={"tables/user": "global_step"}), "would both be 'global_step'"),
        (NameMap(variables={"tables/user": "beta1_power"}), "would both be 'beta1_power'"),
    ],
)
def test_names_that_do_not_fit_the_variables_are_an_error(names: NameMap, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        entries(VARIABLES, names)


def test_two_rules_share_powers_as_those_of_one_optimizer() -> None:
    variables = (
        Variable("params/w", (2,), Adam(), "params"),
        Variable("tables/t", (2, 2), Adam(), "tables/dim2"),
    )
    found = [e for e in entries(variables, NameMap()) if e.tf == "beta1_power"]
    assert [e.variable for e in found] == ["params", "tables/dim2"]
    apart = NameMap(optimizers={"tables": OptimizerNames(scalar_index=1)})
    assert {e.tf for e in entries(variables, apart) if e.kind == "scalar"} == {
        "beta1_power",
        "beta2_power",
        "beta1_power_1",
        "beta2_power_1",
    }


def test_all_that_is_there_matches() -> None:
    report = compared(all_of(VARIABLES, NameMap()))
    assert len(report.found) == 11
    report.check("model.ckpt-1")
    assert list(report.lines())[-1] == ("11 matched, 0 missing, 0 disagree, 0 left over, 0 ignored")


def test_what_is_missing_is_named_with_what_may_be_meant() -> None:
    tensors = all_of(VARIABLES, NameMap())
    tensors["embedding_of_users"] = tensors.pop("user")
    tensors["embedding_of_users/Adagrad"] = tensors.pop("user/Adagrad")
    tensors["globalstep"] = tensors.pop("global_step")
    report = compared(tensors)
    assert {m.entry.ours: m.follows for m in report.missing} == {
        "tables/user": False,
        "tables/user@accumulator": True,
        "step": False,
    }
    with pytest.raises(CheckpointError) as caught:
        report.check("m-1")
    assert str(caught.value) == (
        "m-1: no 'user' for tables/user; did you mean embedding_of_users?; "
        "no 'global_step' for step; did you mean globalstep?"
    )
    report.check("m-1", partial=True)


def test_a_slot_of_another_optimizer_is_missing_and_the_other_left() -> None:
    tensors = all_of(VARIABLES, NameMap())
    tensors["user/Momentum"] = tensors.pop("user/Adagrad")
    report = compared(tensors)
    assert [(m.entry.ours, m.near) for m in report.missing] == [
        ("tables/user@accumulator", ("user/Momentum",))
    ]
    assert [(x.name, x.why) for x in report.left] == [
        ("user/Momentum", "beside tables/user: a slot of another optimizer?")
    ]


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (TensorInfo(np.dtype("f4"), (11, 4), (), 0), "user has shape (11, 4), ours (10, 4)"),
        (TensorInfo(np.dtype("f8"), (10, 4), (), 0), "user has dtype float64, ours float32"),
        (TensorInfo(np.dtype(object), (10, 4), (), 0), "user has dtype object, ours float32"),
    ],
)
def test_what_disagrees_is_an_error_in_a_partial_import_too(info: TensorInfo, what: str) -> None:
    report = compared(all_of(VARIABLES, NameMap()) | {"user": info})
    with pytest.raises(CheckpointError) as caught:
        report.check("m-1", partial=True)
    assert str(caught.value) == f"m-1: {what}"


def test_narrower_floats_are_widened() -> None:
    for dtype in (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)):
        info = TensorInfo(dtype, (10, 4), (), 0)
        compared(all_of(VARIABLES, NameMap()) | {"user": info}).check("m-1")


def test_what_is_left_says_what_it_seems_and_ignored_is_quiet() -> None:
    more = {"user/ExponentialMovingAverage": ((10, 4), "f4"), "debug/x": ((), "f4")}
    names = NameMap(ignore=("debug/.*",), rules=(NameRule(ours="nothing", tf="n"),))
    report = compared(all_of(VARIABLES, names) | held(**more), names)
    assert {x.name: x.why for x in report.left} == {
        "user/ExponentialMovingAverage": "moving average of user",
        "debug/x": "ignored",
    }
    assert report.unused_rules == ("nothing",)
    text = "\n".join(report.lines())
    assert "debug" not in text
    assert "1 left over, 1 ignored" in text
    assert report.to_json()["left"][0]["why"] == "moving average of user"


def test_averages_are_read_where_there_are_any_and_written_on_request() -> None:
    names = NameMap(moving_averages=MovingAverages(read=True, write=True))
    more = held(**{"user/ExponentialMovingAverage": ((10, 4), "f4")})
    report = compared(all_of(VARIABLES, names) | more, names)
    assert {f.entry.ours: f.tf for f in report.found if f.entry.kind == "value"} == {
        "params/deep/out/kernel": "deep/out/kernel",
        "params/deep/out/bias": "deep/out/bias",
        "tables/user": "user/ExponentialMovingAverage",
    }
    assert not report.left
    twice = averages(entries(VARIABLES, names), names)
    assert twice["user/ExponentialMovingAverage"].ours == "tables/user"
    assert len(twice) == 3
    assert not averages(entries(VARIABLES, NameMap()), NameMap())
