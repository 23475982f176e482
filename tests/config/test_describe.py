"""What a config holds, for --help, and how two of them differ."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from monolith_jax.config import Config, FieldInfo, describe, differences, field, to_dict


class Rule(Config):
    @classmethod
    def choices(cls) -> dict[str, type[Config]]:
        return {"sgd": Sgd, "adam": Adam}


@dataclass(frozen=True, kw_only=True)
class Sgd(Rule):
    rate: float = field(0.1, doc="Step size.")


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    rate: float = field(0.001, doc="Step size.")
    beta: float = field(0.9, doc="Decay.")


@dataclass(frozen=True, kw_only=True)
class Table(Config):
    name: str = field(doc="Name.")
    dim: int = field(8, doc="Width.")


@dataclass(frozen=True, kw_only=True)
class Task(Config):
    seed: int = field(0, doc="A seed.")
    limit: float | None = field(None, doc="A limit.", restart="free")
    loss: Literal["a", "b"] = field("a", doc="A loss.")
    rate: float | Rule = field(0.5, doc="A rate.")
    rule: Rule = field(Adam(), doc="A rule.")
    tables: tuple[Table, ...] = field((Table(name="u"), Table(name="i.x")), doc="Tables.")
    widths: tuple[int, ...] = field((4, 2), doc="Widths.")
    empty: tuple[Table, ...] = field((), doc="No tables.")
    model: Any = field(Sgd(), doc="A model.")


def test_every_field_with_path_type_value_doc_and_restart() -> None:
    assert list(describe(Task())) == [
        FieldInfo("seed", "int", 0, "A seed.", "fixed"),
        FieldInfo("limit", "float | None", None, "A limit.", "free"),
        FieldInfo("loss", "a | b", "a", "A loss.", "fixed"),
        FieldInfo("rate", "float | sgd | adam", 0.5, "A rate.", "fixed"),
        FieldInfo("rule", "sgd | adam", "adam", "A rule.", "fixed"),
        FieldInfo("rule.rate", "float", 0.001, "Step size.", "fixed"),
        FieldInfo("rule.beta", "float", 0.9, "Decay.", "fixed"),
        FieldInfo("tables.u.name", "str", "u", "Name.", "fixed"),
        FieldInfo("tables.u.dim", "int", 8, "Width.", "fixed"),
        FieldInfo("tables.i.x.name", "str", "i.x", "Name.", "fixed"),
        FieldInfo("tables.i.x.dim", "int", 8, "Width.", "fixed"),
        FieldInfo("widths", "tuple[int, ...]", (4, 2), "Widths.", "fixed"),
        FieldInfo("empty", "tuple[Table, ...]", (), "No tables.", "fixed"),
        FieldInfo("model.rate", "float", 0.1, "Step size.", "fixed"),
    ]


def test_a_union_that_holds_a_config_shows_its_name_and_its_fields() -> None:
    infos = {info.path: info for info in describe(Task(rate=Sgd()))}
    assert infos["rate"].type == "float | sgd | adam"
    assert infos["rate"].value == "sgd"
    assert infos["rate.rate"].value == 0.1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"seed": 3}, ["seed: 0 -> 3"]),
        ({"limit": 1.0}, ["limit: None -> 1.0"]),
        ({"widths": (4, 3)}, ["widths.1: 2 -> 3"]),
        ({"widths": (4,)}, ["widths: [4, 2] -> [4]"]),
        ({"rule": Adam(beta=0.5)}, ["rule.beta: 0.9 -> 0.5"]),
        ({"rule": Sgd()}, ["rule: Adam -> Sgd"]),
        ({"rate": Sgd()}, ["rate: 0.5 -> Sgd"]),
        ({"tables": (Table(name="u", dim=4), Table(name="i.x"))}, ["tables.u.dim: 8 -> 4"]),
        ({"tables": (Table(name="u"),)}, ["tables.i.x: Table -> (absent)"]),
        (
            {"tables": (Table(name="u"), Table(name="i.x"), Table(name="t"))},
            ["tables.t: (absent) -> Table"],
        ),
        ({"tables": (Table(name="i.x"), Table(name="u"))}, ["tables.order: u, i.x -> i.x, u"]),
        ({"empty": (Table(name="e"),)}, ["empty.e: (absent) -> Table"]),
        ({"model": Sgd(rate=float("nan"))}, ["model.rate: 0.1 -> nan"]),
    ],
)
def test_differences_name_the_path_and_both_values(
    change: dict[str, Any], expected: list[str]
) -> None:
    assert differences(to_dict(Task()), to_dict(Task(**change))) == expected


def test_nan_differs_from_numbers_and_not_from_itself() -> None:
    task = Task(limit=float("nan"))
    assert differences(to_dict(task), to_dict(task)) == []


def test_a_field_that_one_side_lacks_is_absent() -> None:
    assert differences({"a": 1, "b": None}, {"b": None, "c": [1]}) == [
        "a: 1 -> (absent)",
        "c: (absent) -> [1]",
    ]


def test_config_is_frozen_and_compares_by_value() -> None:
    with pytest.raises(AttributeError):
        Task().seed = 3  # type: ignore[misc]
    assert Task() == Task()
    assert hash(Task()) == hash(Task())
    assert Task().replace(seed=3) != Task()


def test_a_config_that_builds_nothing_says_so() -> None:
    with pytest.raises(TypeError, match="Task is plain data"):
        Task().instantiate()
