"""`NestedMap`: a dict with attribute access that is a jax pytree. Lingvo's class, and Monolith's.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from monolith_jax.nested_map import NestedMap
  >>> params = NestedMap(dense=NestedMap(w=jnp.ones((2, 3)), b=jnp.zeros(3)))
  >>> params.dense.b.shape
  (3,)
  >>> jax.grad(lambda p: (p.dense.w.sum() + p.dense.b.sum()))(params).Keys()
  ['dense.b', 'dense.w']
"""

from typing import Any

from monolith_jax.nested_map import _flax, _pytree
from monolith_jax.nested_map._keyed import KeyedDict
from monolith_jax.nested_map._keys import MissingAttributeError, MissingKeyError, NestedMapError
from monolith_jax.nested_map._text import TextMap

__all__ = ["MissingAttributeError", "MissingKeyError", "NestedMap", "NestedMapError"]


class NestedMap(TextMap):
    """A dict whose items are attributes too, and whose methods work on the whole tree.

    **Keys** are ASCII identifiers, and never the name of an attribute of dict; this holds on every
    way in: constructor, item, attribute, `update`, `setdefault`, `fromkeys`, ``|``, ``|=``, `Set`,
    `FromNestedDict`, unpickling. A key that is a method here (``Get``) is taken, and read with
    ``map["Get"]``.

    **Paths.** `GetItem`, `Get`, `Has`, `Set`, `GetSlice` take nested keys, ``a.b[2].c``.

    **Trees.** `Flatten`, `FlattenItems`, `Keys`, `Pack`, `Transform`, `TransformWithKey`, `Filter`,
    `FilterKeyVal`, `IsCompatible`, `DeepCopy`, `Update`, `Union` go into dicts of any class and
    into lists. `jax.tree` sees the same leaves in the same order, at the paths of a dict, except
    for what jax does to every pytree: None is no leaf, tuples and all other registered classes are
    gone into (an OrderedDict in its own order), and a dict or list of a class that is not
    registered is a leaf.

    **Subclasses** are pytrees, and known to flax, from their ``class`` statement on; all methods
    that return a map return one of the subclass, without calling its constructor.

    A map and a dict are different nodes to jax: `jax.tree.map` over both, or a dict as ``in_axes``
    for a map, is its "different types" error; `FromNestedDict` and `ToNestedDict` convert. A dict
    prefix that has the maps at its leaves is fine.

    Example:
      >>> m = NestedMap(x=10)
      >>> m.y = 20
      >>> m
      NestedMap(x=10, y=20)
      >>> m.Transform(lambda v: v + 1).y
      21
      >>> m.z
      Traceback (most recent call last):
      ...
      monolith_jax.nested_map._keys.MissingAttributeError: 'z'; available attributes: ['x', 'y']

    From `lingvo/core/nested_map.py` and `monolith/core/py_utils.py`.
    """

    __slots__ = ("__weakref__",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _register(cls)


def _register(cls: type[KeyedDict]) -> None:
    _pytree.register(cls)
    _flax.register(cls)


_register(NestedMap)
