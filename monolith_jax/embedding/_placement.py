"""Where arrays live, and functions mapped over the parts of each device."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.errors import ConfigError, did_you_mean

Spread = Literal["by row", "everywhere"]

BY_ROW: Spread = "by row"
"""The leading axis is split over the devices."""

EVERYWHERE: Spread = "everywhere"
"""Every device has a copy."""


class Placement:
    """One axis of a mesh, or the default device.

    Args:
      mesh: the devices; None: jax's default device.
      axis: the axis that rows are split over.

    Raises:
      ConfigError: no such axis; several processes without a mesh.
    """

    def __init__(self, mesh: Mesh | None, axis: str) -> None:
        if mesh is not None and axis not in mesh.shape:
            raise ConfigError(f"no mesh axis {axis!r}: {did_you_mean(axis, mesh.axis_names)}")
        # Not asked with a mesh: a topology that is only compiled for may span many hosts.
        if mesh is None and jax.process_count() > 1:
            raise ConfigError(
                f"{jax.process_count()} processes need a mesh over all their devices: "
                "Mesh(np.array(jax.devices()), ('data',))"
            )
        self._mesh = mesh
        self.axis = axis
        self.devices: int = 1 if mesh is None else mesh.shape[axis]

    @property
    def platform(self) -> str:
        """The backend: "cpu", "gpu" or "tpu"."""
        device = jax.devices()[0] if self._mesh is None else self._mesh.devices.flat[0]
        return str(device.platform)

    @property
    def mine(self) -> np.ndarray:
        """Which devices along the axis are this process's, bool [devices].

        All of them in a run of one process: those that are only compiled for belong to it too.
        """
        if self._mesh is None or jax.process_count() == 1:
            return np.ones(self.devices, bool)
        along = np.moveaxis(self._mesh.devices, self._mesh.axis_names.index(self.axis), 0)
        of = np.array([device.process_index for device in along.flat]).reshape(self.devices, -1)
        found: np.ndarray = (of == jax.process_index()).any(axis=1)
        return found

    @property
    def by_row(self) -> Any:
        """The sharding of arrays whose leading axis is split."""
        return self._sharding(P(self.axis))

    @property
    def everywhere(self) -> Any:
        """The sharding of arrays that every device has."""
        return self._sharding(P())

    def index(self) -> jax.Array:
        """Returns the number of the device, within `split`."""
        return jnp.int32(0) if self.devices == 1 else jax.lax.axis_index(self.axis)

    def split(self, function: Any, inputs: Sequence[Spread]) -> Any:
        """Returns `function` mapped over the devices' parts; itself where this machine has the one.

        Args:
          function: from the parts of its arguments to its part of the result, a pytree of arrays
            whose leading axis is split.
          inputs: how each argument is spread.
        """
        # One that is only compiled for must be named: kernels ask which chip they are made for.
        if self.devices == 1 and self.platform == jax.devices()[0].platform:
            return function
        specs = {BY_ROW: P(self.axis), EVERYWHERE: P()}
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=tuple(specs[spread] for spread in inputs),
            out_specs=specs[BY_ROW],
            check_vma=False,
        )

    def _sharding(self, spec: P) -> Any:
        if self._mesh is None:
            return SingleDeviceSharding(jax.devices()[0])
        return NamedSharding(self._mesh, spec)


def place(array: Any, sharding: Any) -> jax.Array:
    """Returns an array that this process has whole on its devices, as part of the global one.

    Every process gives the same array; each puts down the parts of its own devices.

    Args:
      array: numpy, the whole of it.
      sharding: of the result, over the devices of any number of processes.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def place_all(arrays: Any, shardings: Any) -> Any:
    """Returns a pytree of host arrays on their devices; `shardings` has its structure."""
    if jax.process_count() == 1:
        return jax.device_put(arrays, shardings)
    return jax.tree.map(place, arrays, shardings)


def whole(array: jax.Array) -> np.ndarray:
    """Returns all of an array on the host, in every process; all of them must call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
