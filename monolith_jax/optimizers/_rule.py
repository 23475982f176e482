"""What an update rule is: one elementwise formula, with its hyperparameters, slots and state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers._arithmetic import Arithmetic, wide_enough
from monolith_jax.optimizers._fusion import apart, fuses_outputs
from monolith_jax.optimizers._schedules import LearningRate

Arrays = dict[str, jax.Array]
Scalars = Mapping[str, Any]


@dataclass(frozen=True)
class Slot:
    """One array of state beside the values.

    Attributes:
      name: its key in the `slots` dicts.
      init: the number that it is filled with before the first step.
      tf_suffix: what TF appends to the variable's name: `Adam_1` in `emb/weights/Adam_1`.
      per_row: one number a row, shape `[..., 1]` beside values `[..., dim]`, instead of one a
        value.
    """

    name: str
    init: Any
    tf_suffix: str
    per_row: bool = False

    def shape(self, value_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the slot's shape beside values of `value_shape`.

        Example:
          >>> Slot("sum", 0.0, "Rows", per_row=True).shape((100, 16))
          (100, 1)
        """
        if self.per_row and value_shape:
            return (*value_shape[:-1], 1)
        return value_shape


@dataclass(frozen=True, kw_only=True)
class UpdateRule(Config):
    """Base of the update rules; a rule is its own config: hashable, comparable, JSON-able.

    The same formula serves dense parameters (`as_optax`) and the rows of a table that a batch
    touched (`update` with `rows=True`). A subclass names itself for the command line, `class
    Adagrad(UpdateRule, choice="adagrad")`, lists its `slots`, and writes `_formula`.

    Attributes:
      touches_all_rows: sparse use moves every row at every step, as TF's Adam does; such a rule
        also has `decay_all`, `additions` and `move_all`.
      reads_value: the formula needs the value and not only the gradient.
      tf_name: the default of the `name` argument of TF's optimizer.

    Example:
      >>> rule = UpdateRule.choices()["adagrad"](learning_rate=0.5)
      >>> rule
      Adagrad(learning_rate=0.5, exact=True, initial_accumulator_value=0.1)
      >>> [(slot.name, slot.init, slot.tf_suffix) for slot in rule.slots]
      [('accumulator', 0.1, 'Adagrad')]
    """

    learning_rate: LearningRate = field(
        doc="The step size: a number, a schedule by name, or in Python any function of the step."
    )
    exact: bool = field(
        True,
        doc="Round every product on its own, for the bits that TensorFlow computes on CPU; off: "
        "XLA may fuse products and sums, and weights "
        "drift from TensorFlow's by up to 7 units in the last place in 1,000 steps.",
    )

    touches_all_rows: ClassVar[bool] = False
    reads_value: ClassVar[bool] = False
    tf_name: ClassVar[str] = ""
    _named: ClassVar[dict[str, type["UpdateRule"]]] = {}

    def __init_subclass__(cls, choice: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if choice is not None:
            UpdateRule._named[choice] = cls

    def __post_init__(self) -> None:
        rate = self.learning_rate
        if isinstance(rate, bool | str | None) or not (callable(rate) or np.ndim(rate) == 0):
            raise ConfigError(f"learning_rate must be a number or a schedule, got {rate!r}")

    @classmethod
    def choices(cls) -> dict[str, type[Config]]:
        """Returns the rules by their short names: `{"adagrad": Adagrad, ...}`."""
        return {name: rule for name, rule in UpdateRule._named.items() if issubclass(rule, cls)}

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The arrays beside the values, in TF's order of creation."""
        return ()

    @property
    def scalars(self) -> dict[str, Any]:
        """The numbers that a table (or all dense parameters together) has, before step one."""
        return {}

    def advance(self, scalars: Scalars) -> dict[str, Any]:
        """Returns the scalars of the next step; called once after all the updates of a step."""
        return dict(scalars)

    def init_slots(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Arrays:
        """Returns fresh slots beside values of `shape`.

        Example:
          >>> from monolith_jax.optimizers import Adam
          >>> {name: slot.shape for name, slot in Adam().init_slots((10, 4)).items()}
          {'m': (10, 4), 'v': (10, 4)}
        """
        return {s.name: jnp.full(s.shape(tuple(shape)), s.init, dtype) for s in self.slots}

    def update(
        self,
        gradient: jax.Array,
        value: jax.Array,
        slots: Mapping[str, jax.Array],
        scalars: Scalars,
        step: jax.Array | int,
        *,
        rows: bool,
    ) -> tuple[jax.Array, Arrays]:
        """Returns one step's change of `value`, and the slots after it.

        Everything is computed in float32 at least, whatever the dtypes of values and slots.

        Args:
          gradient: the loss's gradient, of `value`'s shape and any float dtype; on rows, summed
            over the duplicates of each row first, as TF does.
          value: `[...]` dense parameters, or `[n, dim]` touched rows.
          slots: by name, shaped as `init_slots(value.shape)`.
          scalars: as from `scalars` or `advance`.
          step: int32 [], updates made before this one; what learning-rate schedules get.
          rows: `value` holds touched rows of a table: TF's kernels for sparse gradients round
            in another order for some rules.

        Returns:
          (delta, slots): the new value is `value + delta`; both keep their dtypes.

        Raises:
          ValueError: if shapes or slot names do not fit.

        Example:
          >>> from monolith_jax.optimizers import Sgd
          >>> delta, slots = Sgd(learning_rate=0.5).update(
          ...     jnp.ones(2), jnp.zeros(2), {}, {}, 0, rows=False)
          >>> delta.tolist()
          [-0.5, -0.5]
        """
        self._check(gradient, value, slots)
        at = self._arithmetic(step, value.dtype, *(slot.dtype for slot in slots.values()))
        g, w = gradient.astype(at.dtype), value.astype(at.dtype)
        old = {name: slot.astype(at.dtype) for name, slot in slots.items()}
        numbers = {name: at.number(scalar) for name, scalar in scalars.items()}
        movement, new = self._formula(at, g, w, old, numbers, rows)
        if not rows and fuses_outputs():
            for i, name in enumerate(new):
                again = apart((g, w, old), at.step, i)
                new[name] = self._formula(at, *again, numbers, rows)[1][name]
        return (-movement).astype(value.dtype), {n: new[n].astype(slots[n].dtype) for n in slots}

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        """Returns (what is subtracted from the value, new slots), all in `at.dtype`.

        A product that is added or subtracted, be it here or from the value, is `at.product`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no formula")

    def _arithmetic(self, step: jax.Array | int, *dtypes: Any) -> Arithmetic:
        return Arithmetic(wide_enough(*dtypes), jnp.asarray(step, jnp.int32), self.exact)

    def _check(self, gradient: jax.Array, value: jax.Array, slots: Mapping[str, jax.Array]) -> None:
        name = type(self).__name__
        if gradient.shape != value.shape:
            raise ValueError(f"{name}: gradient {gradient.shape} for a value {value.shape}")
        want = {slot.name: slot.shape(value.shape) for slot in self.slots}
        have = {key: slot.shape for key, slot in slots.items()}
        if have != want:
            raise ValueError(f"{name}: expected slots of shapes {want}, got {have}")


def require(rule: UpdateRule, name: str, low: float, *, or_equal: bool = False) -> None:
    """Checks that a hyperparameter given as a number is above `low`; traced ones pass.

    Raises:
      ConfigError: names the field and its value.
    """
    value = getattr(rule, name)
    if isinstance(value, int | float) and not (value > low or (or_equal and value == low)):
        bound = "at least" if or_equal else "above"
        raise ConfigError(f"{name} must be {bound} {low:g}, got {value!r}")
