"""What can go wrong between a model's name and its class."""

from monolith_jax.errors import UserError


class UnknownModelError(UserError, LookupError):
    """No model has the name, or several end in it; the message lists the near misses."""


class ModelImportError(UserError, LookupError):
    """A module that should bring models fails to import.

    The message shows the real cause (module, file and line, exception type and text), and the
    exception itself is chained as `__cause__`. It is a LookupError because that is what
    Monolith's `ImportParams` raises.
    """


class DuplicateModelError(UserError, ValueError):
    """Two models want the same key; the message says where both were registered."""
