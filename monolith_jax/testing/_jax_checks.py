"""The checks that jax makes possible: transformations, checkpoints, devices, precision.

Each check takes a `Case`, raises if the layer fails, and returns why it does not apply if so.
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from monolith_jax.testing._case import Case, assert_same
from monolith_jax.testing._layer import is_float, map_floats, split_floats


def check_jit(case: Case) -> str | None:
    """The compiled layer gives what the layer gives when it runs operation by operation."""
    assert_same(jax.jit(case.layer)(case.variables, case.x), case.output)
    return None


def check_vmap(case: Case) -> str | None:
    """`jax.vmap` over a batch of inputs gives what one call for each input gives."""
    inputs = jnp.stack([case.x, jnp.flip(case.x), case.x])
    together = jax.vmap(case.layer, in_axes=(None, 0))(case.variables, inputs)
    one_by_one = jnp.stack([case.layer(case.variables, x) for x in inputs])
    assert_same(together, one_by_one)
    return None


def check_gradients(case: Case) -> str | None:
    """Reverse-mode gradients by weights and input are those of finite differences.

    In float64 if the layer computes in the precision of its inputs, else in float32 with wider
    tolerances.
    """
    if not case.is_differentiable:
        return "the output, or all that it depends on, is not float"
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        both = (case.variables, case.x)
        variables, x = map_floats(lambda a: jnp.asarray(a, jnp.float64), both)
        if _computes_in_float64(case, variables, x):
            _check_gradients(case, variables, x, eps=1e-5, tolerance=1e-4)
            return None
    _check_gradients(case, case.variables, case.x, eps=1e-2, tolerance=2e-2)
    return None


def _computes_in_float64(case: Case, variables: Any, x: Any) -> bool:
    try:
        return jax.eval_shape(case.layer, variables, x).dtype == jnp.float64
    except (TypeError, ValueError):  # 64-bit inputs meet the layer's own 32-bit constants
        return False


def _check_gradients(case: Case, variables: Any, x: Any, eps: float, tolerance: float) -> None:
    trained = {"params": variables.get("params", {}), "x": x}
    floats, join = split_floats(trained)

    def function(*floats: jax.Array) -> jax.Array:
        joined = join(list(floats))
        return case.layer({**variables, "params": joined["params"]}, joined["x"])

    check_grads(
        jax.jit(function),
        tuple(floats),
        order=1,
        modes=("rev",),
        eps=eps,
        atol=tolerance,
        rtol=tolerance,
    )


def check_msgpack(case: Case) -> str | None:
    """The variables come back from `flax.serialization`'s bytes with every bit."""
    blank = jax.tree.map(jnp.zeros_like, case.variables)
    back = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(case.variables))
    _assert_restored(case, back)
    return None


def check_orbax(case: Case) -> str | None:
    """The variables come back from an orbax checkpoint with every bit."""
    if not jax.tree.leaves(case.variables):
        return "the layer has no variables"
    import orbax.checkpoint as ocp

    with tempfile.TemporaryDirectory(prefix="layer_test") as folder:
        path = Path(folder) / "variables"
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(path, args=ocp.args.StandardSave(case.variables))
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, case.variables)
            back = checkpointer.restore(path, args=ocp.args.StandardRestore(target))
    _assert_restored(case, back)
    return None


def _assert_restored(case: Case, back: Any) -> None:
    chex.assert_trees_all_equal_structs(back, case.variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(back, case.variables)
    chex.assert_trees_all_equal(back, case.variables)
    assert_same(case.layer(jax.tree.map(jnp.asarray, back), case.x), case.output)


def check_sharded(case: Case) -> str | None:
    """With the batch over all devices, and then the weights too, the output is the same.

    The batch is repeated until the devices divide it.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return "there is one device; XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight"
    if not case.x.ndim or not case.x.size:
        return "the input has no batch"
    repeats = len(devices) // math.gcd(len(devices), case.x.shape[0])
    x = np.concatenate([np.asarray(case.x)] * repeats)
    run = jax.jit(case.layer)
    expected = np.asarray(run(case.variables, x))

    mesh = Mesh(np.array(devices), ("devices",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_batch = jax.device_put(x, NamedSharding(mesh, PartitionSpec("devices")))
    layouts: dict[str, Callable[[Any], NamedSharding]] = {
        "replicated": lambda leaf: everywhere,
        "sharded": lambda leaf: NamedSharding(mesh, _first_divisible(leaf, len(devices))),
    }
    for name, layout in layouts.items():
        placed = jax.tree.map(lambda w, layout=layout: jax.device_put(w, layout(w)), case.variables)
        try:
            assert_same(np.asarray(run(placed, by_batch)), expected)
        except AssertionError as error:
            raise AssertionError(
                f"with the batch over {len(devices)} devices and the weights {name}: {error}"
            ) from error
    return None


def _first_divisible(leaf: Any, count: int) -> PartitionSpec:
    for axis, size in enumerate(np.shape(leaf)):
        if size and size % count == 0:
            return PartitionSpec(*[None] * axis, "devices")
    return PartitionSpec()


def check_bfloat16(case: Case) -> str | None:
    """With weights and input in bfloat16 the layer runs, and stays finite where it was.

    Other collections, such as batch statistics, keep their precision.
    """
    weights = case.variables.get("params", {})
    if not any(is_float(leaf) for leaf in (case.x, *case.weights)):
        return "neither the weights nor the input are float"
    weights, x = map_floats(lambda a: jnp.asarray(a, jnp.bfloat16), (weights, case.x))
    variables = {**case.variables, "params": weights}
    # Flax's own layers widen sums to float32, which strict promotion would not let them do.
    with jax.numpy_dtype_promotion("standard"):
        output = np.asarray(jax.jit(case.layer)(variables, x))
    if output.shape != case.output.shape or is_float(output) != is_float(case.output):
        raise AssertionError(
            f"found output {output.dtype}{list(output.shape)} where it was "
            f"{case.output.dtype}{list(case.output.shape)} before"
        )
    if is_float(output):
        lost = np.isfinite(case.output.astype(np.float64)) & ~np.isfinite(output.astype(np.float64))
        if lost.any():
            raise AssertionError(f"{int(lost.sum())} of {lost.size} outputs are no longer finite")
    return None
