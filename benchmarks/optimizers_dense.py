"""Dense optimizer updates of 50 M float32 parameters: ours, jitted and donated, against TF1's.

Both sides apply one fixed gradient to a variable and its slots, in place, step after step:
`tf.compat.v1.train.*Optimizer.apply_gradients` in one session, `as_optax(rule)` with
`optax.apply_updates` in one donated jit. `--quick` takes 4 M parameters, few repeats.

What bounds it is memory: an update reads and writes whole arrays, 4 bytes a parameter each time.
Ours runs with `MULTI_OUTPUT_FUSION` in XLA_FLAGS, as whoever trains dense parameters on CPU should:
all outputs are written by one loop, so Adam goes over memory 7 times (g, m, v, w -> m, v, w). By
itself XLA:CPU writes every output in a loop of its own, 10 times for Adam, as TF's Eigen kernels do
for all rules but Adam: `XLA_FLAGS= python -m benchmarks.optimizers_dense` shows that. Donation
keeps all of it in place: without it each output page-faults (0.12 to 0.26).
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import _harness
from monolith_jax.optimizers import MULTI_OUTPUT_FUSION, optimizers

os.environ.setdefault("XLA_FLAGS", MULTI_OUTPUT_FUSION)

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sgd": ("sgd", "GradientDescentOptimizer", {}),
    "adagrad": ("adagrad", "AdagradOptimizer", {}),
    "momentum": ("momentum", "MomentumOptimizer", {"momentum": 0.9}),
    "nesterov": ("momentum", "MomentumOptimizer", {"momentum": 0.9, "use_nesterov": True}),
    "rmsprop": ("rmsprop", "RMSPropOptimizer", {}),
    "rmsprop momentum": ("rmsprop", "RMSPropOptimizer", {"momentum": 0.9}),
    "rmsprop centered": ("rmsprop", "RMSPropOptimizer", {"momentum": 0.9, "centered": True}),
    "adam": ("adam", "AdamOptimizer", {}),
    "ftrl": ("ftrl", "FtrlOptimizer", {"l1_regularization_strength": 0.01}),
}


def ours(name: str, kwargs: dict[str, Any], gradient: np.ndarray) -> Callable[[], object]:
    """Returns a function that makes one update and waits for it."""
    optimizer = optimizers[name](learning_rate=0.01, **kwargs)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(value: jax.Array, state: Any, slope: jax.Array) -> tuple[Any, Any]:
        updates, state = optimizer.update(slope, state, value)
        return optax.apply_updates(value, updates), state

    value = jnp.ones(gradient.shape, jnp.float32)
    carry, slope = (value, optimizer.init(value)), jnp.asarray(gradient)

    def run() -> None:
        nonlocal carry
        carry = jax.block_until_ready(step(*carry, slope))

    return run


def theirs(name: str, kwargs: dict[str, Any], gradient: np.ndarray) -> Callable[[], object]:
    """Returns a function that runs TF1's training op once."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        ones = tf.compat.v1.ones_initializer()
        value = tf.compat.v1.get_variable("w", gradient.shape, initializer=ones, use_resource=True)
        slope = tf.compat.v1.get_variable(
            "g", gradient.shape, initializer=tf.compat.v1.zeros_initializer(), use_resource=True
        )
        feed = tf.compat.v1.placeholder(tf.float32, gradient.shape)
        load = slope.assign(feed)
        optimizer = getattr(tf.compat.v1.train, name)(0.01, **kwargs)
        train = optimizer.apply_gradients([(slope.read_value(), value)])
        session = tf.compat.v1.Session(graph=graph)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(load, {feed: gradient})
    return session.make_callable(train)


def main() -> None:
    options = _harness.arguments(__doc__)
    count, repeats = (4_000_000, 5) if options.quick else (50_000_000, 15)
    gradient = np.random.default_rng(0).normal(size=count).astype(np.float32)
    rows = []
    for case, (name, tf_class, kwargs) in CASES.items():
        mine, other = ours(name, kwargs, gradient), theirs(tf_class, kwargs, gradient)
        rows.append(
            _harness.compare(
                f"{case}, {count // 1_000_000} M", mine, other, theirs_name="TF1", repeats=repeats
            )
        )
        del mine, other
        print(f"  {case} done", file=sys.stderr)
    _harness.report(rows, options.json)


if __name__ == "__main__":
    main()
