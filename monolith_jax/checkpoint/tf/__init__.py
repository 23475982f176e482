"""TensorFlow checkpoints (tensor bundles, V2) without TensorFlow: local or gs://.

`open_bundle` lists and reads, `load` and `save` go between files and sharded arrays,
`write_bundle` and `BundleWriter` write, byte for byte as TensorFlow does, `write_state_file` keeps
the file `checkpoint` and the last few. Errors are `monolith_jax.errors.CheckpointError`s that name
file and tensor.

The names are loaded when they are first used: only `load` and `save` import jax, so that a script
that looks into a checkpoint starts in a tenth of a second.

Example:
  >>> from monolith_jax.checkpoint import tf
  >>> "open_bundle" in dir(tf)
  True
"""

from typing import TYPE_CHECKING

from monolith_jax._lazy import lazy

if TYPE_CHECKING:
    from monolith_jax.checkpoint.tf._bundle import Bundle, TensorInfo, open_bundle
    from monolith_jax.checkpoint.tf._load import load
    from monolith_jax.checkpoint.tf._merge import merge_bundle
    from monolith_jax.checkpoint.tf._save import save
    from monolith_jax.checkpoint.tf._state_file import (
        StateFile,
        delete_bundle,
        read_state_file,
        write_state_file,
    )
    from monolith_jax.checkpoint.tf._writer import BundleWriter, write_bundle

_HOMES = {
    "Bundle": "_bundle",
    "BundleWriter": "_writer",
    "StateFile": "_state_file",
    "TensorInfo": "_bundle",
    "delete_bundle": "_state_file",
    "load": "_load",
    "merge_bundle": "_merge",
    "open_bundle": "_bundle",
    "read_state_file": "_state_file",
    "save": "_save",
    "write_bundle": "_writer",
    "write_state_file": "_state_file",
}

__all__ = [
    "Bundle",
    "BundleWriter",
    "StateFile",
    "TensorInfo",
    "delete_bundle",
    "load",
    "merge_bundle",
    "open_bundle",
    "read_state_file",
    "save",
    "write_bundle",
    "write_state_file",
]

__getattr__, __dir__ = lazy(globals(), _HOMES)
