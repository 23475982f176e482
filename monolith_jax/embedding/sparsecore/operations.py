"""The two operations of SparseCores, mapped over the devices; or their emulation."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._placement import BY_ROW, EVERYWHERE, Placement
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.sparsecore import emulation, library
from monolith_jax.embedding.sparsecore.formula import formula_of
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.lookups import CoreLookups, Samples


class Operations:
    """Look-ups and updates of whole stacks, on arrays of all devices, inside a jit.

    Args:
      layouts: by stack, where its rows live.
      samples: by stack, its vectors.
      placement: the devices.
      emulated: plain jax in place of the library's operations.
    """

    def __init__(
        self,
        layouts: Mapping[str, CoreLayout],
        samples: Mapping[str, Samples],
        placement: Placement,
        *,
        emulated: bool,
    ) -> None:
        self._layouts, self._samples = layouts, samples
        self._placement, self._emulated = placement, emulated

    @property
    def table_format(self) -> Any:
        """Where tables and slots live, and in which layout in memory."""
        split = self._placement.by_row
        return split if self._emulated else library.table_format(split)

    def lookup(self, stack: Stack, lookups: CoreLookups, table: jax.Array) -> jax.Array:
        """Returns the samples' vectors, float32 [samples, width].

        Args:
          stack: the tables.
          lookups: of the batch.
          table: [rows, width].
        """
        layout, samples = self._layouts[stack.name], self._samples[stack.name]
        if not samples.total:  # a table that no feature looks up
            return jnp.zeros((0, layout.width), jnp.float32)
        if self._emulated:
            return emulation.lookup(layout, lookups, table, samples.per_core)
        local = partial(library.lookup, samples=samples.per_core * layout.cores)
        run = self._placement.split(local, (BY_ROW, BY_ROW))
        found: jax.Array = run(lookups, table)
        return found

    def update(
        self,
        stack: Stack,
        lookups: CoreLookups,
        arrays: tuple[jax.Array, ...],
        gradient: jax.Array,
        numbers: tuple[jax.Array, ...],
    ) -> tuple[jax.Array, ...]:
        """Returns table and slots after one step of the stack's rule.

        Args:
          stack: the tables.
          lookups: of the batch.
          arrays: the table and its slots, [rows, width] each.
          gradient: of the samples' vectors.
          numbers: as from `formula.numbers_of`.
        """
        layout, samples = self._layouts[stack.name], self._samples[stack.name]
        if not samples.total:
            return arrays
        if self._emulated:
            per_core = samples.per_core
            return emulation.update(
                layout, lookups, arrays, gradient, numbers, stack.rule, per_core
            )
        formula = formula_of(stack.rule, layout.width)
        local = partial(library.update, formula=formula, name=stack.name)
        run = self._placement.split(local, (BY_ROW, BY_ROW, BY_ROW, EVERYWHERE))
        updated: tuple[jax.Array, ...] = run(lookups, arrays, gradient, numbers)
        return updated
