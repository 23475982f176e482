"""Compiles and trains each rule; run as a program it keeps what it found.

Usage: python _fusion_program.py FILE.npz
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    Ftrl,
    Momentum,
    RMSProp,
    Sgd,
    as_optax,
    optimizers,
)

RULES = {
    "sgd": Sgd(learning_rate=0.01),
    "adagrad": Adagrad(learning_rate=0.01),
    "momentum": Momentum(learning_rate=0.01, momentum=0.9),
    "nesterov": Momentum(learning_rate=0.01, momentum=0.9, use_nesterov=True),
    "rmsprop": RMSProp(learning_rate=0.01),
    "centered": RMSProp(learning_rate=0.01, momentum=0.9, centered=True),
    "adam": Adam(learning_rate=0.01),
    "ftrl": Ftrl(learning_rate=0.01, l1_regularization_strength=0.01),
}
WHERE = ("one device", "eight devices", "bfloat16", "vmap")
SIZE = 1 << 20


def _step(optimizer):
    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def compiled(case):
    """Counts, of the program that updates one large array: its loops over it and copies of it."""
    optimizer = as_optax(RULES[case])
    value = jax.ShapeDtypeStruct((SIZE,), jnp.float32)
    state = jax.eval_shape(optimizer.init, value)
    program = jax.jit(_step(optimizer), donate_argnums=(0, 1)).lower(value, state, value).compile()
    text = program.as_text()
    lines = [line for line in text[text.index("ENTRY") :].splitlines() if f"[{SIZE}]" in line]
    temporary = program.memory_analysis().temp_size_in_bytes
    return {
        "loops": sum(" fusion(" in line for line in lines),
        "copies": sum(" copy(" in line for line in lines),
        "temporary": temporary if temporary >= SIZE else 0,
    }


def _arrays(dtype, seed):
    rng = np.random.default_rng(seed)
    shapes = {"big": (64, 24), "small": (8,)}
    return {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in shapes.items()}


def train(case, where):
    """Returns parameters and slots after some steps, as numpy by name."""
    rule = RULES[case]
    optimizer = as_optax(rule)
    dtype = jnp.bfloat16 if where == "bfloat16" else jnp.float32
    step, init = _step(optimizer), optimizer.init
    params, gradients = _arrays(dtype, 0), _arrays(dtype, 1)
    if where == "vmap":
        step, init = jax.vmap(step), jax.vmap(init)
        params = {"big": params["big"]}
        gradients = {"big": gradients["big"]}
    if where == "eight devices":
        mesh = jax.make_mesh((8,), ("x",))
        split = NamedSharding(mesh, PartitionSpec("x"))
        params, gradients = jax.device_put((params, gradients), split)
    state = init(params)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(5):
        params, state = jitted(params, state, gradients)
    found = {name: np.asarray(x, np.float32) for name, x in params.items()}
    for slot, tree in state.slots.items():
        found |= {f"{name}/{slot}": np.asarray(x) for name, x in tree.items()}
    return found


def derivative():
    """Returns the derivative of the updated parameters' sum by the learning rate."""
    return np.asarray(jax.grad(_value_of_rate)(0.01))


def _value_of_rate(rate):
    optimizer = optax.inject_hyperparams(optimizers["adam"])(rate)
    params, gradients = _arrays(jnp.float32, 0), _arrays(jnp.float32, 1)
    params, _ = _step(optimizer)(params, optimizer.init(params), gradients)
    return sum(jnp.sum(x) for x in jax.tree.leaves(params))


def everything():
    """Returns all that is found, by name: arrays, and the programs as JSON in bytes."""
    found = {
        f"{case}/{where}/{name}": value
        for case in RULES
        for where in WHERE
        for name, value in train(case, where).items()
    }
    programs = {case: compiled(case) for case in RULES}
    found["programs"] = np.frombuffer(json.dumps(programs).encode(), np.uint8)
    found["derivative"] = derivative()
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **everything())
