"""Operations of matrix products, by hand and by XLA."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from monolith_jax.planning.flops import product_flops


def test_products_are_counted_wherever_they_are() -> None:
    w = jnp.ones((8, 8))

    def step(w: jax.Array, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jax.nn.relu(x @ w), None

        return jax.lax.scan(layer, x, None, length=3)[0].sum()

    once = 2.0 * 4 * 8 * 8
    x = jnp.ones((4, 8))
    assert product_flops(jax.make_jaxpr(step)(w, x)) == 3 * once
    # Backward: a product for the input and one for the weights.
    assert product_flops(jax.make_jaxpr(jax.grad(jax.jit(step), (0, 1)))(w, x)) == 9 * once


def test_a_product_on_every_device_counts_for_each() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    mapped = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")
    )
    assert product_flops(jax.make_jaxpr(mapped)(jnp.ones((16, 8)), jnp.ones((8, 2)))) == 512.0
    plain = jax.jit(lambda x, w: x @ w).lower(jnp.ones((16, 8)), jnp.ones((8, 2)))
    assert plain.cost_analysis()["flops"] == 512.0
