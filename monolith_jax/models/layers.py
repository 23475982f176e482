"""The parts that rankers are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Mlp(nn.Module):
    """A stack of dense layers with ReLU and dropout, and one linear output.

        h_0 = x;  h_k = dropout(relu(h_{k-1} W_k + b_k));  out = h_n w + b

    Weights start from He's normal distribution (the output layer's from LeCun's), biases from 0.

    Attributes:
      hidden: widths of the hidden layers; () leaves the linear output alone.
      dropout: share of the hidden values that are zeroed in training; uses the "dropout" rng.

    Example:
      >>> mlp = Mlp(hidden=(8, 4))
      >>> variables = mlp.init(jax.random.key(0), jnp.ones((2, 3)))
      >>> mlp.apply(variables, jnp.ones((2, 3))).shape
      (2,)

    References:
      He et al. (2015), Delving Deep into Rectifiers (the initializer). Srivastava et al. (2014),
      Dropout.
    """

    hidden: tuple[int, ...]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Runs the stack.

        Args:
          x: `[batch, n]`, float.
          train: whether to drop out.

        Returns:
          `[batch]`, of x's dtype.
        """
        for i, width in enumerate(self.hidden):
            x = nn.Dense(
                width, dtype=x.dtype, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}"
            )(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(1, dtype=x.dtype, name="out")(x)[:, 0]


def factorization_machine(vectors: jax.Array) -> jax.Array:
    """Returns the sum of the inner products of all pairs of an example's vectors.

        sum_{i<j} <v_i, v_j> = (|sum_i v_i|^2 - sum_i |v_i|^2) / 2

    The right side takes `fields * dim` multiplications instead of `fields^2 * dim / 2`.

    Args:
      vectors: `[batch, fields, dim]`, float.

    Returns:
      `[batch]`, of the vectors' dtype.

    Example:
      >>> factorization_machine(jnp.asarray([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
      [11.0]

    References:
      Rendle (2010), Factorization Machines, lemma 3.1.
    """
    square_of_sum = jnp.square(jnp.sum(vectors, axis=1))
    sum_of_squares = jnp.sum(jnp.square(vectors), axis=1)
    return jnp.sum(square_of_sum - sum_of_squares, axis=-1) / 2
