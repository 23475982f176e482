"""What people read: repr, debug strings, logs, completion."""

import collections
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.nested_map import NestedMap

Pair = collections.namedtuple("Pair", ["x", "y"])


class Marked(NestedMap):
    """A subclass that adds nothing."""


def test_repr_in_one_line_can_be_evaluated():
    m = NestedMap(a=1, b=Marked(c="x"), d=[{"e/f": (2,)}], n=Pair(1, 2), z=None)
    text = "NestedMap(a=1, b=Marked(c='x'), d=[{'e/f': (2,)}], n=Pair(x=1, y=2), z=None)"
    assert repr(m) == str(m) == text


def test_repr_breaks_lines_and_abbreviates_arrays():
    m = NestedMap(
        embedding=NestedMap(table=jnp.zeros((1000, 16)), slots=[np.zeros((1000, 16))]),
        step=jnp.int32(7),
        rates=np.array([0.5, 0.25], np.float32),
        name="a name that is long enough to break the line",
    )
    assert repr(m) == (
        "NestedMap(\n"
        "    embedding=NestedMap(table=float32[1000,16], slots=[float64[1000,16]]),\n"
        "    step=Array(7, dtype=int32),\n"
        "    rates=array([0.5 , 0.25], dtype=float32),\n"
        "    name='a name that is long enough to break the line',\n"
        ")"
    )


def test_repr_of_what_has_no_value():
    donated = jnp.zeros(3)
    donated.delete()
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert repr(NestedMap(a=donated)) == "NestedMap(a=float32[3] (deleted))"
    assert repr(NestedMap(a=shape)) == f"NestedMap(a={shape!r})"
    seen = []
    jax.jit(lambda m: seen.append(repr(m)) or m)(NestedMap(a=jnp.zeros((2, 3))))
    assert "float32[2,3]" in seen[0]


def test_repr_of_a_map_within_itself():
    m = NestedMap(a=1)
    m.me = [m]
    assert repr(m) == "NestedMap(a=1, me=[...])"


def test_debug_string():
    m = NestedMap(b=[1, NestedMap(z="abc")], a=(2, NestedMap(c=3)), n=Pair(NestedMap(x=5), "y"))
    assert m.DebugString().split("\n") == [
        "a         (2, {'c': 3})",
        "b[0]      1",
        "b[1].z    abc",
        "n         Pair(x={'x': 5}, y='y')",
    ]
    assert NestedMap().DebugString() == ""


@pytest.mark.parametrize(
    ("level", "severity"),
    [(None, 20), (0, 20), (1, 10), (2, 9), (50, 1), (-1, 30), (-2, 40), (-3, 50), (-9, 50)],
)
def test_vlog(caplog, level, severity):
    with caplog.at_level(1, logger="monolith_jax.nested_map"):
        NestedMap(a=1, b=[2]).VLog(level)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (severity, "nmap:  a       1"),
        (severity, "nmap:  b[0]    2"),
    ]


def test_vlog_writes_no_lines_that_nobody_reads(caplog):
    class Costly:
        def __str__(self):
            raise AssertionError("written in vain")

    with caplog.at_level(logging.INFO, logger="monolith_jax.nested_map"):
        NestedMap(a=Costly()).VLog(1)
        NestedMap(a=1).VLog(prefix="batch:")
    assert [r.getMessage() for r in caplog.records] == ["batch: a    1"]


def test_dir_has_keys_paths_and_methods():
    names = dir(NestedMap(a=NestedMap(b=[1]), c={3: 4}))
    assert {"a", "a.b[0]", "c", "c[3]", "Get", "items"} <= set(names)


def test_completion_in_ipython():
    completer = pytest.importorskip("IPython.core.completer", reason="pip install ipython")
    m = NestedMap(weights=NestedMap(dense=1), width=2)
    ipython = completer.IPCompleter(namespace={"m": m}, use_jedi=False)
    with completer.provisionalcompleter():
        attributes = {c.text for c in ipython.completions("m.we", 4)}
        keys = {c.text for c in ipython.completions("m['w", 4)}
    assert any(text.endswith("weights") for text in attributes)
    assert any(text.endswith("weights.dense") for text in attributes)
    assert {"weights", "width"} <= keys


def test_ipython_prints_the_repr():
    pretty = pytest.importorskip("IPython.lib.pretty", reason="pip install ipython").pretty
    assert pretty(Marked(a=NestedMap(b=1))) == "Marked(a=NestedMap(b=1))"


def test_completion_in_the_standard_shell():
    import rlcompleter

    completer = rlcompleter.Completer({"m": NestedMap(weights=1)})
    assert completer.complete("m.wei", 0) == "m.weights"
