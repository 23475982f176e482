"""`layer_test`: the arguments, the order of the checks, and the first output."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.errors import ConfigError, did_you_mean
from monolith_jax.testing import _jax_checks as jax_checks
from monolith_jax.testing import _original_checks as original_checks
from monolith_jax.testing._case import Case, assert_close
from monolith_jax.testing._failure import Subject, describe_input
from monolith_jax.testing._input import make_input, numeric_dtype
from monolith_jax.testing._layer import Layer, Variables, layer_name, make_layer, takes_weights

_logger = logging.getLogger(__name__)

_CHECKS: dict[str, Callable[[Case], str | None]] = {
    "weights": original_checks.check_weights,
    "dtype": original_checks.check_dtype,
    "shape": original_checks.check_shape,
    "signature": original_checks.check_signature,
    "values": original_checks.check_values,
    "training": original_checks.check_training,
    "jit": jax_checks.check_jit,
    "vmap": jax_checks.check_vmap,
    "gradients": jax_checks.check_gradients,
    "msgpack": jax_checks.check_msgpack,
    "orbax": jax_checks.check_orbax,
    "sharded": jax_checks.check_sharded,
    "bfloat16": jax_checks.check_bfloat16,
}

LAYER_CHECKS: tuple[str, ...] = ("adapt", *_CHECKS)
"""The names of the checks, in the order in which they run."""


def layer_test(
    layer_cls: Any,
    kwargs: Mapping[str, Any] | None = None,
    input_shape: Sequence[int | None] | None = None,
    input_dtype: Any = None,
    input_data: Any = None,
    expected_output: Any = None,
    expected_output_dtype: Any = None,
    expected_output_shape: Sequence[int | None] | None = None,
    validate_training: bool = True,
    adapt_data: Any = None,
    custom_objects: Mapping[str, Any] | None = None,
    test_harness: Any = None,
    *,
    call_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    rng_names: Sequence[str] = (),
    skip: Collection[str] = (),
    seed: int = 0,
) -> np.ndarray:
    """Holds a Flax layer with one input and one output against everything a layer should do.

    The checks, in this order: ``adapt`` (the method changes variables); ``weights`` (out, in, into
    a second instance, and they matter); ``dtype``; ``shape``; ``signature`` (`jax.eval_shape`
    against the real output, a batch of another size too); ``values``; ``training`` (a step lowers
    a loss, every weight gets a finite gradient); then what jax adds: ``jit``, ``vmap``,
    ``gradients`` (against finite differences), ``msgpack``, ``orbax``, ``sharded`` (over all
    devices) and ``bfloat16``.

    Args:
      layer_cls: A `flax.linen.Module` class, a `flax.nnx.Module` class (it comes in through
        `flax.nnx.bridge.ToLinen`), or a function that returns a Linen module.
      kwargs: Arguments of the constructor.
      input_shape: Shape of the generated input; each None becomes a size of 1 to 3.
      input_dtype: Its dtype, float32 by default. Strings are an error: jax has no string arrays,
        so strings are hashed or looked up on the host, and the layer is tested with the ids.
      input_data: The input itself, instead of a shape and a dtype.
      expected_output: The output that `input_data` must give.
      expected_output_dtype: By default the input's, as in Monolith.
      expected_output_shape: None stands for any size.
      validate_training: Whether to run ``training`` and ``gradients``. Both pass over layers whose
        output is not float by themselves.
      adapt_data: Input of the layer's method ``adapt``, which is called with mutable variables
        before anything else; without it ``adapt`` is not tested.
      custom_objects: Values of `kwargs` that are keys here are replaced, as Keras does for names
        of functions.
      test_harness: A test case; its ``assertAllClose`` (floats) or ``assertAllEqual`` compares
        `expected_output` if it has that method.
      call_kwargs: Arguments of every call of the layer, such as ``{"deterministic": True}``.
      train_kwargs: Arguments besides, in the check ``training`` alone.
      rng_names: Random streams that the layer draws from, besides "params" and "dropout". Each
        call gets the same keys.
      skip: Names of checks that do not apply to the layer.
      seed: Of the generated input and the random keys.

    Returns:
      The output, as a numpy array, for checks of your own.

    Raises:
      LayerTestError: If a check fails; an `AssertionError` that names the check, the layer, the
        input and the kwargs.
      ConfigError: For unusable arguments: neither `input_shape` nor `input_data`, strings, an
        unknown name in `skip`, a `layer_cls` that makes no Flax module.

    Example:
      >>> import numpy as np
      >>> from flax import linen as nn
      >>> out = layer_test(nn.Embed, kwargs={"num_embeddings": 10, "features": 4},
      ...                  input_shape=(None, 3), input_dtype="int32",
      ...                  expected_output_dtype="float32", expected_output_shape=(None, 3, 4))
      >>> out.dtype
      dtype('float32')

    Source: ``monolith/core/testing_utils.py``. Different there: `validate_training` and
    `custom_objects` were never read, the re-instantiation with weights never ran, and string
    outputs without a harness ended in a NameError.
    """
    skipped = _skipped(skip, validate_training)
    data, shape = make_input(input_shape, input_dtype, input_data, seed)
    kwargs = _resolve(kwargs or {}, custom_objects or {})
    generated_by = seed if input_data is None else None
    subject = Subject(layer_name(layer_cls), describe_input(data, generated_by), kwargs)

    def build(**weights: Any) -> Layer:
        with subject.check("init"):
            return make_layer(layer_cls, {**kwargs, **weights}, call_kwargs or {}, rng_names, seed)

    def rebuild(variables: Variables) -> Layer:
        return build(weights=variables) if takes_weights(layer_cls) else build()

    layer, x = build(), jnp.asarray(data)
    adapt_data = None if "adapt" in skipped else adapt_data
    variables, output = _first_call(subject, layer, x, adapt_data)
    if expected_output is not None:
        numeric_dtype("expected_output of dtype", np.asarray(expected_output).dtype)
    case = Case(
        layer=layer,
        rebuild=rebuild,
        variables=variables,
        x=x,
        output=output,
        input_shape=shape,
        expected_output=expected_output,
        expected_dtype=numeric_dtype("expected_output_dtype", expected_output_dtype or x.dtype),
        expected_shape=None if expected_output_shape is None else tuple(expected_output_shape),
        train_kwargs=train_kwargs or {},
        assert_equal=_comparison(test_harness, output),
    )
    _run(subject, case, skipped)
    return output


def _skipped(skip: Collection[str], validate_training: bool) -> set[str]:
    for name in skip:
        if name not in LAYER_CHECKS:
            raise ConfigError(f"skip: no check {name!r}; {did_you_mean(name, LAYER_CHECKS)}")
    return set(skip) | (set() if validate_training else {"training", "gradients"})


def _first_call(
    subject: Subject, layer: Layer, x: jax.Array, adapt_data: Any
) -> tuple[Variables, np.ndarray]:
    with subject.check("init"):
        variables = layer.init(x)
    if adapt_data is not None:
        with subject.check("adapt"):
            variables = _adapt(layer, variables, adapt_data)
    with subject.check("call"):
        return variables, np.asarray(layer(variables, x))


def _run(subject: Subject, case: Case, skipped: Collection[str]) -> None:
    for name, check in _CHECKS.items():
        if name in skipped:
            continue
        with subject.check(name):
            reason = check(case)
        if reason:
            _logger.debug("layer_test %s: check %r does not apply: %s", subject.layer, name, reason)


def _resolve(kwargs: Mapping[str, Any], custom_objects: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: custom_objects.get(value, value) if isinstance(value, str) else value
        for key, value in kwargs.items()
    }


def _adapt(layer: Layer, variables: Variables, adapt_data: Any) -> Variables:
    adapted = layer.adapt(variables, jnp.asarray(adapt_data))
    before, after = jax.tree.leaves(variables), jax.tree.leaves(adapted)
    if len(before) == len(after) and all(
        np.array_equal(a, b) for a, b in zip(before, after, strict=True)
    ):
        raise AssertionError("adapt(data) changed no variable of the layer")
    return adapted


def _comparison(test_harness: Any, output: np.ndarray) -> Callable[[Any, Any], None]:
    method = "assertAllClose" if jnp.issubdtype(output.dtype, jnp.inexact) else "assertAllEqual"
    return getattr(test_harness, method, assert_close)
