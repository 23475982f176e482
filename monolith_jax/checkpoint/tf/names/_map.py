"""What the variables of a TensorFlow checkpoint are called: the settings."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from monolith_jax.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class NameRule:
    r"""Names for all the variables that a regular expression matches as a whole.

    Attributes:
      ours: the expression, over our paths.
      tf: TF's name, with `\1`, `\g<name>` for what the groups matched.

    Example:
      >>> NameRule(ours=r"params/deep/hidden_(\d+)/(\w+)", tf=r"dnn/layer\1/\2").name(
      ...     "params/deep/hidden_0/bias")
      'dnn/layer0/bias'
    """

    ours: str
    tf: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.ours)
        except re.error as error:
            raise ConfigError(f"ours = {self.ours!r} is no regular expression: {error}") from error

    def name(self, path: str) -> str | None:
        """Returns TF's name of our variable, None if the rule is not about it.

        Raises:
          ConfigError: `tf` names a group that `ours` does not have.
        """
        found = re.fullmatch(self.ours, path)
        if found is None:
            return None
        try:
            return found.expand(self.tf)
        except (re.error, IndexError) as error:
            raise ConfigError(f"tf = {self.tf!r} does not fit {self.ours!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class OptimizerNames:
    """What TF's optimizer of some variables was given that shows in the names of its state.

    Attributes:
      name: its `name` argument; None: its class's default.
      scope: the name scope in which `minimize` was called, where `beta1_power` lies.
      slot_index: how many optimizers of this name the variables had before: 1 for `w/Adam_2`.
      scalar_index: how many Adams the graph had before: 1 for `beta1_power_1`.
      renamed: our slot -> the word TF appends instead (Ftrl's `accum_name`, `linear_name`).
    """

    name: str | None = None
    scope: str = ""
    slot_index: int = 0
    scalar_index: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MovingAverages:
    """What becomes of the averages that `tf.train.ExponentialMovingAverage` keeps.

    Attributes:
      name: its `name` argument: the average of `w` is `w/ExponentialMovingAverage`.
      read: an import takes a variable's average in place of its value, where there is one.
      write: an export writes each value under its average's name too, as TF starts an average.
    """

    name: str = "ExponentialMovingAverage"
    read: bool = False
    write: bool = False


@dataclass(frozen=True, kw_only=True)
class NameMap:
    """How our variables are called in TensorFlow's checkpoints; see `read_names` for its file.

    A variable gets the name that `variables` has for its path, else that of the first of `rules`
    that matches its path, else its path without the first part: `params/deep/out/bias` is
    `deep/out/bias`, `tables/user` is `user`.

    Attributes:
      variables: our path -> TF's name.
      rules: in the order in which they are tried.
      optimizers: our path, or the start of some (`params`, `tables`, `tables/user`) -> what TF's
        optimizer was given; the longest that fits a variable counts.
      moving_averages: what becomes of them.
      global_step: the variable that counts the steps.
      ignore: expressions for TF's names that are left out on purpose, matched as a whole.

    Example:
      >>> names = NameMap(variables={"tables/user": "emb/users"})
      >>> names.name("tables/user"), names.name("tables/item")
      ('emb/users', 'item')
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[NameRule, ...] = ()
    optimizers: Mapping[str, OptimizerNames] = field(default_factory=dict)
    moving_averages: MovingAverages = MovingAverages()
    global_step: str = "global_step"
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"ignore {pattern!r} is no regular expression: {error}"
                ) from error

    def name(self, path: str) -> str:
        """Returns TF's name of our variable."""
        if path in self.variables:
            return self.variables[path]
        for rule in self.rules:
            found = rule.name(path)
            if found is not None:
                return found
        return path.partition("/")[2] or path

    def optimizer(self, path: str) -> OptimizerNames:
        """Returns what TF's optimizer of our variable was given."""
        fitting = [key for key in self.optimizers if path == key or path.startswith(f"{key}/")]
        return self.optimizers[max(fitting, key=len)] if fitting else OptimizerNames()

    def ignores(self, tf_name: str) -> bool:
        """Returns whether a variable of TF is left out on purpose."""
        return self._ignored is not None and self._ignored.fullmatch(tf_name) is not None

    @cached_property
    def _ignored(self) -> re.Pattern[str] | None:
        return re.compile("|".join(f"(?:{p})" for p in self.ignore)) if self.ignore else None

    def check(self, paths: Iterable[str]) -> None:
        """Raises unless all that is said by path is about a variable that there is.

        Raises:
          ConfigError: names the entry, and the paths that resemble it.
        """
        paths = list(paths)
        for path in self.variables:
            if path not in paths:
                raise ConfigError(f"variables: no variable {path!r}: {did_you_mean(path, paths)}")
        for key in self.optimizers:
            if not any(path == key or path.startswith(f"{key}/") for path in paths):
                choices = {p for path in paths for p in (path, path.partition("/")[0])}
                raise ConfigError(f"optimizers: no variable {key!r}: {did_you_mean(key, choices)}")
