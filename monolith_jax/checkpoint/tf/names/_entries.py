"""Our variables with all that their optimizers keep, each under its name in TF's checkpoint."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monolith_jax.checkpoint.tf.names._map import NameMap, OptimizerNames
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import UpdateRule, tf_scalar_names, tf_slot_names

Kind = Literal["value", "slot", "scalar", "step"]


@dataclass(frozen=True)
class Variable:
    """A trained variable of ours.

    Attributes:
      path: `params/...` of dense parameters, `tables/NAME` of tables.
      shape: of the values.
      rule: what updates it; None: it has no optimizer.
      owner: the variables that share a rule's scalars (Adam's powers) have the same owner.
      dtype: of the values; slots are float32 at least.
    """

    path: str
    shape: tuple[int, ...]
    rule: UpdateRule | None = None
    owner: str = ""
    dtype: np.dtype = np.dtype(np.float32)


@dataclass(frozen=True)
class Entry:
    """One array of ours and its name in TF's checkpoint.

    Attributes:
      kind: a variable's value, a slot of one, a scalar that a rule's variables share, or the step.
      variable: the path of the variable; of a scalar its owner; "step" of the step.
      part: the slot's or scalar's name, "" of values and of the step.
      tf: TF's name.
      shape: the sizes.
      dtype: ours; int64 of the step.
      average: where an import looks before `tf`: the variable's moving average. "": nowhere.
    """

    kind: Kind
    variable: str
    part: str
    tf: str
    shape: tuple[int, ...]
    dtype: np.dtype
    average: str = ""

    @property
    def ours(self) -> str:
        """Our name for it, as reports show it: `tables/user@accumulator`."""
        return f"{self.variable}@{self.part}" if self.part else self.variable


def entries(variables: Iterable[Variable], names: NameMap) -> tuple[Entry, ...]:
    """Returns all that a checkpoint of these variables holds, under TF's names.

    Raises:
      ConfigError: `names` speaks of a variable that is not there, or gives two the same name.

    Example:
      >>> from monolith_jax.optimizers import Adam
      >>> for e in entries([Variable("tables/user", (10, 4), Adam())], NameMap()):
      ...     print(f"{e.ours:24}{e.tf:14}{e.shape}")
      tables/user             user          (10, 4)
      tables/user@m           user/Adam     (10, 4)
      tables/user@v           user/Adam_1   (10, 4)
      @beta1_power            beta1_power   ()
      @beta2_power            beta2_power   ()
      step                    global_step   ()
    """
    variables = list(variables)
    names.check([variable.path for variable in variables])
    found: dict[Entry, None] = {}
    for variable in variables:
        found.update(dict.fromkeys(_of_variable(variable, names)))
    step = Entry("step", "step", "", names.global_step, (), np.dtype(np.int64))
    made = (*(e for e in found if e.kind != "scalar"), *(e for e in found if e.kind == "scalar"))
    _check_unique((*made, step))
    return (*made, step)


def averages(made: Iterable[Entry], names: NameMap) -> dict[str, Entry]:
    """Returns, by the name of its moving average, each value that an export writes twice."""
    if not names.moving_averages.write:
        return {}
    return {f"{e.tf}/{names.moving_averages.name}": e for e in made if e.kind == "value"}


def _of_variable(variable: Variable, names: NameMap) -> Iterator[Entry]:
    tf, said = names.name(variable.path), names.optimizer(variable.path)
    average = f"{tf}/{names.moving_averages.name}" if names.moving_averages.read else ""
    yield Entry("value", variable.path, "", tf, variable.shape, variable.dtype, average)
    if variable.rule is None:
        return
    wide = np.dtype(np.float64 if variable.dtype == np.float64 else np.float32)
    slots = tf_slot_names(
        variable.rule,
        tf,
        variable.shape,
        name=said.name,
        index=said.slot_index,
        renamed=_known_slots(variable, said),
    )
    for slot, (name, shape) in slots.items():
        yield Entry("slot", variable.path, slot, name, shape, wide)
    scalars = tf_scalar_names(variable.rule, scope=said.scope, index=said.scalar_index)
    for scalar, (name, shape) in scalars.items():
        yield Entry("scalar", variable.owner, scalar, name, shape, np.dtype(np.float32))


def _known_slots(variable: Variable, said: OptimizerNames) -> dict[str, str]:
    """Returns the renamed slots that the variable's rule has; the others are other rules'."""
    assert variable.rule is not None
    slots = {slot.name for slot in variable.rule.slots}
    return {slot: word for slot, word in said.renamed.items() if slot in slots}


def _check_unique(made: Iterable[Entry]) -> None:
    """Raises if one name stands for two arrays; scalars may share one, as of one optimizer."""
    taken: dict[str, Entry] = {}
    for entry in made:
        other = taken.setdefault(entry.tf, entry)
        if other is not entry and not (other.kind == entry.kind == "scalar"):
            raise ConfigError(
                f"{other.ours} and {entry.ours} would both be {entry.tf!r} in TensorFlow's "
                "checkpoint: give one of them another name in the names file"
            )
