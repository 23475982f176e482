"""`layer_test`: the arguments, the order of the checks, and the first output.

What the checks hold a layer against, in their order:

    adapt      its method `adapt`, called with `adapt_data` and mutable variables, changes some
    weights    they come out, go into a second instance, and matter
    dtype      the output has the dtype that is expected: by default the input's, as in Monolith
    shape      and the shape
    signature  `jax.eval_shape` tells both before the call; a batch of another size works too
    values     the output is `expected_output`
    training   a step lowers a loss, and every weight gets a finite gradient
    jit, vmap  the output is the same under them
    gradients  they are those of finite differences
    msgpack    the weights survive being written, and `orbax` likewise
    sharded    the output is the same with the batch over all devices
    bfloat16   it works, and is near

`training` and `gradients` pass over layers whose output is not float by themselves.

Source: ``monolith/core/testing_utils.py``. Different there: `validate_training` and
`custom_objects` were never read, the re-instantiation with weights never ran, and string outputs
without a harness ended in a NameError.

Example:
  >>> from flax import linen as nn
  >>> layer_test(nn.Embed, {"num_embeddings": 10, "features": 4}, (2, 3), "int32",
  ...            expected_output_dtype="float32", expected_output_shape=(None, 3, 4)).dtype
  dtype('float32')
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

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
    """Holds a Flax layer against `LAYER_CHECKS`, which this module's docstring explains.

    Args:
      layer_cls: a `flax.linen.Module` or `flax.nnx.Module` class, or what returns a Linen module.
      kwargs: of the constructor.
      input_shape: of the generated input; each None becomes a size of 1 to 3.
      input_dtype: its dtype, default float32; no strings, which no jax array holds: test with ids.
      input_data: the input itself, instead of a shape and a dtype.
      expected_output: what `input_data` must give.
      expected_output_dtype: default: the input's.
      expected_output_shape: None stands for any size.
      validate_training: whether to run ``training`` and ``gradients``.
      adapt_data: for the layer's method ``adapt``; without it that is not tested.
      custom_objects: values of `kwargs` that are keys here are replaced, as Keras does.
      test_harness: its ``assertAllClose`` (floats) or ``assertAllEqual`` compares outputs, if any.
      call_kwargs: of every call of the layer, such as ``{"deterministic": True}``.
      train_kwargs: besides those, in the check ``training`` alone.
      rng_names: random streams besides "params" and "dropout"; each call gets the same keys.
      skip: names of checks that do not apply to the layer.
      seed: of the generated input and the random keys.

    Returns:
      The output, for checks of your own.

    Raises:
      LayerTestError: a check failed: which, of which layer, with which input and kwargs.
      ConfigError: arguments that make no input, no layer, or no check.
    """
    skipped = _skipped(skip, validate_training)
    data, shape = make_input(input_shape, input_dtype, input_data, seed)
    kwargs = _resolve(kwargs or {}, custom_objects or {})
    generated_by = seed if input_data is None else None
    subject = Subject(layer_name(layer_cls), describe_input(data, generated_by), kwargs)
    maker = _Maker(subject, layer_cls, kwargs, call_kwargs or {}, rng_names, seed)
    adapt_data = None if "adapt" in skipped else adapt_data
    wanted = _Wanted(expected_output, expected_output_dtype, expected_output_shape, test_harness)
    case = _case(maker, jnp.asarray(data), shape, adapt_data, wanted, train_kwargs or {})
    _run(subject, case, skipped)
    return case.output


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes the layer, as often as the checks want it anew."""

    subject: Subject
    layer_cls: Any
    kwargs: dict[str, Any]
    call_kwargs: Mapping[str, Any]
    rng_names: Sequence[str]
    seed: int

    def build(self, **weights: Any) -> Layer:
        """Returns a new layer."""
        kwargs = {**self.kwargs, **weights}
        with self.subject.check("init"):
            return make_layer(self.layer_cls, kwargs, self.call_kwargs, self.rng_names, self.seed)

    def rebuild(self, variables: Variables) -> Layer:
        """Returns a new layer, with the weights if its constructor takes them."""
        return self.build(weights=variables) if takes_weights(self.layer_cls) else self.build()


class _Wanted(NamedTuple):
    """What the output shall be, as the caller said it, and who compares it."""

    output: Any
    dtype: Any
    shape: Sequence[int | None] | None
    harness: Any


def _case(
    maker: _Maker,
    x: jax.Array,
    input_shape: tuple[int | None, ...],
    adapt_data: Any,
    wanted: _Wanted,
    train_kwargs: Mapping[str, Any],
) -> Case:
    """Returns the layer with its first output, for the checks."""
    layer = maker.build()
    variables, output = _first_call(maker.subject, layer, x, adapt_data)
    if wanted.output is not None:
        numeric_dtype("expected_output of dtype", np.asarray(wanted.output).dtype)
    return Case(
        layer=layer,
        rebuild=maker.rebuild,
        variables=variables,
        x=x,
        output=output,
        input_shape=input_shape,
        expected_output=wanted.output,
        expected_dtype=numeric_dtype("expected_output_dtype", wanted.dtype or x.dtype),
        expected_shape=None if wanted.shape is None else tuple(wanted.shape),
        train_kwargs=train_kwargs,
        assert_equal=_comparison(wanted.harness, output),
    )


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
