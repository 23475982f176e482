"""Batches: batch k is a function of the files, the seed and k."""

from collections.abc import Sequence

from monolith_jax.input.files import DataFile
from monolith_jax.input.schema import Batch, Schema


class Dataset:
    """The examples of `files`, in an order fixed by the seed, cut into batches."""

    num_examples: int
    steps_per_epoch: int
    damaged: int

    def __init__(
        self,
        files: Sequence[DataFile | str],
        schema: Schema,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle_window: int = 0,
        skip_damaged: bool = False,
        check_crc: bool = True,
        cache_bytes: int = 1 << 30,
        threads: int = 1,
    ) -> None:
        raise NotImplementedError

    def batch(self, k: int) -> Batch:
        """Returns the batch of step k >= 0, counted through all epochs."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Returns a hash of all that the batches depend on."""
        raise NotImplementedError
