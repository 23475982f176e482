"""What a user of a variable can do wrong."""

from monolith_jax.errors import UserError


class VariableError(UserError, ValueError):
    """A value that a variable cannot take, or a call that makes no sense where it was made.

    The message names the variable, what came, what was expected and what to do instead.
    """


class GraphEraError(UserError, AttributeError):
    """A member that only TensorFlow's graphs gave a meaning; the message says what to use now.

    It is an `AttributeError`, so that ``hasattr(variable, "graph")`` is False.
    """
