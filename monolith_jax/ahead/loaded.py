"""A compiled program that jax did not compile here, as a function of pytrees of arrays."""

from typing import Any

import jax


class Loaded:
    """Runs a program that was read from a file.

    What it takes and gives is not told by the file but by this process's own lowering of the step,
    which must be the same program to the letter; the file gives machine code only.

    Args:
      payload: what the compiler made, serialized.
      devices: to run on, in the program's order.
      inputs: the shardings of the arguments' leaves.
      outputs: the results, a pytree of `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      RuntimeError: the runtime does not take it.
    """

    def __init__(
        self, payload: bytes, devices: tuple[Any, ...], inputs: list[Any], outputs: Any
    ) -> None:
        from jaxlib import _jax

        self._run = devices[0].client.deserialize_executable(
            payload, executable_devices=_jax.DeviceList(devices)
        )
        self._inputs = inputs
        self._outputs, self._tree = jax.tree.flatten(outputs)

    def __call__(self, *arguments: Any) -> Any:
        """Runs the program; arguments that it donates are deleted, as `jax.jit` does."""
        leaves = jax.tree.leaves(arguments)
        results = self._run.execute_sharded(leaves).disassemble_into_single_device_arrays()
        found = [
            jax.make_array_from_single_device_arrays(out.shape, out.sharding, parts)
            for out, parts in zip(self._outputs, results, strict=True)
        ]
        return jax.tree.unflatten(self._tree, found)

    def takes(self, *arguments: Any) -> bool:
        """Whether every argument lies where the program wants it."""
        return all(
            leaf.sharding is sharding or leaf.sharding == sharding
            for leaf, sharding in zip(jax.tree.leaves(arguments), self._inputs, strict=True)
        )
