"""DLRM: dense values and embeddings that meet in pairwise inner products."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError
from monolith_jax.models._inputs import pick


class Tower(nn.Module):
    """A stack of dense layers, each with ReLU: `h_k = relu(h_{k-1} W_k + b_k)`.

    Weights start from Glorot's normal distribution, N(0, 2 / (fan_in + fan_out)), as DLRM's do;
    biases from 0.

    Attributes:
      widths: of the layers.

    Example:
      >>> tower = Tower(widths=(8, 4))
      >>> variables = tower.init(jax.random.key(0), jnp.ones((2, 3)))
      >>> tower.apply(variables, jnp.ones((2, 3))).shape
      (2, 4)
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[batch, widths[-1]]`, of x's dtype, from x `[batch, n]`."""
        for i, width in enumerate(self.widths):
            initializer = nn.initializers.glorot_normal()
            x = nn.Dense(width, dtype=x.dtype, kernel_init=initializer, name=f"layer_{i}")(x)
            x = nn.relu(x)
        return x


class DLRM(nn.Module):
    """The logit of a click from dense values and embeddings.

        z_0 = bottom(dense)
        p = (<z_i, z_j> for i > j), with the embeddings as z_1 .. z_n
        logit = top([z_0, p]) w + b

    Attributes:
      vectors: features whose embeddings, all of one dim, are z_1 .. z_n.
      bottom: widths of the tower over the dense values; the last is the embeddings' dim.
      top: widths of the hidden layers over the interactions; the linear output comes on top.

    Example:
      >>> model = DLRM(vectors=("user", "item"), bottom=(8, 4), top=(8,))
      >>> embeddings = {"user": jnp.ones((2, 4)), "item": jnp.ones((2, 4))}
      >>> variables = model.init(jax.random.key(0), embeddings, jnp.ones((2, 3)))
      >>> model.apply(variables, embeddings, jnp.ones((2, 3))).shape
      (2,)

    References:
      Naumov et al. (2019), Deep Learning Recommendation Model for Personalization and
      Recommendation Systems.
    """

    vectors: tuple[str, ...]
    bottom: tuple[int, ...] = (512, 256, 128)
    top: tuple[int, ...] = (1024, 1024, 512, 256)

    @nn.compact
    def __call__(self, embeddings: Mapping[str, jax.Array], dense: jax.Array) -> jax.Array:
        """Returns the logits.

        Args:
          embeddings: by feature name, `[batch, dim]` float; others than the named are ignored.
          dense: `[batch, n]` float, n at least 1.

        Returns:
          `[batch]` logits, of the embeddings' dtype.

        Raises:
          ConfigError: a feature is missing, or its dim is not the bottom tower's last width.
        """
        first, vectors = meet(embeddings, dense, self.vectors, self.bottom, "DLRM")
        x = jnp.concatenate([first, pairwise_products(vectors)], axis=1)
        x = Tower(self.top, name="top")(x)
        return nn.Dense(1, dtype=x.dtype, name="out")(x)[:, 0]


def meet(
    embeddings: Mapping[str, jax.Array],
    dense: jax.Array,
    names: tuple[str, ...],
    bottom: tuple[int, ...],
    user: str,
) -> tuple[jax.Array, jax.Array]:
    """Returns the dense values as one more vector, `[batch, dim]`, and all `[batch, 1 + n, dim]`.

    To be called within a module's `__call__`; the tower's parameters are its `bottom`.
    """
    picked = pick(embeddings, names, f"{user}.vectors", dim=bottom[-1])
    if dense.shape[1] == 0:
        raise ConfigError(f"{user} needs dense columns for its bottom tower: set `dense`")
    first = Tower(bottom, name="bottom")(dense.astype(picked[0].dtype))
    return first, jnp.stack([first, *picked], axis=1)


def pairwise_products(vectors: jax.Array) -> jax.Array:
    """Returns the inner products `<v_i, v_j>`, i > j, in the order (1, 0), (2, 0), (2, 1), ...

    Args:
      vectors: `[batch, n, dim]`, float.

    Returns:
      `[batch, n (n - 1) / 2]`, of the vectors' dtype.

    Example:
      >>> pairwise_products(jnp.asarray([[[1.0], [2.0], [3.0]]])).tolist()
      [[2.0, 3.0, 6.0]]
    """
    products = jnp.einsum("bid,bjd->bij", vectors, vectors)
    # Slices, not a gather of the triangle: a TPU turns these into copies of contiguous lanes.
    return jnp.concatenate([products[:, i, :i] for i in range(1, vectors.shape[1])], axis=1)


def check_widths(config: Config, *names: str) -> None:
    """Raises ConfigError unless the named fields are widths of at least 1."""
    for name in names:
        widths = getattr(config, name)
        if any(width < 1 for width in widths):
            raise ConfigError(f"{name} must hold widths of at least 1, got {widths}")


@dataclass(frozen=True, kw_only=True)
class DLRMConfig(Config):
    """Config of a `DLRM`; the defaults are MLPerf's.

    Example:
      >>> DLRMConfig(vectors=("user", "item"), bottom=(8, 4)).instantiate().bottom
      (8, 4)
    """

    vectors: tuple[str, ...] = field(doc="Features of one dim that meet pairwise.")
    bottom: tuple[int, ...] = field(
        (512, 256, 128), doc="Widths over the dense values; the last is the features' dim."
    )
    top: tuple[int, ...] = field(
        (1024, 1024, 512, 256), doc="Widths of the hidden layers over the interactions."
    )

    def __post_init__(self) -> None:
        if not self.vectors or not self.bottom:
            raise ConfigError("vectors and bottom must not be empty")
        check_widths(self, "bottom", "top")

    def instantiate(self) -> DLRM:
        """Returns the Linen module."""
        return DLRM(vectors=self.vectors, bottom=self.bottom, top=self.top)
