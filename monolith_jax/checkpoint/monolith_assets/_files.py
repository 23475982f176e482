"""Which files of an assets folder belong together.

A dump is `<base>-<shard>-of-<shards>`, five digits each. Beside those of a multi table lie as many
`<base>.meta-...`; `hash_filter_<server>` are the filters of rare ids, which hold no embeddings.
Only files that the folder's own listing shows are opened, and no link that leads out of it.
"""

import os
import re
from dataclasses import dataclass
from typing import Literal

from monolith_jax import storage
from monolith_jax.checkpoint.monolith_assets._errors import blame
from monolith_jax.errors import CheckpointError, nearest

Kind = Literal["single", "multi", "hash_filter"]

_SHARD = re.compile(r"(?P<base>.+)-(?P<shard>[0-9]{5})-of-(?P<of>[0-9]{5})", re.DOTALL)
_FILTER = re.compile(r"hash_filter_[0-9]+")
_META = ".meta"


@dataclass(frozen=True)
class Dump:
    """The files of one table, of one multi table, or of one hash filter.

    Attributes:
      base: their common name.
      kind: "single", "multi" or "hash_filter".
      files: paths, by shard.
      metas: paths of a multi table's lists of tables, by shard; else none.
    """

    base: str
    kind: Kind
    files: tuple[str, ...]
    metas: tuple[str, ...] = ()


def assets_folder(path: storage.Path) -> str:
    """Returns the folder of assets that a path means.

    Args:
      path: the folder, or the prefix of a checkpoint, beside which `<prefix>.assets` lies.

    Raises:
      CheckpointError: there is neither; names the nearest.
    """
    text = os.fspath(path).rstrip("/")
    with blame(text):
        if not text.endswith(".assets") and storage.is_dir(f"{text}.assets"):
            return f"{text}.assets"
        if storage.is_dir(text):
            return text
        folder, name = os.path.split(text)
        beside = storage.list_folders(folder or ".") if storage.is_dir(folder or ".") else []
    names = [found for found in beside if found.endswith(".assets")]
    close = nearest(f"{name.removesuffix('.assets')}.assets", names) or sorted(names)[:5]
    tail = f"; beside it are {', '.join(close)}" if close else ""
    raise CheckpointError(f"{text}: no folder of assets, and no {text}.assets{tail}")


def find_dumps(folder: str) -> tuple[list[Dump], list[str]]:
    """Returns the dumps in a folder, by base, and the paths of the files that belong to none.

    Raises:
      CheckpointError: shards are missing, of different numbers, or links out of the folder.
    """
    with blame(folder):
        paths = storage.list_files(folder, recursive=False)
    shards: dict[str, dict[int, str]] = {}
    totals: dict[str, tuple[int, str]] = {}
    others = []
    for path in paths:
        match = _SHARD.fullmatch(path.rpartition("/")[2])
        if match is None:
            others.append(path)
            continue
        _check_inside(folder, path)
        base, of = match["base"], int(match["of"])
        first, example = totals.setdefault(base, (of, path))
        if of != first:
            raise CheckpointError(f"{path}: of {of} shards, but {example} is of {first}")
        shards.setdefault(base, {})[int(match["shard"])] = path
    complete = {
        base: _complete(folder, base, found, totals[base][0]) for base, found in shards.items()
    }
    return _pair(complete), others


def _complete(folder: str, base: str, found: dict[int, str], of: int) -> tuple[str, ...]:
    missing = [f"{n:05d}" for n in range(of) if n not in found]
    if missing or len(found) != of:
        beyond = sorted(n for n in found if n >= of)
        what = f"shard {beyond[0]:05d} is beyond" if beyond else f"missing {', '.join(missing[:5])}"
        raise CheckpointError(f"{folder}/{base}-*-of-{of:05d}: {len(found)} of {of} shards; {what}")
    return tuple(found[n] for n in range(of))


def _pair(complete: dict[str, tuple[str, ...]]) -> list[Dump]:
    """Joins multi tables with their lists of tables."""
    dumps = []
    for base, files in sorted(complete.items()):
        metas = complete.get(base + _META, ())
        owner = base.removesuffix(_META)
        if owner != base and owner in complete:
            continue
        if metas and len(metas) != len(files):
            raise CheckpointError(
                f"{files[0]}: {len(files)} shards, but {len(metas)} of {base}{_META}"
            )
        kind: Kind = "multi" if metas else "single"
        if _FILTER.fullmatch(base):
            kind = "hash_filter"
        dumps.append(Dump(base, kind, files, metas))
    return dumps


def _check_inside(folder: str, path: str) -> None:
    if storage.is_gs(path):
        return
    home = os.path.realpath(os.path.expanduser(folder))
    if os.path.dirname(os.path.realpath(path)) != home:
        raise CheckpointError(f"{path}: a link out of the folder of assets; it is not followed")
