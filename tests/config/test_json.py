"""Configs through JSON: every value back as it was, and hostile documents refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax.config import Config, field, from_dict, to_dict
from monolith_jax.errors import ConfigError


class Shape(Config):
    """A base of alternatives, which is no dataclass."""


@dataclass(frozen=True, kw_only=True)
class Circle(Shape):
    radius: float = field(1.0, doc="Radius.")

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ConfigError(f"radius must be above 0, got {self.radius}")


@dataclass(frozen=True, kw_only=True)
class Square(Shape):
    side: int = field(1, doc="Side.")


@dataclass(frozen=True, kw_only=True)
class Drawing(Config):
    name: str = field(doc="Required.")
    count: int = field(0, doc="An integer.")
    scale: float = field(1.0, doc="A float.")
    shown: bool = field(True, doc="A bool.", restart="free")
    kind: Literal["ink", 2] = field("ink", doc="A choice.")
    limit: float | None = field(None, doc="Optional.")
    number: int | float = field(0, doc="Either number.")
    shape: Shape = field(Circle(), doc="A config.")
    fill: float | Shape = field(0.5, doc="A number or a config.")
    shapes: tuple[Shape, ...] = field((), doc="Configs.")
    grid: tuple[tuple[int, ...], ...] = field((), doc="Nested tuples.")
    pair: tuple[int, str] = field((1, "a"), doc="Two.")
    anything: Any = field(None, doc="Anything.")
    function: Callable[[], int] | float = field(0.0, doc="No JSON value, or a number.")


NAME = f"{Drawing.__module__}.Drawing"
CIRCLE = f"{Circle.__module__}.Circle"
floats = st.floats(allow_nan=False)
shapes = st.builds(Circle, radius=st.floats(min_value=1e-9, allow_nan=False)) | st.builds(
    Square, side=st.integers()
)
drawings = st.builds(
    Drawing,
    name=st.text(),
    count=st.integers(),
    scale=floats,
    shown=st.booleans(),
    kind=st.sampled_from(["ink", 2]),
    limit=st.none() | floats,
    number=st.integers() | floats,
    shape=shapes,
    fill=floats | shapes,
    shapes=st.lists(shapes, max_size=3).map(tuple),
    grid=st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
    anything=st.none() | st.text() | shapes | st.lists(st.integers()).map(tuple),
)


def document(**values: Any) -> dict[str, Any]:
    return {"$type": NAME, "name": "n", **values}


@given(drawing=drawings)
def test_there_and_back_through_text(drawing: Drawing) -> None:
    again = from_dict(json.loads(json.dumps(to_dict(drawing))))
    assert again == drawing
    assert type(again.number) is type(drawing.number)
    assert repr(again) == repr(drawing)


def test_free_fields_can_be_left_out() -> None:
    written = to_dict(Drawing(name="n"), fixed_only=True)
    assert "shown" not in written
    assert from_dict(written) == Drawing(name="n")


def test_numpy_scalars_become_numbers() -> None:
    drawing = Drawing(
        name=np.str_("n"),
        count=np.int32(3),
        scale=np.float32(0.1),
        limit=np.float64(0.5),
    )
    written = to_dict(drawing)
    assert [type(written[key]) for key in ("name", "count", "scale", "limit")] == [
        str,
        int,
        float,
        float,
    ]
    assert from_dict(json.loads(json.dumps(written))) == drawing


@pytest.mark.parametrize("value", [len, Fraction(1, 3), {"a": 1}, 1j])
def test_what_is_no_json_is_kept_as_its_repr_and_not_read_back(value: object) -> None:
    written = json.loads(json.dumps(to_dict(Drawing(name="n", anything=value))))
    assert written["anything"] == {"$repr": repr(value)}
    with pytest.raises(ConfigError, match=r"config\.anything: .* cannot be read back"):
        from_dict(written)


def test_a_function_where_a_number_could_be_says_the_same() -> None:
    written = to_dict(Drawing(name="n", function=len))
    with pytest.raises(ConfigError, match=r"config\.function: .* cannot be read back"):
        from_dict(written)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "config: expected a config, got None"),
        ([], "config: expected a config, got []"),
        ({}, "config: unknown config class None"),
        ({"$type": 3}, "config: unknown config class 3"),
        ({"$type": ["x"]}, "config: unknown config class ['x']"),
        ({"$type": "os.system"}, "unknown config class 'os.system'"),
        ({"$type": f"{Shape.__module__}.Shape"}, "Shape is a base class that cannot be made"),
        ({"$type": NAME}, "missing 1 required keyword-only argument: 'name'"),
        ({"$repr": "x"}, "config: 'x' is no config and cannot be read back"),
        (document(nam="x"), "config: Drawing has no field 'nam': did you mean name?"),
        (document(__class__="x"), "Drawing has no field '__class__'"),
        (document(instantiate=1), "Drawing has no field 'instantiate'"),
        (document(count=True), "config.count: True is not of type int"),
        (document(count=1.0), "config.count: 1.0 is not of type int"),
        (document(count="1"), "config.count: '1' is not of type int"),
        (document(count=None), "config.count: None is not of type int"),
        (document(count=[1]), "config.count: [1] is not of type int"),
        (document(count={"$type": CIRCLE}), f"config.count: expected no config, got {CIRCLE}"),
        (document(scale=False), "config.scale: False is not of type float"),
        (document(scale=10**400), "does not fit a float"),
        (document(shown=1), "config.shown: 1 is not of type bool"),
        (document(name=3), "config.name: 3 is not of type str"),
        (document(kind="pen"), "config.kind: 'pen' is not of type ink | 2"),
        (document(kind=2.0), "config.kind: 2.0 is not of type ink | 2"),
        (document(kind=["ink"]), "config.kind: ['ink'] is not of type ink | 2"),
        (document(limit="x"), "config.limit: 'x' is not of type float | None"),
        (document(limit=True), "config.limit: True is not of type float | None"),
        (document(shape=3), "config.shape: expected a config, got 3"),
        (document(shape=None), "config.shape: expected a config, got None"),
        (document(shape=document()), f"config.shape: expected Shape, got {NAME}"),
        (document(shape={"$type": CIRCLE, "radius": "x"}), "config.shape.radius: 'x'"),
        (document(shape={"$type": CIRCLE, "radius": -1.0}), "config.shape: radius must be above 0"),
        (document(fill={"$type": CIRCLE, "radius": 0}), "config.fill: radius must be above 0"),
        (document(fill=document()), f"config.fill: expected Shape, got {NAME}"),
        (document(shapes={"0": 1}), "config.shapes: unknown config class None"),
        (document(shapes="ab"), "config.shapes: expected a list, got 'ab'"),
        (document(shapes=[{"$type": CIRCLE}, 3]), "config.shapes[1]: expected a config, got 3"),
        (document(grid=[[1], 2]), "config.grid[1]: expected a list, got 2"),
        (document(grid=[[1], [None]]), "config.grid[1][0]: None is not of type int"),
        (document(pair=[1]), "config.pair: expected 2 values, got 1"),
        (document(pair=["a", 1]), "config.pair[0]: 'a' is not of type int"),
        (document(anything=[[{"$type": "x"}]]), "config.anything[0][0]: unknown config class 'x'"),
    ],
)
def test_hostile_documents_are_refused_with_the_place(bad: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(bad)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_document_of_any_depth_is_an_error_and_no_crash() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested too deeply"):
        from_dict(document(anything=deep))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$type", "$repr", "name", "count", "shape", "radius"]), inner
        )
    ),
    max_leaves=8,
)


@given(bad=st.dictionaries(st.sampled_from([*to_dict(Drawing(name="n")), "x"]), json_values))
def test_any_document_is_a_valid_config_or_a_config_error(bad: dict[str, Any]) -> None:
    try:
        drawing = from_dict({**bad, "$type": NAME})
    except ConfigError:
        return
    assert type(drawing.count) is int
    assert type(drawing.scale) is float
    assert type(drawing.shown) is bool
    assert isinstance(drawing.shape, Shape)
    assert all(isinstance(shape, Shape) for shape in drawing.shapes)


def test_reading_imports_nothing() -> None:
    code = """
import sys
from monolith_jax.config import from_dict
from monolith_jax.errors import ConfigError
before = set(sys.modules)
for name in ("antigravity.x", "this.x", "monolith_jax.embedding.config.TableConfig"):
    try:
        from_dict({"$type": name})
    except ConfigError as error:
        assert "import its module first" in str(error), error
    else:
        raise AssertionError(name)
assert set(sys.modules) == before, set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_real_task_config_goes_there_and_back() -> None:
    from monolith_jax.registry import GetParams

    for key in ("movielens.DeepFM", "movielens.MatrixFactorization"):
        task = GetParams(key)
        assert from_dict(json.loads(json.dumps(to_dict(task)))) == task
