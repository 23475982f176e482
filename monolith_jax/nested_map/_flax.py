"""Registration with `flax.serialization`, as soon as somebody imports flax, and not before.

Flax looks a class up in its registry when it meets an instance, so the class has to be there by
then; importing flax here would cost everybody who only wants a pytree. A finder on `sys.meta_path`
is how a module learns that another one is imported.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from monolith_jax.nested_map._keyed import KeyedDict, blank
from monolith_jax.nested_map._keys import NestedMapError

_NAME: Final = "flax.serialization"
_CLASSES: Final[list[type[KeyedDict]]] = []


def register(cls: type[KeyedDict]) -> None:
    """Makes flax save and restore `cls` like a dict, now or when flax is imported."""
    _CLASSES.append(cls)
    serialization = sys.modules.get(_NAME)
    if serialization is not None:
        _register_with(serialization, cls)


def _register_with(serialization: ModuleType, cls: type[KeyedDict]) -> None:
    def to_state(node: KeyedDict) -> dict[str, Any]:
        return {key: serialization.to_state_dict(value) for key, value in node.items()}

    def from_state(target: KeyedDict, state: Mapping[str, Any]) -> KeyedDict:
        missing = sorted(set(target) - set(state))
        if missing:
            raise NestedMapError(
                f"the state at {serialization.current_path()!r} lacks {missing}, which the target "
                f"has; it has {sorted(state)}"
            )
        node = blank(cls)
        for key, value in target.items():
            restored = serialization.from_state_dict(value, state[key], name=key)
            dict.__setitem__(node, key, restored)
        return node

    serialization.register_serialization_state(cls, to_state, from_state)


class _WhenFlaxComes(importlib.abc.MetaPathFinder):
    """Finds nothing itself; adds our registrations to the end of flax.serialization's import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _NAME:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _after(spec.loader)
        return spec


def _after(loader: Any) -> None:
    """Wraps `loader`, which is of this one import, to register our classes at its end."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        for cls in _CLASSES:
            _register_with(module, cls)

    loader.exec_module = exec_module


sys.meta_path.insert(0, _WhenFlaxComes())
