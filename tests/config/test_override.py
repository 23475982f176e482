"""Overrides: each type from text, every way to a field, one clear error for what is wrong."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax import config
from monolith_jax.config import Config, field, override
from monolith_jax.errors import ConfigError


class Rule(Config):
    @classmethod
    def choices(cls) -> dict[str, type[Config]]:
        return {"sgd": Sgd, "adam": Adam, "needy": Needy}


@dataclass(frozen=True, kw_only=True)
class Sgd(Rule):
    rate: float = field(0.1, doc="Step size.")


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    rate: float = field(0.001, doc="Step size.")
    beta: float = field(0.9, doc="Decay.")


@dataclass(frozen=True, kw_only=True)
class Needy(Rule):
    rate: float = field(doc="Step size, without a default.")


@dataclass(frozen=True, kw_only=True)
class Table(Config):
    name: str = field(doc="Name.")
    dim: int = field(8, doc="Width.")
    rule: Rule = field(Sgd(), doc="Rule.")


@dataclass(frozen=True, kw_only=True)
class Dates(Config):
    start: int = field(1, doc="First.")
    end: int = field(2, doc="Last.")
    note: str = field("", doc="Anything.", restart="free")

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ConfigError(f"start {self.start} is after end {self.end}")


@dataclass(frozen=True, kw_only=True)
class Whole(Config):
    number: int = field(1, doc="An integer.")
    ratio: float = field(0.5, doc="A float.")
    flag: bool = field(False, doc="A bool.")
    text: str = field("a", doc="A text.")
    kind: Literal["sum", "mean"] = field("sum", doc="A choice.")
    level: Literal[1, 2] = field(1, doc="A choice of numbers.")
    limit: float | None = field(None, doc="May be none.")
    either: int | str = field(0, doc="A number or a text.")
    widths: tuple[int, ...] = field((1,), doc="Many.")
    names: tuple[str, ...] = field((), doc="Many texts.")
    pair: tuple[int, str] = field((1, "a"), doc="Two.")
    rule: Rule = field(Sgd(), doc="One of several.")
    rate: float | Rule = field(0.1, doc="A number or a rule.")
    maybe: Dates | None = field(None, doc="A config or none.")
    dates: Dates = field(Dates(), doc="A group.")
    tables: tuple[Table, ...] = field(
        (Table(name="user"), Table(name="item"), Table(name="item.v2")), doc="By name."
    )
    model: Any = field(Dates(), doc="Anything.")


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("number", "-1_000", -1000),
        ("ratio", "1e-3", 0.001),
        ("ratio", "2", 2.0),
        ("flag", "true", True),
        ("flag", "False", False),
        ("text", "", ""),
        ("text", "none", "none"),
        ("kind", "mean", "mean"),
        ("level", "2", 2),
        ("limit", "None", None),
        ("limit", "0.25", 0.25),
        ("either", "7", 7),
        ("either", "seven", "seven"),
        ("widths", "64,32", (64, 32)),
        ("widths", " 64 , 32 ", (64, 32)),
        ("widths", "64,", (64,)),
        ("widths", "", ()),
        ("names", "a,b", ("a", "b")),
        ("pair", "3,c", (3, "c")),
        ("rule", "adam", Adam()),
        ("rate", "0.5", 0.5),
        ("rate", "adam", Adam()),
    ],
)
def test_every_type_from_text(path: str, text: str, expected: object) -> None:
    value = getattr(override(Whole(), {path: text}), path)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("number", "1.5", "number: '1.5' is not an integer"),
        ("number", "true", "number: 'true' is not an integer"),
        ("ratio", "much", "ratio: 'much' is not a number"),
        ("flag", "1", "flag: '1' is not true or false"),
        ("kind", "maen", "kind: 'maen' is not one of sum, mean"),
        ("level", "3", "level: '3' is not one of 1, 2"),
        ("limit", "no", "limit: 'no' is not a number"),
        ("widths", "64,x", "widths: 'x' is not an integer"),
        ("widths", "64,,32", "widths: '64,,32' has an empty item"),
        ("widths", ",", "widths: ',' has an empty item"),
        ("pair", "1", "pair: '1' is not of type tuple[int, str]"),
        ("rule", "adm", "rule: 'adm' is no Rule: did you mean adam"),
        ("rule", "needy", "rule: needy cannot be made without arguments"),
        ("rate", "adm", "rate: 'adm' is not a number; or 'adm' is no Rule: did you mean adam"),
        ("dates", "x", "dates is a group of fields: set one of them, dates.FIELD"),
        ("tables", "x", "tables is a group of fields"),
        ("model", "x", "model: a value of type Any cannot be given on the command line"),
        ("number.x", "1", "number.x: number holds 1, which has no fields"),
        ("maybe.start", "1", "maybe.start: maybe holds None, which has no fields"),
        ("tables.usr.dim", "1", "tables.usr.dim: no item 'usr': did you mean user?"),
        ("tables.user", "1", "tables.user is a group of fields: set one, tables.user.FIELD"),
        ("tables.user.dmi", "1", "Table has no field 'dmi' (in tables.user.dmi)"),
        ("tables.user.", "1", "Table has no field"),
        ("numbr", "1", "Whole has no field 'numbr': did you mean number?"),
        ("dates.strat", "1", "Dates has no field 'strat' (in dates.strat): did you mean start?"),
        ("number.", "1", "Whole has no field 'number.'"),
        ("", "1", "Whole has no field ''"),
        ("dates.start", "5", "dates.start: start 5 is after end 2"),
        ("__class__", "x", "Whole has no field '__class__'"),
        ("dates.__dict__.x", "x", "Dates has no field '__dict__'"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(Whole(), {path: text})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("start", "did you mean dates.start or model.start?"),
        ("strat", "did you mean dates.start or model.start?"),
        ("dim", "did you mean tables.user.dim or tables.item.dim or tables.item.v2.dim?"),
        ("xyzzy", "valid choices: dates, either, "),
    ],
)
def test_a_field_of_another_group_is_suggested_with_its_path(path: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(Whole(), {path: "1"})
    assert suggestion in str(error.value)


def test_tuples_of_configs_are_reached_by_name_dots_included() -> None:
    changed = override(
        Whole(), {"tables.item.v2.dim": "3", "tables.item.dim": "2", "tables.item.rule": "adam"}
    )
    assert [table.dim for table in changed.tables] == [8, 2, 3]
    assert [table.rule for table in changed.tables] == [Sgd(), Adam(), Sgd()]


def test_items_of_one_name_are_kept_and_cannot_be_reached_by_it() -> None:
    twins = Whole(tables=(Table(name="a"), Table(name="a", dim=2)))
    with pytest.raises(ConfigError, match="which has no fields"):
        override(twins, {"tables.a.dim": "1"})


def test_fields_of_an_untyped_config_are_reached() -> None:
    assert override(Whole(), {"model.end": "9"}).model == Dates(end=9)


@pytest.mark.parametrize("reverse", [False, True])
def test_changes_are_made_at_once_in_any_order(reverse: bool) -> None:
    changes = [("dates.start", "10"), ("dates.end", "20"), ("rule.beta", "0.5"), ("rule", "adam")]
    changed = override(Whole(), dict(reversed(changes) if reverse else changes))
    assert changed.dates == Dates(start=10, end=20)
    assert changed.rule == Adam(beta=0.5)


def test_several_changes_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"^dates\.start, dates\.end: start 9 is after end 8$"):
        override(Whole(), {"dates.start": "9", "dates.end": "8"})


def test_a_plain_value_error_of_a_config_becomes_a_config_error() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Fussy(Config):
        x: int = field(1, doc="x")

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("x is negative")

    with pytest.raises(ConfigError, match="x: x is negative"):
        override(Fussy(), {"x": "-1"})


def test_the_config_and_the_changes_given_stay_as_they_are() -> None:
    whole, changes = Whole(), {"rule": "adam", "dates.end": "7"}
    override(whole, changes)
    assert whole == Whole()
    assert changes == {"rule": "adam", "dates.end": "7"}


@given(
    number=st.integers(),
    ratio=st.floats(allow_nan=False),
    flag=st.booleans(),
    text=st.text(),
    kind=st.sampled_from(["sum", "mean"]),
    limit=st.none() | st.floats(allow_nan=False),
    widths=st.lists(st.integers()).map(tuple),
)
def test_any_value_written_as_text_comes_back(**values: Any) -> None:
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
    }
    assert override(Whole(), texts) == Whole(**values)


@given(path=st.text(max_size=30), text=st.text(max_size=30))
def test_any_path_and_text_is_a_config_or_a_config_error(path: str, text: str) -> None:
    try:
        changed = override(Whole(), {path: text})
    except ConfigError:
        return
    assert isinstance(changed, Whole)


@given(data=st.data())
def test_any_described_field_takes_any_text_or_raises_a_config_error(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([info.path for info in config.describe(Whole())]))
    text = data.draw(st.text(max_size=10) | st.sampled_from(["1", "0.5", "true", "adam", "none"]))
    message = ""
    try:
        changed = override(Whole(), {path: text})
    except ConfigError as error:
        message = str(error)
    assert path in message if message else isinstance(changed, Whole)
