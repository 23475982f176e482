"""TensorFlow checkpoints (tensor bundles, V2) without TensorFlow: local or gs://.

`open_bundle` lists and reads, `load` and `save` go between files and sharded arrays,
`write_bundle` and `BundleWriter` write, byte for byte as TensorFlow does, `write_state_file` keeps
the file `checkpoint` and the last few. Errors are `monolith_jax.errors.CheckpointError`s that name
file and tensor.
"""

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
