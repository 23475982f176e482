"""Many values into one, one value into many, and whether the many are still equal."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from monolith_jax.errors import did_you_mean
from monolith_jax.replicated_variable._errors import VariableError
from monolith_jax.replicated_variable._placement import REPLICA_AXIS, as_value

Reduce = Literal["mean", "sum", "first", "equal"]
"""How several replicas become one value; "equal" keeps the value and raises if they differ."""


def stack(name: str, values: Any) -> jax.Array | np.ndarray:
    """Returns `values` as one array whose leading dimension counts replicas.

    A list has this process's replicas, on whatever devices they are. An array already has the
    leading dimension, the form that `jax.pmap` takes and returns.

    Raises:
      VariableError: If there is no replica, or their shapes differ.
    """
    if not isinstance(values, list | tuple):
        stacked = as_value(values)
        if np.ndim(stacked) == 0 or np.shape(stacked)[0] == 0:
            raise VariableError(
                f"variable {name!r}: stacked replicas need a leading dimension of at least 1, "
                f"not shape {np.shape(stacked)}"
            )
        return stacked
    if not values:
        raise VariableError(f"variable {name!r}: the list of replicas is empty")
    arrays = [as_value(value) for value in values]
    kinds = {(np.shape(a), str(jnp.result_type(a))) for a in arrays}
    if len(kinds) > 1:
        raise VariableError(
            f"variable {name!r}: replicas differ in shape or dtype: "
            + ", ".join(f"{dtype}{list(shape)}" for shape, dtype in sorted(kinds))
        )
    if any(isinstance(a, jax.core.Tracer) for a in arrays):
        return jnp.stack(arrays)
    # Through the host: arrays that are committed to different devices cannot meet in one program.
    return np.stack([np.asarray(a, dtype=jnp.result_type(a)) for a in arrays])


def reduce_replicas(name: str, values: Any, reduce: str) -> Any:
    """Returns the one value that `values` (see `stack`) stand for, the same in each process.

    Formula: ``mean`` is ``sum_i v_i / n`` over the replicas of all processes, in float32 for
    narrower floats; ``sum`` keeps the dtype; ``first`` is replica 0 of process 0.

    Raises:
      VariableError: For an unknown `reduce`, the mean of integers, or, with "equal", replicas that
        are not equal bit for bit.
    """
    if reduce not in get_args(Reduce):
        raise VariableError(
            f"variable {name!r}: no reduce={reduce!r}; {did_you_mean(reduce, get_args(Reduce))}"
        )
    stacked = stack(name, values)
    if jax.process_count() > 1 and getattr(stacked, "is_fully_addressable", True):
        stacked = _gather(name, stacked)
    if reduce == "equal":
        return _all_equal(name, stacked)
    dtype = jnp.result_type(stacked)
    if reduce == "mean" and not jnp.issubdtype(dtype, jnp.inexact):
        raise VariableError(
            f"variable {name!r}: the mean of {dtype} replicas is no {dtype}; "
            "use reduce='first' or 'sum', or cast the replicas to a float dtype"
        )
    reduced = _reducer(stacked, reduce)(stacked)
    # What is numpy's may change as soon as the caller goes on.
    return jax.block_until_ready(reduced) if isinstance(stacked, np.ndarray) else reduced


def _reducer(stacked: Any, reduce: str) -> Any:
    def mean(a: Any) -> jax.Array:
        wide = a.dtype if a.dtype.itemsize >= 4 else jnp.float32
        return jnp.mean(a, axis=0, dtype=wide).astype(a.dtype)

    def total(a: Any) -> jax.Array:
        return jnp.sum(a, axis=0, dtype=a.dtype)

    function = {"mean": mean, "sum": total, "first": lambda a: jnp.asarray(a)[0]}[reduce]
    sharding = None if isinstance(stacked, jax.core.Tracer) else getattr(stacked, "sharding", None)
    if isinstance(sharding, NamedSharding):
        # An array across devices, perhaps across processes: every device gets the result.
        return jax.jit(function, out_shardings=NamedSharding(sharding.mesh, PartitionSpec()))
    return jax.jit(function)


def _gather(name: str, stacked: Any) -> np.ndarray:
    """Returns the replicas of all processes, in the order of the processes."""
    from jax.experimental import multihost_utils

    local = np.asarray(stacked)
    counts = np.ravel(multihost_utils.process_allgather(np.int32(local.shape[0])))
    if len(set(counts.tolist())) > 1:
        raise VariableError(
            f"variable {name!r}: each process must give the same number of replicas, not "
            f"{counts.tolist()}"
        )
    gathered = multihost_utils.process_allgather(local)
    return gathered.reshape(-1, *local.shape[1:])


def _all_equal(name: str, stacked: Any) -> Any:
    if isinstance(stacked, jax.core.Tracer):
        raise VariableError(
            f"variable {name!r}: whether replicas are equal is not known under a trace; "
            "use reduce='first'"
        )
    if not getattr(stacked, "is_fully_addressable", True):
        whole = NamedSharding(stacked.sharding.mesh, PartitionSpec())
        stacked = jax.jit(jnp.copy, out_shardings=whole)(stacked)
    host = np.asarray(stacked)
    different = [i for i in range(1, len(host)) if host[i].tobytes() != host[0].tobytes()]
    if different:
        raise VariableError(
            f"variable {name!r}: replicas {different} differ from replica 0"
            f"{_distance(host[different[0]], host[0])}; a list is one value per replica: pass an "
            "array for a single value, or say how they become one with "
            "ReplicatedVariable.from_replicas(name, values, reduce='mean', 'sum' or 'first')"
        )
    return host[0]


def _distance(a: np.ndarray, b: np.ndarray) -> str:
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    with np.errstate(all="ignore"):
        gap = np.abs(a.astype(wide) - b.astype(wide))
    if np.isnan(gap).all():
        return " (NaN)"
    at = np.unravel_index(np.nanargmax(gap), gap.shape)
    return f" (at {[int(i) for i in at]}: {a[at]} and {b[at]})" if a.ndim else f" ({a} and {b})"


def stacked_form(value: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Returns a new array of shape [local devices, *value.shape], one full copy on each device."""
    mesh = sharding.mesh
    spread = jax.jit(
        jax.shard_map(
            lambda v: v[None],
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(mesh.axis_names),
            check_vma=False,
        )
    )
    whole = jax.device_put(value, NamedSharding(mesh, PartitionSpec()))
    pieces = {s.device: s.data for s in spread(whole).addressable_shards}
    devices = [d for d in mesh.devices.flat if d in pieces]
    local = NamedSharding(Mesh(np.array(devices), (REPLICA_AXIS,)), PartitionSpec(REPLICA_AXIS))
    return jax.make_array_from_single_device_arrays(
        (len(devices), *value.shape), local, [pieces[d] for d in devices]
    )


