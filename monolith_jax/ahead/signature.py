"""What tells one program from another: the shapes that it takes, and its text."""

import hashlib
from typing import Any

import jax


def shapes(tree: Any) -> dict[str, str]:
    """Returns the dtype and shape of every leaf, by its path.

    Example:
      >>> import jax.numpy as jnp
      >>> shapes({"a": jnp.zeros((2, 3)), "b": [jnp.int32(1)]})
      {'a': 'float32[2,3]', 'b/0': 'int32[]'}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        )
        for path, leaf in leaves
    }


def digest(program: Any, arguments: tuple[Any, ...]) -> str:
    """Returns a hash of a train step's text and options, without where in the sources it is from.

    Kernels (Pallas) carry the files and lines of the code that called them within themselves, so
    the program is lowered once more without any: the same code in another folder is the same.

    Args:
      program: `training.program.Program`, whose train step it is.
      arguments: as shapes with shardings, or arrays.
    """
    name = "jax_traceback_in_locations_limit"
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update(name, 0)
    try:
        # A function of its own, lest jax takes what it lowered before.
        plain = program.jit_step(lambda *given: program._train_step(*given)).lower(*arguments)
    finally:
        jax.config.update(name, before)
    text = f"{sorted(program.compiler_options.items())}\n{plain.as_text()}"
    return hashlib.sha256(text.encode()).hexdigest()


def shapes_of(arguments: tuple[Any, Any, Any]) -> dict[str, str]:
    """Returns the dtype and shape of every leaf of a step's state, window and batch."""
    return shapes(dict(zip(("state", "window", "batch"), arguments, strict=True)))
