"""How many examples each training file holds, by a meta file.

A meta file has lines `path,count`, the paths ascending (Monolith: `core/util.py`,
`parse_example_number_meta_file` and `get_per_file_example_numbers_for_checkpoint_reload`).
"""

import logging
import os

from monolith_jax import storage
from monolith_jax.errors import ConfigError, DataError, did_you_mean

_log = logging.getLogger(__name__)


def parse_meta(path: storage.Path, separator: str = ",") -> list[tuple[str, int]]:
    r"""Reads a meta file of lines `path<separator>count`, the paths strictly ascending.

    Lines without the separator are left out, as Monolith does (a heading, say); each is logged.

    Args:
      path: the meta file, local or gs://.
      separator: what stands between path and count.

    Returns:
      (path, number of examples) of each line, in order.

    Raises:
      DataError: a count that is no number of examples, paths out of order, or no line with the
        separator at all; names the file and the line.

    Example:
      >>> import tempfile
      >>> meta = storage.join(tempfile.mkdtemp(), "meta")
      >>> storage.write_bytes(meta, b"20200501/part-0;10\n20200501/part-1;12\n")
      >>> parse_meta(meta, ";")
      [('20200501/part-0', 10), ('20200501/part-1', 12)]
    """
    name = os.fspath(path)
    try:
        lines = storage.read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is no text: {error}") from error
    if not separator:
        raise ConfigError(f"{name}: the separator is empty")
    found: list[tuple[str, int]] = []
    for number, line in enumerate(lines, start=1):
        if separator not in line:
            if line.strip():
                _log.warning("%s, line %d has no %r and is left out", name, number, separator)
            continue
        found.append(_meta_line(f"{name}, line {number}", line, separator))
        if len(found) > 1 and found[-2][0] >= found[-1][0]:
            raise DataError(
                f"{name}, line {number}: {found[-1][0]} follows {found[-2][0]}; the paths must "
                "ascend, each once"
            )
    if not found and any(line.strip() for line in lines):
        raise DataError(f"{name}: no line has the separator {separator!r}; is it another one?")
    return found


def training_file_examples(
    files: storage.Path, meta: storage.Path, separator: str = ","
) -> list[int]:
    """Returns how many examples each training file holds, by the meta file.

    Args:
      files: a pattern, folder or file; local or gs://.
      meta: the meta file. On gs:// its paths are names in the bucket (or whole gs:// paths); local
        ones are absolute, or relative to the meta file's folder.
      separator: as in `parse_meta`.

    Returns:
      One number a file, the files ascending.

    Raises:
      DataError: no files, or files that are not an unbroken run of the meta file's lines: skipping
        by counts would then skip the wrong ones.
    """
    names = [_name(path) for path in _expand(files)]
    if not names:
        raise DataError(f"{os.fspath(files)}: no files match")
    listed = [(_meta_name(name, files, meta), count) for name, count in parse_meta(meta, separator)]
    lines = {name: line for line, (name, _) in enumerate(listed)}
    unknown = [name for name in names if name not in lines]
    if unknown:
        raise DataError(
            f"{unknown[0]} is not in {os.fspath(meta)}; {did_you_mean(unknown[0], lines)}"
            if len(lines) < 10_000
            else f"{unknown[0]} is not in {os.fspath(meta)}"
        )
    first = lines[names[0]]
    run = listed[first : first + len(names)]
    for name, (wanted, _) in zip(names, run, strict=False):
        if name != wanted:
            raise DataError(
                f"{os.fspath(meta)} lists {wanted} before {name}, but it is not among the files of "
                f"{os.fspath(files)}"
            )
    return [count for _, count in run]


def _meta_line(where: str, line: str, separator: str) -> tuple[str, int]:
    name, count = (part.strip() for part in line.split(separator)[:2])
    if not name:
        raise DataError(f"{where}: the path is empty")
    if not (count.isascii() and count.isdigit()):
        raise DataError(f"{where}: {count!r} is no number of examples")
    return name, int(count)


def _expand(files: storage.Path) -> list[str]:
    if storage.has_magic(os.fspath(files)):
        return storage.glob(files)
    return storage.list_files(files) if storage.is_dir(files) else storage.glob(files)


def _name(path: str) -> str:
    return storage.split_gs(path)[1] if storage.is_gs(path) else os.path.abspath(path)


def _meta_name(name: str, files: storage.Path, meta: storage.Path) -> str:
    """Returns a meta file's path in the form that `_name` gives the training files."""
    if storage.is_gs(files):
        return storage.split_gs(name)[1] if storage.is_gs(name) else name
    base = "." if storage.is_gs(meta) else os.path.dirname(os.fspath(meta))
    return os.path.abspath(os.path.join(os.path.expanduser(base), name))
