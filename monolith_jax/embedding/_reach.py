"""What a backend moves at once when it reaches for a row: the row, a line, or some words of it.

    form    where                     moved at once
    rows    CPU, GPU                  the row
    lines   TPU v4, v5e; bfloat16     the row's line of 128 lanes, 512 bytes
    words   TPU v5p, v6e, TPU7x       the row, at least 8 lanes: 32 bytes
    records TPU v4, v5e               the line that has the row and all its slots (`_records`)

Lines and words are what TPUs' compilers take: a DMA's start and length are multiples of the
memory's word, which is 512 bytes on v4 and v5e and 32 on the others (`_dma`), if `libtpu` is 0.0.52
or newer: those before refuse the copies, and lines are moved. Two rows of bfloat16
share each word of 32 bits, so that a row alone cannot be moved there.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._stacks import Stack

Form = Literal["auto", "rows", "lines", "words", "records"]

WORD_LANES = 8
"""Float32 lanes of a word where DMAs reach single words."""

_WORD_KINDS = ("TPU v5", "TPU v5p", "TPU v6 lite", "TPU v6e", "TPU7x")
"""`device_kind` of those chips."""

WIDEST = 512
"""Lanes of the widest lines that kernels move: those of 512 rows are in the chip's own memory."""

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
      kernel: whether a kernel moves them (`_dma`), which leaves their lists' padding out.
      interpret: whether kernels are interpreted, as they are where there is no TPU.
      ahead: whether kernels for CPUs (`_cpu`) move them, which ask for later ones meanwhile.
    """

    form: Form
    unit: int
    rows: int
    kernel: bool = False
    interpret: bool = False
    ahead: bool = False


def form_on(device: Any) -> Form:
    """Returns the form that suits a device best, of those that keep arrays."""
    if device.platform != "tpu":
        return "rows"
    return "words" if device.device_kind in _WORD_KINDS and words_compile() else "lines"


def reach_of(stack: Stack, form: Form, device: Any) -> Reach:
    """Returns how a device reaches the rows of a stack that is kept in arrays, not in records.

    Args:
      stack: the tables.
      form: "auto" chooses by the device.
      device: a jax.Device, or one of a topology that is only compiled for.
    """
    layout, float32 = stack.layout, stack.dtype == "float32"
    whole = form == "auto" and form_on(device) == "lines" and layout.pack == 1 and float32
    if form == "auto":
        form = form_on(device)
    if form == "records" or (form == "words" and (layout.pack == 1 or not float32)):
        form = "lines"
    if form == "rows":
        return Reach(form, layout.width, 1, ahead=device.platform == "cpu")
    if form == "lines":
        kernel = whole and layout.line_width <= WIDEST
        return Reach(form, layout.line_width, layout.pack, kernel)
    unit = max(layout.width, WORD_LANES)
    return Reach(form, unit, unit // layout.width, True, device.platform != "tpu")


def reach_of_records(layout: Layout, device: Any) -> Reach:
    """Returns how a device reaches records that lie so in lines."""
    return Reach("records", layout.line_width, layout.pack, True, device.platform != "tpu")
