"""Metrics against scikit-learn, and windows against the exact numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from monolith_jax.training import metrics


def _predictions(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.uniform(size=n) < 0.3).astype(np.float32)
    logits = (random.normal(size=n) + labels).round(2).astype(np.float32)
    return logits, labels, random.integers(0, 3, size=n).astype(np.float32)


def test_exact_auc_equals_sklearn_with_ties_and_weights() -> None:
    logits, labels, weights = _predictions()
    want = sklearn_metrics.roc_auc_score(labels, logits, sample_weight=weights)
    assert metrics.exact_auc(logits, labels, weights) == pytest.approx(want, abs=1e-12)


def test_logloss_equals_sklearn() -> None:
    logits, labels, weights = _predictions()
    probabilities = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    want = sklearn_metrics.log_loss(labels, probabilities, sample_weight=weights)
    got = metrics.evaluate(logits, labels, weights, "logloss")
    assert got["logloss"] == pytest.approx(want, rel=1e-12)


def test_rmse_equals_sklearn() -> None:
    outputs, labels, weights = _predictions()
    want = sklearn_metrics.root_mean_squared_error(labels, outputs, sample_weight=weights)
    got = metrics.evaluate(outputs, labels, weights, "squared")
    assert got["rmse"] == pytest.approx(want, rel=1e-6)


def test_normalized_entropy_and_calibration_of_the_base_rate_are_one() -> None:
    _, labels, weights = _predictions()
    rate = (labels * weights).sum() / weights.sum()
    logits = np.full_like(labels, np.log(rate / (1 - rate)))
    got = metrics.evaluate(logits, labels, weights, "logloss")
    assert got["normalized_entropy"] == pytest.approx(1.0, abs=1e-6)
    assert got["calibration"] == pytest.approx(1.0, abs=1e-6)
    assert got["auc"] == 0.5


@pytest.mark.parametrize("loss", ["logloss", "squared"])
def test_a_window_adds_up_to_the_exact_metrics(loss: metrics.Loss) -> None:
    logits, labels, weights = _predictions()
    window = metrics.empty_window(loss)
    for part in np.split(np.arange(2000), 8):
        outputs, label, weight = (jnp.asarray(a[part]) for a in (logits, labels, weights))
        losses = metrics.example_losses(loss, outputs, label)
        mean = jnp.sum(losses * weight) / jnp.sum(weight)
        window = metrics.add_batch(window, loss, mean, outputs, label, weight)
    got, want = metrics.summarize(window, loss), metrics.evaluate(logits, labels, weights, loss)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-3 if name == "auc" else 1e-5), name


def test_auc_is_left_out_where_one_class_is_missing() -> None:
    got = metrics.evaluate(np.zeros(3), np.ones(3), np.ones(3), "logloss")
    assert "auc" not in got
    assert "normalized_entropy" not in got


def test_padding_of_weight_zero_changes_nothing() -> None:
    logits, labels, weights = _predictions()
    padded = [np.concatenate([a, np.ones(50, np.float32)]) for a in (logits, labels)]
    got = metrics.evaluate(*padded, np.concatenate([weights, np.zeros(50)]), "logloss")
    want = metrics.evaluate(logits, labels, weights, "logloss")
    assert got == pytest.approx(want)


def test_a_window_without_examples_says_so() -> None:
    assert metrics.summarize(metrics.empty_window("logloss"), "logloss") == {"examples": 0.0}
