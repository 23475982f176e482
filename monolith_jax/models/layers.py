"""The parts that rankers are made of."""

from collections.abc import Callable, Sequence

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
    def __call__(self, x: jax.Array, *more: jax.Array, train: bool = False) -> jax.Array:
        """Runs the stack.

        Args:
          x: `[batch, n]`, float.
          more: `[batch, m]` each, of x's dtype: further columns of the input, which are not copied
            beside the others for it.
          train: whether to drop out.

        Returns:
          `[batch]`, of x's dtype.
        """
        parts = [x, *more]
        for i, width in enumerate(self.hidden):
            h = _Dense(width, nn.initializers.he_normal(), name=f"hidden_{i}")(parts)
            parts = [nn.Dropout(self.dropout, deterministic=not train)(nn.relu(h))]
        return _Dense(1, nn.initializers.lecun_normal(), name="out")(parts)[:, 0]


class _Dense(nn.Module):
    """As `flax.linen.Dense`, of an input in parts: `[x, y] W = x W_x + y W_y`.

    The parts side by side would be a copy of all of them.
    """

    width: int
    kernel_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, parts: Sequence[jax.Array]) -> jax.Array:
        dtype, widths = parts[0].dtype, [part.shape[1] for part in parts]
        kernel = self.param("kernel", self.kernel_init, (sum(widths), self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        kernels = jax.lax.split(kernel.astype(dtype), widths)
        total = parts[0] @ kernels[0]
        for part, rows in zip(parts[1:], kernels[1:], strict=True):
            if part.shape[1]:
                total = total + part @ rows
        return total + bias.astype(dtype)


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
