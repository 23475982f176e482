"""DeepFM: a factorization machine and a deep network that share their embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError
from monolith_jax.models._inputs import pick
from monolith_jax.models.layers import Mlp, factorization_machine


class DeepFM(nn.Module):
    """The logit of a click from first-order, pairwise and deep terms.

        logit = b + sum_f b_f + sum_{f<g} <v_f, v_g> + mlp([v_1, ..., v_n, dense])

    b is a trained scalar that starts at 0; b_f and v_f come from the embedding tables.

    Attributes:
      vectors: features whose embeddings, all of one dim, are the v_f.
      biases: features whose embeddings, of dim 1, are the b_f.
      hidden: widths of the deep part's hidden layers.
      dropout: share of the deep part's hidden values dropped in training ("dropout" rng).

    Example:
      >>> model = DeepFM(vectors=("user", "item"), biases=("user_bias",), hidden=(8,))
      >>> embeddings = {"user": jnp.ones((2, 4)), "item": jnp.ones((2, 4))}
      >>> embeddings |= {"user_bias": jnp.zeros((2, 1))}
      >>> variables = model.init(jax.random.key(0), embeddings, jnp.zeros((2, 0)))
      >>> model.apply(variables, embeddings, jnp.zeros((2, 0))).shape
      (2,)

    References:
      Guo et al. (2017), DeepFM: A Factorization-Machine based Neural Network for CTR Prediction.
    """

    vectors: tuple[str, ...]
    biases: tuple[str, ...] = ()
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, embeddings: Mapping[str, jax.Array], dense: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Returns the logits.

        Args:
          embeddings: by feature name, `[batch, dim]` float; others than the named are ignored.
          dense: `[batch, n]` float, n may be 0.
          train: whether to drop out.

        Returns:
          `[batch]` logits, of the vectors' dtype.

        Raises:
          ConfigError: a feature is missing, or its dim does not fit.
        """
        each = pick(embeddings, self.vectors, "DeepFM.vectors")
        biases = pick(embeddings, self.biases, "DeepFM.biases", dim=1)
        flat = jnp.concatenate(each, axis=1)
        vectors = flat.reshape(-1, len(each), each[0].shape[1])
        bias = self.param("bias", nn.initializers.zeros_init(), ())
        logits = Mlp(self.hidden, self.dropout, name="deep")(
            flat, dense.astype(flat.dtype), train=train
        )
        logits = logits + factorization_machine(vectors)
        for term in (bias, *(b[:, 0] for b in biases)):
            logits = logits + term.astype(logits.dtype)
        return logits


@dataclass(frozen=True, kw_only=True)
class DeepFMConfig(Config):
    """Config of a `DeepFM`.

    Example:
      >>> DeepFMConfig(vectors=("user", "item"), hidden=(16,)).instantiate().hidden
      (16,)
    """

    vectors: tuple[str, ...] = field(
        doc="Features of one dim that meet pairwise and enter the deep part."
    )
    biases: tuple[str, ...] = field((), doc="Features of dim 1 that are added to the logit.")
    hidden: tuple[int, ...] = field((64, 32), doc="Widths of the deep part's hidden layers.")
    dropout: float = field(
        0.0, doc="Share of the deep part's hidden values that are zeroed in training."
    )

    def __post_init__(self) -> None:
        if not self.vectors:
            raise ConfigError("vectors is empty: DeepFM needs at least one feature")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"hidden must hold widths of at least 1, got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    def instantiate(self) -> DeepFM:
        """Returns the Linen module."""
        return DeepFM(
            vectors=self.vectors, biases=self.biases, hidden=self.hidden, dropout=self.dropout
        )
