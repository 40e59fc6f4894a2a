"""Losses are weighted sums and their weights, computed by hand here."""

import jax.numpy as jnp
import numpy as np

from bertjax.objectives import metrics as losses


def by_hand(logits: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(logits.astype(float)).sum()) - logits[label])


def test_only_predictions_of_weight_one_count() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    labels, weights = np.array([[1, 6, 0], [3, 0, 0]]), np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    mean = losses.weighted_mean(losses.cross_entropy(jnp.array(logits), labels), weights)
    expected = by_hand(logits[0, 0], 1) + by_hand(logits[0, 1], 6) + by_hand(logits[1, 0], 3)
    np.testing.assert_allclose(mean.total, expected, rtol=1e-6)
    assert mean.weight == 3


def test_the_textbooks_figure_counts_empty_slots() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 2, 5)).astype(np.float32)
    mean = losses.mlm_loss_all_slots(jnp.array(logits), np.array([[4, 0]]))
    np.testing.assert_allclose(mean.total, by_hand(logits[0, 0], 4) + by_hand(logits[0, 1], 0), rtol=1e-6)
    assert mean.weight == 2


def test_accuracy_counts_the_likeliest_class() -> None:
    logits = jnp.array([[[0.0, 2.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    np.testing.assert_array_equal(losses.correct(logits, np.array([[1, 1, 2]])), [[1, 0, 1]])


def test_means_of_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    logits, labels = jnp.array(rng.normal(size=(4, 3, 5))), rng.integers(0, 5, (4, 3))
    weights = rng.integers(0, 2, (4, 3)).astype(np.float32)
    nats = losses.cross_entropy(logits, labels)
    whole = losses.weighted_mean(nats, weights)
    parts = [losses.weighted_mean(nats[i : i + 1], weights[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(sum(part.total for part in parts), whole.total, rtol=1e-6)
    assert sum(part.weight for part in parts) == whole.weight


def test_half_precision_logits_are_reduced_in_float32() -> None:
    logits = jnp.full((1, 1, 30000), 1.0, jnp.bfloat16)
    np.testing.assert_allclose(losses.cross_entropy(logits, np.array([[3]])), np.log(30000), rtol=1e-5)


def test_what_never_had_weight_has_no_mean() -> None:
    running = losses.RunningMeans()
    nothing, something = (losses.Mean(jnp.float32(6 * weight), jnp.float32(weight)) for weight in (0, 2))
    running.add({"mlm": something, "nsp": nothing})
    running.add({"mlm": something, "nsp": nothing})
    assert running.means() == {"mlm": 6.0}
    running.add({"nsp": something})
    assert running.means() == {"mlm": 6.0, "nsp": 6.0}
