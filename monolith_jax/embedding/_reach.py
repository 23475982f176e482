"""What a backend moves at once when it reaches for a row: the row, a line, or some words of it.

    form    where                     moved at once
    rows    CPU, GPU                  the row
    lines   TPU v4, v5e; bfloat16     the row's line of 128 lanes, 512 bytes
    words   TPU v5p, v6e, TPU7x       the row, at least 8 lanes: 32 bytes
    records where asked for           the row and its slots, in lines of their own (`_records`)

Lines and words are what TPUs' compilers take: a DMA's start and length are multiples of the
memory's word, which is 512 bytes on v4 and v5e and 32 on the others (`_dma`), if `libtpu` is 0.0.52
or newer: those before refuse the copies, and lines are moved. Two rows of bfloat16
share each word of 32 bits, so that a row alone cannot be moved there.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from monolith_jax.embedding._stacks import Stack

Form = Literal["auto", "rows", "lines", "words", "records"]

WORD_LANES = 8
"""Float32 lanes of a word where DMAs reach single words."""

_WORD_KINDS = ("TPU v5", "TPU v5p", "TPU v6 lite", "TPU v6e", "TPU7x")
"""`device_kind` of those chips."""

_LIBTPU = (0, 0, 52)
"""The first TPU compiler that takes DMAs of single words; 0.0.42 to 0.0.51 want 512 bytes."""


def words_compile() -> bool:
    """Returns whether the TPU compiler that is installed takes DMAs of single words.

    Lines are what every compiler takes, so they serve where the version cannot be known.
    """
    try:
        parts = metadata.version("libtpu").split(".")[:3]
    except metadata.PackageNotFoundError:
        return False
    return all(map(str.isdigit, parts)) and tuple(map(int, parts)) >= _LIBTPU


@dataclass(frozen=True)
class Reach:
    """How one stack's rows are reached.

    Attributes:
      form: "rows", "lines", "words" or "records".
      unit: lanes moved at once.
      rows: rows in a unit; where there are several, a batch lists the units beside its rows.
      interpret: whether kernels are interpreted, as they are where there is no TPU.
    """

    form: Form
    unit: int
    rows: int
    interpret: bool = False

    @property
    def kernel(self) -> bool:
        """Whether a kernel moves the units, and their lists' padding stays where it is."""
        return self.form in ("words", "records")


def reach_of(stack: Stack, form: Form, device: Any) -> Reach:
    """Returns how a device reaches the rows of a stack that is kept in arrays, not in records.

    Args:
      stack: the tables.
      form: "auto" chooses by the device.
      device: a jax.Device, or one of a topology that is only compiled for.
    """
    layout = stack.layout
    if form == "auto":
        form = "rows" if device.platform != "tpu" else "lines"
        if form == "lines" and device.device_kind in _WORD_KINDS and words_compile():
            form = "words"
    if form == "records" or (form == "words" and (layout.pack == 1 or stack.dtype != "float32")):
        form = "lines"
    if form == "rows":
        return Reach(form, layout.width, 1)
    if form == "lines":
        return Reach(form, layout.line_width, layout.pack)
    unit = max(layout.width, WORD_LANES)
    return Reach(form, unit, unit // layout.width, interpret=device.platform != "tpu")


def reach_of_records(width: int, device: Any) -> Reach:
    """Returns how a device reaches records of `width` lanes."""
    return Reach("records", width, 1, interpret=device.platform != "tpu")
