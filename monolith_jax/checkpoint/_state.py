"""A tree of arrays as a bundle: each process writes the parts it holds, and reads what it needs."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from monolith_jax.checkpoint.tf import BundleWriter, load, open_bundle
from monolith_jax.checkpoint.tf._boxes import Box
from monolith_jax.checkpoint.tf._leaves import named, own_parts
from monolith_jax.errors import CheckpointError, did_you_mean

StateT = TypeVar("StateT")
Arrays = Mapping[str, tuple[tuple[int, ...], Any]]  # name -> shape, dtype

FILE_BYTES = 32 << 20
"""A process writes one data file for so many bytes, up to `MOST_FILES`: each is one upload."""

MOST_FILES = 8


class Piece(NamedTuple):
    """A part of an array, in this process's memory.

    Attributes:
      name: the array's.
      shape: the array's.
      box: where the part lies in it, (start, stop) of each dimension.
      data: its values, a copy.
    """

    name: str
    shape: tuple[int, ...]
    box: Box
    data: np.ndarray


def check(where: str, abstract: Any, found: Arrays) -> None:
    """Compares what a checkpoint holds with what is wanted of it, before any of it is read.

    Args:
      where: the checkpoint, for the messages.
      abstract: a tree of arrays or `jax.ShapeDtypeStruct`s.
      found: what there is.

    Raises:
      CheckpointError: an array is missing, left over, or of another shape or dtype; names it.
    """
    wanted = named(abstract, where)
    for name, leaf in wanted.items():
        if name not in found:
            raise CheckpointError(f"{where}: no {name!r} in it; {did_you_mean(name, found)}")
        shape, dtype = found[name]
        if tuple(shape) != tuple(leaf.shape):
            raise CheckpointError(
                f"{where}: {name!r} has shape {tuple(shape)}, the model wants {tuple(leaf.shape)}"
            )
        if np.dtype(dtype) != np.dtype(leaf.dtype):
            raise CheckpointError(
                f"{where}: {name!r} is {np.dtype(dtype)}, the model wants {np.dtype(leaf.dtype)}"
            )
    left = [name for name in found if name not in wanted]
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise CheckpointError(f"{where}: the model has no {left[0]!r}{more}, which is in it")


def snapshot(tree: Any) -> list[Piece]:
    """Copies what this process has to write to the host; the arrays may then be donated.

    Of each part of an array the process with its first replica writes it; of what is the same
    everywhere, process 0.
    """
    leaves = named(tree, "the state")
    own = [(name, leaf, *part) for name, leaf in leaves.items() for part in own_parts(leaf)]
    for _, _, _, part in own:
        if isinstance(part, jax.Array):
            part.copy_to_host_async()  # all on their way before the first is waited for
    pieces: list[Piece] = []
    for name, leaf, box, part in own:
        # A view of a CPU's buffer would keep it from being donated.
        shape = tuple(np.shape(leaf))
        everything = tuple((0, size) for size in shape)
        whole = Piece(name, shape, everything if box is None else box, np.array(part))
        pieces += _cut(whole, FILE_BYTES)
    return pieces


def files(tree: Any, processes: int) -> int:
    """Returns how many data files each process writes: alike in all, whatever each holds."""
    total = sum(math.prod(np.shape(x)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
    return max(1, min(MOST_FILES, math.ceil(total / processes / FILE_BYTES)))


def write(prefix: Path, pieces: list[Piece], first: int, count: int, shards: int) -> None:
    """Writes the data files first, ..., first + count - 1 of `shards`, with about equal sizes."""
    shares: list[list[Piece]] = [[] for _ in range(count)]
    sizes = [0] * count
    for piece in sorted(pieces, key=lambda piece: -piece.data.nbytes):
        least = sizes.index(min(sizes))
        shares[least].append(piece)
        sizes[least] += piece.data.nbytes
    for shard, share in enumerate(shares, first):
        with BundleWriter(prefix, shard=shard, shards=shards) as writer:
            for piece in sorted(share):
                index = tuple(slice(start, stop) for start, stop in piece.box)
                writer.add_slice(piece.name, piece.shape, index, piece.data)


def read(prefix: str, abstract: StateT) -> StateT:
    """Reads a bundle onto the shardings of `abstract`, each process what its devices need.

    All processes call it alike.

    Raises:
      CheckpointError: it is damaged, or its arrays are not those of `abstract`.
    """
    wanted = named(abstract, prefix)
    check(prefix, abstract, held(prefix))
    shardings = {name: leaf.sharding for name, leaf in wanted.items() if leaf.sharding is not None}
    arrays = load(prefix, shardings, names=wanted)
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])


def held(prefix: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Returns shape and dtype of each array of a bundle, without reading one."""
    with open_bundle(prefix) as bundle:
        return {name: (info.shape, info.dtype) for name, info in bundle.entries.items()}


def _cut(piece: Piece, most: int) -> Iterator[Piece]:
    """Yields a piece in parts of at most about `most` bytes, cut along its first dimension.

    Example:
      >>> piece = Piece("x", (4, 2), ((1, 4), (0, 2)), np.ones((3, 2), np.int8))
      >>> [(part.box, part.data.shape) for part in _cut(piece, 4)]
      [(((1, 3), (0, 2)), (2, 2)), (((3, 4), (0, 2)), (1, 2))]
    """
    if piece.data.nbytes <= most or not piece.box:
        yield piece
        return
    (low, high), *rest = piece.box
    rows = max(1, most * (high - low) // piece.data.nbytes)
    for start in range(low, high, rows):
        stop = min(start + rows, high)
        data = piece.data[start - low : stop - low]
        yield piece._replace(box=((start, stop), *rest), data=data)
