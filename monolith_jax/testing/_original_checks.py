"""The checks of Monolith's ``layer_test``: weights, dtype, shape, signature, values, training.

Source: ``monolith/core/testing_utils.py``, which follows TensorFlow's
``tensorflow/python/keras/testing_utils.py``.

Each check takes a `Case`, raises if the layer fails, and returns why it does not apply if so.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.testing._case import Case, assert_same
from monolith_jax.testing._layer import Variables, is_float, map_floats, split_floats


def check_weights(case: Case) -> str | None:
    """Weights can be taken out, put in again and into a new instance, and matter.

    The output must be the same with the weights after a way through numpy, the same from a second
    instance that got them, and another one with other weights.
    """
    if not jax.tree.leaves(case.variables):
        again = case.rebuild(case.variables)(case.variables, case.x)
        assert_same(again, case.output)
        return None
    leaves, treedef = jax.tree.flatten(case.variables)
    weights = [np.asarray(leaf) for leaf in leaves]
    put_back = jax.tree.unflatten(treedef, [jnp.asarray(w) for w in weights])
    try:
        assert_same(case.layer(put_back, case.x), case.output)
    except AssertionError as error:
        raise AssertionError(
            f"the output changes when the weights are set anew: {error}"
        ) from error
    try:
        assert_same(case.rebuild(put_back)(put_back, case.x), case.output)
    except AssertionError as error:
        raise AssertionError(
            f"a second instance with the same weights has another output: {error}"
        ) from error
    if any(map(is_float, case.weights)) and is_float(case.output):
        _check_weights_matter(case)
    return None


def _check_weights_matter(case: Case) -> None:
    params = map_floats(lambda w: w * 1.5 + 0.25, case.variables["params"])
    other = case.layer({**case.variables, "params": params}, case.x)
    if np.array_equal(np.asarray(other), case.output, equal_nan=True) and case.output.size:
        raise AssertionError(
            "the output stays the same with other weights: the layer does not use the weights that "
            "it is given"
        )


def check_dtype(case: Case) -> str | None:
    """The output has the expected dtype, by default the input's."""
    if case.output.dtype != case.expected_dtype:
        raise AssertionError(
            f"found output dtype={case.output.dtype} but expected to find {case.expected_dtype}"
        )
    return None


def check_shape(case: Case) -> str | None:
    """The output has the expected shape; None there stands for any size."""
    if case.expected_shape is None:
        return "no expected_output_shape"
    _assert_shape(case.output.shape, case.expected_shape, "output shape")
    return None


def check_signature(case: Case) -> str | None:
    """Shape and dtype computed without running the layer are those of the real output.

    Computed by `jax.eval_shape`, at this batch size and at another one, and by the layer's own
    ``compute_output_shape`` if it has that method.
    """
    spec = jax.ShapeDtypeStruct(case.x.shape, case.x.dtype)
    computed = jax.eval_shape(case.layer, case.variables, spec)
    _assert_shape(case.output.shape, computed.shape, "output shape", "computed by jax.eval_shape")
    if computed.dtype != case.output.dtype:
        raise AssertionError(
            f"found output dtype={case.output.dtype} but jax.eval_shape computed {computed.dtype}"
        )
    own = getattr(case.layer.module, "compute_output_shape", None)
    if callable(own):
        _assert_shape(
            case.output.shape,
            own(case.input_shape),
            "output shape",
            "computed by the layer's compute_output_shape",
        )
    if case.x.ndim:
        larger = jax.ShapeDtypeStruct((case.x.shape[0] + 1, *case.x.shape[1:]), case.x.dtype)
        try:
            jax.eval_shape(case.layer, case.variables, larger)
        except Exception as error:
            raise AssertionError(
                f"the layer takes no batch of another size ({larger.shape[0]}): {error}"
            ) from error
    return None


def _assert_shape(
    actual: tuple[int, ...], expected: tuple[int | None, ...], what: str, how: str = "expected"
) -> None:
    expected = tuple(expected)
    if len(actual) != len(expected) or any(
        e is not None and e != a for a, e in zip(actual, expected, strict=True)
    ):
        raise AssertionError(f"found {what}={tuple(actual)} but {expected} was {how}")


def check_values(case: Case) -> str | None:
    """The output is the expected one, compared by dtype."""
    if case.expected_output is None:
        return "no expected_output"
    case.assert_equal(case.output, case.expected_output)
    return None


def check_training(case: Case) -> str | None:
    """One step of gradient descent on the mean squared distance to random targets lowers it.

    All gradients must be finite, have their weights' shapes and dtypes, and reach every weight.
    """
    if not case.is_differentiable:
        return "the output, or all that it depends on, is not float"
    layer = case.layer.with_call_kwargs(**case.train_kwargs)
    trainable: Variables = case.variables.get("params", {})
    weights, join = split_floats(trainable)
    rng = np.random.default_rng(1)
    target = jnp.asarray(rng.normal(size=case.output.shape), case.output.dtype)

    def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        output = layer({**case.variables, "params": join(weights)}, x)
        return jnp.mean((output - target).astype(jnp.float32) ** 2)

    if not weights:
        chex.assert_tree_all_finite(jax.jit(jax.grad(loss, argnums=1))(weights, case.x))
        return None
    before, gradients = jax.jit(jax.value_and_grad(loss))(weights, case.x)
    _check_every_weight_gets_a_gradient(trainable, weights, gradients)

    @jax.jit
    def loss_after_step(rate: jax.Array) -> jax.Array:
        pairs = zip(weights, gradients, strict=True)
        moved = [(_wide(w) - rate * _wide(g)).astype(w.dtype) for w, g in pairs]
        return loss(moved, case.x)

    if not any(float(loss_after_step(10.0**-k)) < float(before) for k in range(8)):
        raise AssertionError(
            f"no step against the gradient, at rates of 1 down to 1e-7, lowers the loss of {before}"
        )
    return None


def _check_every_weight_gets_a_gradient(
    trainable: Variables, weights: list[jax.Array], gradients: list[jax.Array]
) -> None:
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, weights)
    paths = [p for p, w in jax.tree_util.tree_leaves_with_path(trainable) if is_float(w)]
    for path, gradient in zip(paths, gradients, strict=True):
        name = jax.tree_util.keystr(path)
        if not np.isfinite(np.asarray(gradient, np.float64)).all():
            raise AssertionError(f"the gradient of the weight {name} is not finite")
        if gradient.size and not np.any(np.asarray(gradient)):
            raise AssertionError(
                f"no gradient reaches the weight {name}; if it is not to be trained, keep it in a "
                "collection other than 'params'"
            )


def _wide(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array
