"""Biased matrix factorization: the rating model of the Netflix prize."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from monolith_jax.config import Config, field
from monolith_jax.models._inputs import pick


class MatrixFactorization(nn.Module):
    """The rating of an item by a user.

        rating = mu + b_u + b_i + <p_u, q_i>

    mu is a trained scalar that starts at `mean`; the other terms come from the embedding tables.

    Attributes:
      user: feature of the user's vector p_u.
      item: feature of the item's vector q_i, of the same dim.
      user_bias: feature of the user's bias b_u, of dim 1.
      item_bias: feature of the item's bias b_i, of dim 1.
      mean: where mu starts; the mean of the training labels saves it the way there.

    Example:
      >>> model = MatrixFactorization("user", "item", "user_bias", "item_bias", mean=3.5)
      >>> embeddings = {"user": jnp.ones((2, 4)), "item": jnp.ones((2, 4))}
      >>> embeddings |= {"user_bias": jnp.zeros((2, 1)), "item_bias": jnp.ones((2, 1))}
      >>> variables = model.init(jax.random.key(0), embeddings, jnp.zeros((2, 0)))
      >>> model.apply(variables, embeddings, jnp.zeros((2, 0))).tolist()
      [8.5, 8.5]

    References:
      Koren, Bell, Volinsky (2009), Matrix Factorization Techniques for Recommender Systems,
      equation 4; there mu is fixed at the mean.
    """

    user: str
    item: str
    user_bias: str
    item_bias: str
    mean: float = 0.0

    @nn.compact
    def __call__(
        self, embeddings: Mapping[str, jax.Array], dense: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns the ratings.

        Args:
          embeddings: by feature name, `[batch, dim]` float; others than the four are ignored.
          dense: `[batch, 0]`; the model has no use for dense values, and columns are ignored.
          train: nothing differs in training.

        Returns:
          `[batch]` ratings, of the vectors' dtype.

        Raises:
          ConfigError: a feature is missing, or its dim does not fit.
        """
        p, q = pick(embeddings, (self.user, self.item), "MatrixFactorization")
        names = (self.user_bias, self.item_bias)
        user_bias, item_bias = pick(embeddings, names, "MatrixFactorization", dim=1)
        mu = self.param("mean", nn.initializers.constant(self.mean), ())
        ratings = jnp.sum(p * q, axis=-1)
        for term in (mu, user_bias[:, 0], item_bias[:, 0]):
            ratings = ratings + term.astype(ratings.dtype)
        return ratings


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig(Config):
    """Config of a `MatrixFactorization`.

    Example:
      >>> MatrixFactorizationConfig(mean=3.5).instantiate().user
      'user'
    """

    user: str = field("user", doc="Feature of the user's vector.")
    item: str = field("item", doc="Feature of the item's vector, of the same dim.")
    user_bias: str = field("user_bias", doc="Feature of the user's bias, of dim 1.")
    item_bias: str = field("item_bias", doc="Feature of the item's bias, of dim 1.")
    mean: float = field(
        0.0,
        doc="Where the trained global mean starts; the mean of the training labels is best.",
    )

    def instantiate(self) -> MatrixFactorization:
        """Returns the Linen module."""
        return MatrixFactorization(
            user=self.user,
            item=self.item,
            user_bias=self.user_bias,
            item_bias=self.item_bias,
            mean=self.mean,
        )
