"""NestedMap as a pytree against dict, flax's FrozenDict and optree's dict, in one process.

Trees of one depth and number of leaves, the leaves spread evenly over the branches. Four
operations: flatten, unflatten, map of the identity, and a call of a jitted function that is given
its argument's buffers and returns them, so that almost all of its time is the tree's. optree has
no jit. FrozenDict keeps plain dicts inside, so its deep rows are nearly a dict's.

Held to, as theirs / ours against dict: map >= 1.11 (flat, 1,000 leaves), >= 0.59 (depth 4, 1,000);
jit call >= 0.87 (1,000 leaves), >= 0.45 (depth 4, 10).

    python -m benchmarks.nested_map [--json FILE] [--quick]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optree
from flax.core import FrozenDict

from benchmarks import _harness
from monolith_jax.nested_map import NestedMap

SIZES = ((1, 1_000), (4, 10), (4, 1_000))
WORK = 5_000
"""Leaves of one timed turn: some milliseconds, so that another process rarely falls into it."""


@dataclass(frozen=True)
class Side:
    """A tree class: how to make one of nested dicts, and whose functions handle it."""

    name: str
    make: Callable[[dict[str, Any]], Any]
    flatten: Callable[[Any], tuple[list[Any], Any]] = jax.tree.flatten
    unflatten: Callable[[Any, Any], Any] = jax.tree.unflatten
    map: Callable[[Callable[[Any], Any], Any], Any] = jax.tree.map


OURS = Side("NestedMap", NestedMap.FromNestedDict)
THEIRS = (
    Side("dict", lambda tree: tree),
    Side("FrozenDict", FrozenDict),
    Side(
        "optree's dict",
        lambda tree: tree,
        lambda tree: optree.tree_flatten(tree)[:2],  # type: ignore[arg-type]
        lambda treedef, leaves: optree.tree_unflatten(treedef, leaves),
        lambda fn, tree: optree.tree_map(fn, tree),
    ),
)


def nested(depth: int, leaves: int) -> dict[str, Any]:
    """Returns nested dicts with an array at each leaf; siblings differ by one leaf at most.

    Example:
      >>> tree = nested(4, 10)
      >>> len(jax.tree.leaves(tree)), list(tree), list(tree["branch_0"]["branch_0"]["branch_0"])
      (10, ['branch_0', 'branch_1'], ['leaf_0', 'leaf_1'])
    """
    if depth == 1:
        return {f"leaf_{i}": jnp.zeros(()) for i in range(leaves)}
    branches = max(1, round(leaves ** (1 / depth)))
    share, extra = divmod(leaves, branches)
    return {f"branch_{i}": nested(depth - 1, share + (i < extra)) for i in range(branches)}


def repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def operation(name: str, side: Side, depth: int, leaves: int) -> Callable[[], object]:
    """Returns a call that does `name` on a tree of `side`."""
    tree = side.make(nested(depth, leaves))
    values, treedef = side.flatten(tree)
    if name == "flatten":
        return lambda: side.flatten(tree)
    if name == "unflatten":
        return lambda: side.unflatten(treedef, values)
    if name == "map":
        return lambda: side.map(lambda x: x, tree)
    return donated(tree)


def donated(tree: Any) -> Callable[[], object]:
    step = jax.jit(lambda tree: tree, donate_argnums=0)

    def one() -> object:
        nonlocal tree
        tree = step(tree)
        return tree

    return one


def main() -> None:
    args = _harness.arguments(__doc__)
    rows = []
    for depth, leaves in SIZES:
        times = max(1, WORK // (10 if args.quick else 1) // leaves)
        for name in ("flatten", "unflatten", "map", "jit call"):
            for theirs in THEIRS:
                if name == "jit call" and theirs.flatten is not jax.tree.flatten:
                    continue
                row = _harness.compare(
                    f"{name}, depth {depth}, {leaves:,} leaves",
                    repeated(operation(name, OURS, depth, leaves), times),
                    repeated(operation(name, theirs, depth, leaves), times),
                    theirs_name=theirs.name,
                    repeats=5 if args.quick else 201,
                )
                rows.append(row)
    _harness.report(rows, args.json)


if __name__ == "__main__":
    main()
