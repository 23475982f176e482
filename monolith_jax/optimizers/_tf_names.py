"""Where TF's checkpoints keep the state of an optimizer: names and shapes of its variables."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from monolith_jax.optimizers._rule import UpdateRule


class TFVariable(NamedTuple):
    """A variable of a TF checkpoint: its name and shape."""

    name: str
    shape: tuple[int, ...]


def tf_slot_names(
    rule: UpdateRule,
    variable: str,
    shape: tuple[int, ...] = (),
    *,
    name: str | None = None,
    index: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> dict[str, TFVariable]:
    """Returns the TF variables that hold `rule`'s slots of one variable.

    TF names a slot `VARIABLE/OPTIMIZER` and numbers those after the first: `w/Adam`, `w/Adam_1`.

    Args:
      rule: the optimizer.
      variable: the variable's name without `:0`, `emb/weights`; of a partitioned variable, the
        name without `/part_N`, since partitions are saved merged.
      shape: the variable's shape.
      name: the `name` argument of TF's optimizer; default: its class's.
      index: how many optimizers of this name were applied to the variable in the graph before.
      renamed: slots with a name of their own: Ftrl's `accum_name` as `{"accumulator": "NAME"}`,
        its `linear_name` as `{"linear": "NAME"}`.

    Example:
      >>> from monolith_jax.optimizers import Adam, RMSProp
      >>> tf_slot_names(Adam(), "emb/weights", (10, 4))["v"]
      TFVariable(name='emb/weights/Adam_1', shape=(10, 4))
      >>> [v.name for v in tf_slot_names(RMSProp(centered=True), "w", name="Opt").values()]
      ['w/Opt', 'w/Opt_1', 'w/Opt_2']

    Source: `tensorflow/python/training/slot_creator.py`, read off checkpoints that TF wrote.
    """
    bases = {s.name: (renamed or {}).get(s.name) or name or rule.tf_name for s in rule.slots}
    # An earlier optimizer of the same names has taken as many numbers of each as this one takes.
    taken = Counter({base: index * count for base, count in Counter(bases.values()).items()})
    found = {}
    for slot in rule.slots:
        base = bases[slot.name]
        number, taken[base] = taken[base], taken[base] + 1
        found[slot.name] = TFVariable(
            f"{variable}/{base}" + (f"_{number}" if number else ""), slot.shape(shape)
        )
    return found


def tf_scalar_names(rule: UpdateRule, *, scope: str = "", index: int = 0) -> dict[str, TFVariable]:
    """Returns the TF variables that hold `rule`'s scalars, shared by all its variables.

    Args:
      rule: the optimizer.
      scope: the name scope in which TF's `apply_gradients` or `minimize` was called, if any;
        with `use_own_namescope_for_non_slot_vars`, the optimizer's name within it.
      index: how many Adam optimizers the graph had in that scope before.

    Example:
      >>> from monolith_jax.optimizers import Adam
      >>> [v.name for v in tf_scalar_names(Adam(), scope="s").values()]
      ['s/beta1_power', 's/beta2_power']
      >>> [v.name for v in tf_scalar_names(Adam(), index=1).values()]
      ['beta1_power_1', 'beta2_power_1']
    """
    prefix, suffix = f"{scope}/" if scope else "", f"_{index}" if index else ""
    return {key: TFVariable(f"{prefix}{key}{suffix}", ()) for key in rule.scalars}
