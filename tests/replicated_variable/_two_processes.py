"""One of two processes on loopback with four CPU devices each; `test_processes` starts both.

Usage: python _two_processes.py PROCESS_ID PORT FOLDER
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from monolith_jax.replicated_variable import ReplicatedVariable, VariableError

VALUE = np.arange(8, dtype=np.float32)


def bits(variable):
    """What this process holds, part by part."""
    shards = sorted(variable.value.addressable_shards, key=lambda s: s.device.id)
    return [np.asarray(s.data).tobytes().hex() for s in shards]


def error_of(call):
    try:
        call()
    except VariableError as error:
        return str(error)
    return None


def broken_on_device(variable, index):
    parts = []
    for shard in variable.value.addressable_shards:
        part = np.array(shard.data)
        part[0] += shard.device == jax.devices()[index]
        parts.append(jax.device_put(part, shard.device))
    array = jax.make_array_from_single_device_arrays(variable.shape, variable.sharding, parts)
    return jax.tree.map(lambda _: array, variable)


def checkpoint(variable, folder):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", {"v": variable})
        checkpointer.wait_until_finished()
        target = {"v": ReplicatedVariable("v", np.zeros(8))}
        return checkpointer.restore(folder / "checkpoint", target)["v"]


def scenario(me, folder):
    """Returns what this process saw; the test compares it with what the other one saw."""
    seen = {"devices": [jax.device_count(), jax.local_device_count()]}
    v = ReplicatedVariable("v", VALUE)
    v.assign_add(VALUE)
    v.assign(jnp.sqrt(v))
    v.check_replicas()
    seen["assigned"] = bits(v)

    mine = VALUE + me
    seen["differ"] = error_of(lambda: v.assign(mine))
    seen["made differ"] = error_of(lambda: ReplicatedVariable("w", mine))
    seen["after"] = bits(v)

    local = [jnp.float32(10 * me + i) / 3 for i in range(4)]
    for reduce in ("mean", "sum", "first"):
        reduced = ReplicatedVariable.from_replicas("r", local, reduce=reduce)
        reduced.check_replicas()
        seen[reduce] = [float(reduced), bits(reduced)]

    sharded = ReplicatedVariable("s", VALUE, sharding=P("replica"))
    seen["sharded"] = [float.fromhex(float(x).hex()) for x in map(sum, map(floats, bits(sharded)))]
    whole = ReplicatedVariable("whole", sharded.value)
    whole.check_replicas()
    seen["whole"] = bits(whole)
    total = ReplicatedVariable.from_replicas("t", sharded.value, reduce="sum")
    seen["global"] = [float(total), bits(total)]
    seen["global equal"] = error_of(
        lambda: ReplicatedVariable.from_replicas("t", sharded.value, reduce="equal")
    )

    stacked = jax.pmap(lambda x: 2 * x)(v.stacked())
    seen["stacked"] = list(stacked.shape)
    v.assign_replicas(stacked)
    seen["from pmap"] = bits(v)

    step = jax.jit(lambda v: v.replace(v + 1.0), donate_argnums=0)
    v = step(v)
    v.check_replicas()
    seen["stepped"] = bits(v)
    seen["mine"] = np.asarray(v.replica(4 * me)).tolist()
    seen["theirs"] = error_of(lambda: v.replica(4 * (1 - me)))
    seen["broken"] = error_of(broken_on_device(v, 5).check_replicas)
    seen["restored"] = bits(checkpoint(v, folder))
    return seen


def floats(text):
    return np.frombuffer(bytes.fromhex(text), np.float32).tolist()


if __name__ == "__main__":
    me, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, me, initialization_timeout=60)
    result = scenario(me, folder)
    (folder / f"seen{me}.json").write_text(json.dumps(result))
    jax.distributed.shutdown()
