"""Keeping the files of a range of dates: in lists, streams, our datasets and TensorFlow's.

A path belongs to the date that comes right after the root: `root/YYYYMMDD/...`, or a file
`root/YYYYMMDD...` by itself. What is below the root but has no date there (`_SUCCESS`, `tmp/`) is
left out; a path that is not below the root at all is an error, for it means a misspelt root.

The rule follows Monolith's `core/util.py: range_dateset`, which takes whatever 8 characters follow
`len(root_path)`: wrong for a root without a slash at its end, and a crash where they are no number.
"""

import datetime
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.dataset import Dataset
from monolith_jax.input.files import DataFile

Date = str | int | datetime.date

_log = logging.getLogger(__name__)
_FIRST, _LAST = "00000000", "99999999"
_DATE = r"[0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
# A folder is the date and nothing more; a file may go on after it, but not with a digit.
_REST = r"(?:/.*|[^0-9/][^/]*)?"


def filter_dates(
    items: Any, root: str | os.PathLike[str], start: Date | None = None, end: Date | None = None
) -> Any:
    """Keeps what lies in the folders of the dates from start to end, both included.

    Args:
      items: paths or `DataFile`s: a list or tuple (the same comes back), an `input.Dataset` (one
        over fewer files comes back), a `tf.data.Dataset` of scalar strings (filtered in
        TensorFlow), or any other iterable (an iterator comes back that takes one item at a time).
      root: the folder of the dates, local or gs://, with or without a "/" at its end.
      start: "YYYYMMDD", "YYYY-MM-DD", the same as an int, or a date; the earliest if None.
      end: likewise; the latest if None.

    Raises:
      ConfigError: a bound that is no date, or start after end.
      DataError: a path that does not lie below `root`. From an iterator, when it is reached; from
        TensorFlow, as its InvalidArgumentError.

    Example:
      >>> filter_dates(["gs://b/x/20200501/00/part", "gs://b/x/20200502/00/part"], "gs://b/x",
      ...              start="20200502")
      ['gs://b/x/20200502/00/part']
    """
    first, last = _bound(start, "start_date", _FIRST), _bound(end, "end_date", _LAST)
    if first > last:
        raise ConfigError(f"start_date {first} is after end_date {last}")
    _log.info("start_date: %s, end_date: %s", first, last)
    base = os.fspath(root)
    if isinstance(items, str | bytes | os.PathLike):
        raise ConfigError(f"{items!r}: a list or stream of paths is needed, not one path")
    if isinstance(items, Dataset):
        return _dataset(items, list(_kept(items.files, base, first, last)))
    if _is_tf_dataset(items):
        return _tf_dataset(items, base, first, last)
    kept = _kept(items, base, first, last)
    return type(items)(kept) if type(items) in (list, tuple) else kept


def date_of(path: str, root: str) -> str | None:
    """Returns the date that a path belongs to, or None if it is in no folder of a date.

    Raises:
      DataError: the path does not lie below `root`.

    Example:
      >>> date_of("data/20200501/00/part-0", "data"), date_of("data/_SUCCESS", "data")
      ('20200501', None)
    """
    if not path.startswith(root):
        raise DataError(f"{path} does not lie below {root}")
    found = re.compile(_slash(root) + f"({_DATE}){_REST}", re.DOTALL).fullmatch(path, len(root))
    return found[1] if found else None


def _kept(items: Iterable[Any], root: str, first: str, last: str) -> Iterator[Any]:
    for item in items:
        date = date_of(_path(item), root)
        if date is None:
            _log.info("left out, for it is in no folder of a date: %s", _path(item))
        elif first <= date <= last:
            yield item


def _path(item: Any) -> str:
    path = item.path if isinstance(item, DataFile) else os.fspath(item)
    return os.fsdecode(path)


def _slash(root: str) -> str:
    return "" if root.endswith("/") else "/?"


def _bound(value: Date | None, name: str, default: str) -> str:
    if value is None:
        return default
    text = str(value)
    if isinstance(value, datetime.date):
        text = f"{value.year:04}{value:%m%d}"  # %Y does not pad
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        text = text.replace("-", "")
    if not re.fullmatch(r"[0-9]{8}", text):
        raise ConfigError(f"{name} {value!r} is no date: wanted YYYYMMDD")
    return text


def _dataset(dataset: Dataset, files: list[DataFile]) -> Dataset:
    return Dataset(
        files,
        dataset.schema,
        batch_size=dataset.batch_size,
        seed=dataset.seed,
        shuffle_window=dataset.shuffle_window,
        skip_damaged=dataset.skip_damaged,
        check_crc=dataset.check_crc,
        cache_bytes=dataset.cache_bytes,
        threads=dataset.threads,
    )


def _is_tf_dataset(items: Any) -> bool:
    # Whoever holds such a dataset has imported TensorFlow; nobody else should have to.
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(items, tf.data.Dataset)


def _tf_dataset(dataset: Any, root: str, first: str, last: str) -> Any:
    """Returns the same filter in TensorFlow's operations, for its own pipelines."""
    tf = sys.modules["tensorflow"]
    spec = dataset.element_spec
    if not isinstance(spec, tf.TensorSpec) or spec.dtype != tf.string or spec.shape.rank != 0:
        raise ConfigError(f"a tf.data.Dataset of scalar strings is needed, not of {spec}")
    pattern = f"(?s){re.escape(root)}{_slash(root)}({_DATE}){_REST}"
    size = len(root.encode())  # TensorFlow counts bytes

    def keep(path: Any) -> Any:
        below = tf.equal(tf.strings.substr(path, 0, size), root)
        check = tf.debugging.Assert(below, [path, f"does not lie below {root}"])
        with tf.control_dependencies([] if check is None else [check]):
            dated = tf.strings.regex_full_match(path, pattern)
        text = tf.strings.regex_replace(path, f"^{pattern}$", r"\1")
        date = tf.strings.to_number(tf.where(dated, text, "0"), tf.int32)
        return dated & (date >= int(first)) & (date <= int(last))

    return dataset.filter(keep)
