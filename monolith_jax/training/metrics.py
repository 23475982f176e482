"""Metrics of recommendation models: sums that add up over steps, and what they say.

A window is a dict of float32 sums over the examples of some steps, kept on the device and added to
by the step itself. With weights w, labels y, predictions p:

    loss                 sum w loss / sum w, the penalty on embeddings included
    logloss              -sum w (y log p + (1 - y) log(1 - p)) / sum w, in nats
    normalized_entropy   logloss over the entropy of the mean label: below 1 beats the base rate
                         (He et al. 2014, "Practical lessons from predicting clicks on ads")
    calibration          mean prediction over mean label: 1 is right, above 1 is too sure
    auc                  P(positive scored above negative), ties count one half
    overflowed_ids       distinct ids of a device that reached it by a third one, none of them
                         dropped (`embedding._relay`); left out where there are none
    rmse                 sqrt(sum w (y - p)^2 / sum w), for models of values

Training windows take the AUC from a histogram of logits (`BINS` bins over +-`LOGIT_RANGE`; pairs
within a bin count as ties); evaluation has all predictions and takes it exactly.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from monolith_jax.training import gradients

Loss = Literal["logloss", "squared"]
Window = dict[str, jax.Array]

LATER: tuple[str, ...] = ("overflowed",)
"""Sums that the first versions of checkpoints lack: a window without them goes on with 0."""

BINS = 4096
LOGIT_RANGE = 16.0


def empty_window(loss: Loss) -> Window:
    """Returns a window of zeros: scalars, and for logloss a histogram [2, BINS]."""
    names = ["weight", "loss", "data_loss", "label", "prediction", "overflowed"]
    window = {name: jnp.zeros((), jnp.float32) for name in names}
    if loss == "logloss":
        window["histogram"] = jnp.zeros((2, BINS), jnp.float32)
    return window


def example_losses(loss: Loss, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of each example: [batch] outputs (logits or values), [batch] labels."""
    if loss == "logloss":
        return optax.sigmoid_binary_cross_entropy(outputs, labels)
    return jnp.square(outputs - labels)


def add_batch(
    window: Window,
    loss: Loss,
    mean_loss: jax.Array,
    outputs: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    overflowed: jax.Array | None = None,
) -> Window:
    """Returns the window with one batch added; all examples arrays are [batch] float32.

    `overflowed` is a scalar, the ids that took a detour between devices; None: 0.
    """
    total = jnp.sum(weights)
    predictions = jax.nn.sigmoid(outputs) if loss == "logloss" else outputs
    sums = {
        "weight": total,
        "loss": mean_loss * total,
        "data_loss": jnp.sum(weights * example_losses(loss, outputs, labels)),
        "label": jnp.sum(weights * labels),
        "prediction": jnp.sum(weights * predictions),
        "overflowed": jnp.float32(0.0) if overflowed is None else overflowed,
    }
    if loss == "logloss":
        position = (outputs + LOGIT_RANGE) * (BINS / (2 * LOGIT_RANGE))
        bins = jnp.clip(position.astype(jnp.int32), 0, BINS - 1)
        by_label = jnp.stack([weights * (1.0 - labels), weights * labels])
        sums["histogram"] = jnp.zeros((2, BINS), jnp.float32).at[:, bins].add(by_label)
    return {name: window[name] + sums[name] for name in window}


def summarize(window: dict[str, Any], loss: Loss) -> dict[str, float]:
    """Returns the metrics of a window, as Python floats; reading it waits for its steps.

    A metric that the window cannot tell (the AUC where all labels are equal) is left out.

    Example:
      >>> window = add_batch(empty_window("squared"), "squared", jnp.float32(0.25),
      ...     jnp.float32([3.5]), jnp.float32([4.0]), jnp.float32([1.0]))
      >>> summarize(window, "squared")
      {'loss': 0.25, 'rmse': 0.5, 'examples': 1.0}
    """
    sums = {name: np.asarray(value, np.float64) for name, value in window.items()}
    weight = float(sums["weight"])
    if weight == 0.0:
        return {"examples": 0.0}
    data_loss = float(sums["data_loss"]) / weight
    metrics = {"loss": float(sums["loss"]) / weight}
    if loss == "squared":
        metrics["rmse"] = float(np.sqrt(data_loss))
    else:
        label, prediction = float(sums["label"]) / weight, float(sums["prediction"]) / weight
        metrics |= _binary(data_loss, label, prediction)
        negatives, positives = sums["histogram"]
        auc = _auc_of_histogram(negatives, positives)
        if auc is not None:
            metrics["auc"] = auc
    if sums["overflowed"] > 0:
        metrics["overflowed_ids"] = float(sums["overflowed"])
    return metrics | gradients.summarize(sums) | {"examples": weight}


def evaluate(
    outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray, loss: Loss
) -> dict[str, float]:
    """Returns the exact metrics of all [n] predictions at once, in float64.

    Example:
      >>> metrics = evaluate(np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 1.0]), np.ones(3),
      ...     "logloss")
      >>> metrics["auc"], round(metrics["logloss"], 4)
      (1.0, 0.3048)
    """
    outputs, labels = outputs.astype(np.float64), labels.astype(np.float64)
    weights = weights.astype(np.float64)
    weight = float(weights.sum())
    if weight == 0.0:
        return {"examples": 0.0}
    if loss == "squared":
        squared = float((weights * (outputs - labels) ** 2).sum() / weight)
        return {"loss": squared, "rmse": float(np.sqrt(squared)), "examples": weight}
    losses = np.logaddexp(0.0, outputs) - labels * outputs
    data_loss = float((weights * losses).sum() / weight)
    probabilities = np.exp(-np.logaddexp(0.0, -outputs))
    label = float((weights * labels).sum() / weight)
    prediction = float((weights * probabilities).sum() / weight)
    metrics = {"loss": data_loss} | _binary(data_loss, label, prediction)
    auc = exact_auc(outputs, labels, weights)
    if auc is not None:
        metrics["auc"] = auc
    return metrics | {"examples": weight}


def exact_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float | None:
    """Returns the weighted area under the ROC curve, or None where one class is missing.

    `sum over pairs of w+ w- ([s+ > s-] + [s+ = s-] / 2) / (W+ W-)`, by one sort.

    Example:
      >>> exact_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]), np.ones(4))
      0.875
    """
    values, inverse = np.unique(scores, return_inverse=True)
    positives = np.bincount(inverse, weights * labels, minlength=len(values))
    negatives = np.bincount(inverse, weights * (1.0 - labels), minlength=len(values))
    return _auc_of_histogram(negatives, positives)


def _auc_of_histogram(negatives: np.ndarray, positives: np.ndarray) -> float | None:
    """Returns the AUC of weights by ascending score, equal scores sharing an entry."""
    pairs = float(negatives.sum()) * float(positives.sum())
    if pairs == 0.0:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + 0.5 * negatives)).sum() / pairs)


def _binary(data_loss: float, label: float, prediction: float) -> dict[str, float]:
    metrics = {"logloss": data_loss}
    if 0.0 < label < 1.0:
        entropy = -(label * np.log(label) + (1.0 - label) * np.log1p(-label))
        metrics["normalized_entropy"] = float(data_loss / entropy)
    if label > 0.0:
        metrics["calibration"] = prediction / label
    return metrics
