"""DCNv2: dense values and embeddings that meet in cross layers of low rank."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError
from monolith_jax.models.dlrm import Tower, check_widths, meet


class CrossNet(nn.Module):
    """Cross layers: each multiplies the input once more into what came before.

        x_{l+1} = x_0 * (x_l V_l W_l + b_l) + x_l        V_l [n, rank], W_l [rank, n]

    With rank 0 the product `V_l W_l` is one full matrix `[n, n]`. Weights start from Glorot's
    normal distribution, biases from 0. n^2 multiplications a layer, `2 n rank` with a rank.

    Attributes:
      layers: how many.
      rank: of the weights; 0: full.

    Example:
      >>> import jax.numpy as jnp
      >>> cross = CrossNet(layers=2, rank=3)
      >>> variables = cross.init(jax.random.key(0), jnp.ones((2, 5)))
      >>> cross.apply(variables, jnp.ones((2, 5))).shape
      (2, 5)

    References:
      Wang et al. (2021), DCN V2, equations 1 and 2.
    """

    layers: int
    rank: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[batch, n]`, of x's shape and dtype."""
        first, init = x, nn.initializers.glorot_normal()
        for i in range(self.layers):
            y = x
            if self.rank:
                down = nn.Dense(
                    self.rank, use_bias=False, dtype=x.dtype, kernel_init=init, name=f"down_{i}"
                )
                y = down(y)
            up = nn.Dense(first.shape[1], dtype=x.dtype, kernel_init=init, name=f"up_{i}")
            x = first * up(y) + x
        return x


class DCNv2(nn.Module):
    """The logit of a click: DLRM with cross layers in place of the inner products.

        z_0 = bottom(dense)
        logit = top(cross([z_0, z_1, ..., z_n])) w + b, with the embeddings as z_1 .. z_n

    MLPerf's DLRM-DCNv2 is this model.

    Attributes:
      vectors: features whose embeddings, all of one dim, are z_1 .. z_n.
      bottom: widths of the tower over the dense values; the last is the embeddings' dim.
      top: widths of the hidden layers over the interactions; the linear output comes on top.
      layers: cross layers.
      rank: of their weights; 0: full.

    Example:
      >>> import jax.numpy as jnp
      >>> model = DCNv2(vectors=("user", "item"), bottom=(8, 4), top=(8,), layers=2, rank=2)
      >>> embeddings = {"user": jnp.ones((2, 4)), "item": jnp.ones((2, 4))}
      >>> variables = model.init(jax.random.key(0), embeddings, jnp.ones((2, 3)))
      >>> model.apply(variables, embeddings, jnp.ones((2, 3))).shape
      (2,)

    References:
      Wang et al. (2021), DCN V2: Improved Deep & Cross Network and Practical Lessons for
      Web-scale Learning to Rank Systems. MLPerf Training's `recommendation_v2` for the shape.
    """

    vectors: tuple[str, ...]
    bottom: tuple[int, ...] = (512, 256, 128)
    top: tuple[int, ...] = (1024, 1024, 512, 256)
    layers: int = 3
    rank: int = 512

    @nn.compact
    def __call__(self, embeddings: Mapping[str, jax.Array], dense: jax.Array) -> jax.Array:
        """Returns the `[batch]` logits; arguments and errors as `DLRM`'s."""
        _, vectors = meet(embeddings, dense, self.vectors, self.bottom, "DCNv2")
        batch, count, dim = vectors.shape
        x = CrossNet(self.layers, self.rank, name="cross")(vectors.reshape(batch, count * dim))
        x = Tower(self.top, name="top")(x)
        return nn.Dense(1, dtype=x.dtype, name="out")(x)[:, 0]


@dataclass(frozen=True, kw_only=True)
class DCNv2Config(Config):
    """Config of a `DCNv2`; the defaults are MLPerf's.

    Example:
      >>> DCNv2Config(vectors=("user", "item"), bottom=(8, 4)).instantiate().rank
      512
    """

    vectors: tuple[str, ...] = field(doc="Features of one dim that enter the cross layers.")
    bottom: tuple[int, ...] = field(
        (512, 256, 128), doc="Widths over the dense values; the last is the features' dim."
    )
    top: tuple[int, ...] = field(
        (1024, 1024, 512, 256), doc="Widths of the hidden layers over the crossed values."
    )
    layers: int = field(3, doc="Cross layers.")
    rank: int = field(512, doc="Rank of the cross layers' weights; 0: full matrices.")

    def __post_init__(self) -> None:
        if not self.vectors or not self.bottom:
            raise ConfigError("vectors and bottom must not be empty")
        check_widths(self, "bottom", "top")
        for name in ("layers", "rank"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")

    def instantiate(self) -> DCNv2:
        """Returns the Linen module."""
        return DCNv2(
            vectors=self.vectors,
            bottom=self.bottom,
            top=self.top,
            layers=self.layers,
            rank=self.rank,
        )
