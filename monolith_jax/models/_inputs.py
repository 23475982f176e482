"""Picking a ranker's embeddings, with errors that name the feature."""

from collections.abc import Mapping, Sequence

import jax

from monolith_jax.errors import ConfigError, did_you_mean


def pick(
    embeddings: Mapping[str, jax.Array], names: Sequence[str], user: str, dim: int | None = None
) -> list[jax.Array]:
    """Returns the named embeddings after checking that all are `[batch, dim]` of one dim.

    Args:
      embeddings: by feature name.
      names: the features wanted.
      user: whose field names them, for the error: "DeepFM.vectors".
      dim: the dim that all must have; None: that of the first.

    Raises:
      ConfigError: a feature is missing (near misses named), or its shape does not fit.
    """
    for name in names:
        if name not in embeddings:
            raise ConfigError(
                f"{user} names feature {name!r}, which is not among the embeddings: "
                f"{did_you_mean(name, embeddings)}"
            )
    picked = [embeddings[name] for name in names]
    for name, array in zip(names, picked, strict=True):
        if array.ndim != 2:
            raise ConfigError(
                f"{user}: feature {name!r} has shape {array.shape}, expected [batch, dim]"
            )
    if picked and dim is None:
        dim = picked[0].shape[1]
    for name, array in zip(names, picked, strict=True):
        if array.shape[1] != dim:
            dims = ", ".join(f"{n} {a.shape[1]}" for n, a in zip(names, picked, strict=True))
            wanted = f"dim {dim}" if dim == 1 else "equal dims"
            raise ConfigError(f"{user}: features must have {wanted}, got {dims} (at {name!r})")
    return picked
