"""The protocol of a registered model."""

from typing import Any

from monolith_jax.errors import ConfigError


class SingleTaskModelParams:
    """Base of all registered models: a name for a config.

    Source: Monolith's `core/base_model_params.py`.

    Example:
      >>> class Model(SingleTaskModelParams):
      ...     def task(self):
      ...         return "anything with instantiate()"
      >>> Model().task()
      'anything with instantiate()'
    """

    def task(self) -> Any:
        """Returns the model's config: a `TaskConfig`, or anything with `instantiate()`.

        Raises:
          NotImplementedError: in this base class.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define task()")

    def prepare_data(self, root: str = "") -> str:
        """Returns the root folder of the model's own data, fetching it on first use.

        Called by `train` and `eval` when `input.root` is empty. Models whose data the user
        brings keep this one.

        Args:
          root: where to put the data; empty: the model's default place.

        Raises:
          ConfigError: in this base class, which has no data of its own.
        """
        raise ConfigError(f"{type(self).__name__} has no data of its own: set --input.root")
