"""Which chips have SparseCores, and what one of them holds."""

import importlib.util
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SparseCores:
    """The SparseCores of one jax device.

    Attributes:
      count: of one device; a chip of TPU7x is two devices.
      rows: distinct rows that one SparseCore can ask another for in one step. More need more of a
        SparseCore's own memory than it has, and XLA refuses the program (its error E3001).
    """

    count: int
    rows: int


_BY_KIND = {
    "TPU v5": SparseCores(4, 8192),
    "TPU v5p": SparseCores(4, 8192),
    "TPU v6 lite": SparseCores(2, 4096),
    "TPU v6e": SparseCores(2, 4096),
    "TPU7x": SparseCores(2, 8192),
}
"""By `jax.Device.device_kind`, as jax-tpu-embedding 0.2.0 knows them; "TPU v5" is v5p.

`rows` was found with the compiler of libtpu 0.0.52 (rows of 32 to 512 lanes): twice as many do not
compile.
"""


def sparsecores_of(device: Any) -> SparseCores | None:
    """Returns the SparseCores of a jax device, or of one that is only compiled for; None: none.

    v4's SparseCores, which TensorFlow uses, are not among them: the library serves v5p, v6e and
    TPU7x. v5e has none.

    Example:
      >>> import jax
      >>> print(sparsecores_of(jax.devices("cpu")[0]))
      None
    """
    return _BY_KIND.get(str(getattr(device, "device_kind", "")))


def known_kinds() -> tuple[str, ...]:
    """Returns the kinds of devices that have SparseCores, in jax's names."""
    return tuple(_BY_KIND)


def library_missing() -> str:
    """Returns why jax-tpu-embedding cannot be used, empty where it can."""
    if importlib.util.find_spec("jax_tpu_embedding") is None:
        return (
            "jax-tpu-embedding is not installed: pip install 'monolith-jax[sparsecore]' "
            "(Python 3.12 and up, Linux x86-64)"
        )
    return ""