def check_equal(name: str, value: jax.Array) -> None:
    """Checks that all devices that should hold the same part of `value` do, bit for bit.

    Every part is read to the host and hashed; with several processes the hashes are exchanged, so
    that all of them raise, or none.

    Raises:
      VariableError: Naming the devices that differ from the majority, and by how much if the
        difference is seen in this process.
    """
    digests = {s.device.id: _digest(np.asarray(s.data)) for s in value.addressable_shards}
    if not value.is_fully_addressable:
        digests = _exchange(digests)
    index_of = value.sharding.devices_indices_map(value.shape)
    groups: dict[str, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for device, index in index_of.items():
        groups[str(index)][digests[device.id]].append(device.id)  # type: ignore[attr-defined]
    odd = []
    for by_digest in groups.values():
        common = max(by_digest.values(), key=len)
        odd += [d for ids in by_digest.values() if ids is not common for d in ids]
    if odd:
        raise VariableError(
            f"variable {name!r}: the replicas on devices {sorted(odd)} differ from the others"
            f"{_seen_distance(value, odd)}; assign() writes them all"
        )


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def _exchange(digests: dict[int, bytes]) -> dict[int, bytes]:
    from jax.experimental import multihost_utils

    words = np.stack([np.frombuffer(d, np.uint32) for d in digests.values()])
    ids = np.array(list(digests), np.int32)
    all_ids, all_words = multihost_utils.process_allgather((ids, words))
    flat = zip(np.ravel(all_ids), np.reshape(all_words, (-1, words.shape[1])), strict=True)
    return {int(i): np.asarray(w, np.uint32).tobytes() for i, w in flat}


def _seen_distance(value: jax.Array, odd: Sequence[int]) -> str:
    shards = value.addressable_shards
    for bad in (s for s in shards if s.device.id in odd):
        for good in (s for s in shards if s.device.id not in odd and s.index == bad.index):
            return _distance(np.asarray(bad.data), np.asarray(good.data))
    return ""


def check_processes_agree(name: str, value: np.ndarray) -> None:
    """Checks that every process brought the same `value`; a no-op in a single process.

    Raises:
      VariableError: In every process, naming those that differ from process 0.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    words = np.frombuffer(_digest(value), np.uint32)
    everyone = multihost_utils.process_allgather(words)
    different = [i for i, other in enumerate(everyone) if not np.array_equal(other, everyone[0])]
    if different:
        raise VariableError(
            f"variable {name!r}: processes {different} bring another value than process 0; for "
            "values that differ use from_replicas or assign_replicas with reduce="
        )
