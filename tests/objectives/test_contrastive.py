"""Embeddings: losses as sentence-transformers has them, no false negatives, the same in parts and on any devices."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.batching.tuples import TupleBatch, TupleBatches
from bertjax.data.tuples import Tuples
from bertjax.models.bert import Bert
from bertjax.models.sentence_encoder import SentenceEncoder
from bertjax.objectives.contrastive import (
    Contrast,
    contrastive_objective,
    metrics_of_vectors,
    nearest_losses,
    tuple_vectors,
)
from bertjax.parallel.sharding import make_mesh, place_batch
from bertjax.train.step import gradients

GIVEN = json.loads((Path(__file__).parents[1] / "reference" / "contrastive.json").read_text())
CONTRASTS = {
    "pairs": Contrast(),
    "warm": Contrast(temperature=0.5),
    "symmetric": Contrast(symmetric=True),
    "negatives": Contrast(),
    "matryoshka": Contrast(sizes=(8, 5, 2)),
    "cosent": Contrast(scored=True),
    "cosent warm": Contrast(scored=True, temperature=0.5),
}
MODEL = SentenceEncoder(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.0, init_scale=0.5)))
DROPPING = SentenceEncoder(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.3, init_scale=0.5)))


def of_vectors(kinds_nr: np.ndarray, scores_n: np.ndarray | None = None) -> TupleBatch:
    """A batch whose vectors are given."""
    n, none = len(kinds_nr), np.zeros((1, 1), np.int32)
    scores_n = np.zeros(n) if scores_n is None else scores_n
    fields = (kinds_nr[None].astype(np.int32), scores_n[None].astype(np.float32), np.ones((1, n), np.float32))
    return TupleBatch(none, none, none, none, none, *fields)


@pytest.mark.parametrize("name", CONTRASTS)
def test_losses_and_gradients_are_those_of_sentence_transformers(name: str) -> None:
    contrast, case, scores_n = CONTRASTS[name], GIVEN["cases"][name], np.array(GIVEN["scores"])
    vectors_nre = np.array(GIVEN["vectors"], np.float32)[:, : len(case["gradient"][0])]
    batch = of_vectors(1 + np.arange(vectors_nre[..., 0].size).reshape(len(vectors_nre), -1), scores_n)

    def loss(vectors_nre: jax.Array) -> jax.Array:
        metrics = [metrics_of_vectors(vectors_nre[..., :size], batch, contrast) for size in contrast.sizes or (None,)]
        means = [metric["contrastive_loss"].total / metric["contrastive_loss"].weight for metric in metrics]
        return sum(means[1:], start=means[0])

    value, gradient = jax.jit(jax.value_and_grad(loss))(vectors_nre)
    assert float(value) == pytest.approx(case["loss"], rel=1e-6)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-5, atol=1e-5)
    assert np.abs(case["gradient"]).max() > 0.1


def test_scores_in_order_are_counted_by_twos() -> None:
    """Where two have one score, there is no order."""
    vectors_nre = np.array([[[1, 0], [1, y]] for y in (0.5, 0.1, 2.0, 1.0)], np.float32)  # cosines fall with y
    batch = of_vectors(np.arange(1, 9).reshape(4, 2), np.array([0.5, 0.9, 0.1, 0.5]))
    right = metrics_of_vectors(vectors_nre, batch, Contrast(scored=True))["contrastive_accuracy"]
    assert (float(right.total), float(right.weight)) == (5, 5)
    batch = of_vectors(np.arange(1, 9).reshape(4, 2), np.array([0.9, 0.5, 0.1, 0.5]))
    right = metrics_of_vectors(vectors_nre, batch, Contrast(scored=True))["contrastive_accuracy"]
    assert (float(right.total), float(right.weight)) == (4, 5)


def test_equal_texts_are_no_negatives_of_each_other() -> None:
    """By loops, of a batch with every kind of repetition, and an example without its last hard negative."""
    vectors_nre = np.array(GIVEN["vectors"], np.float32)
    vectors_nre[2:, 1] += 2 * vectors_nre[2:, 0]  # some are told apart
    kinds_nr = np.array([[1, 2, 3, 4], [1, 5, 6, 7], [8, 2, 9, 1], [10, 11, 2, 0], [11, 10, 12, 13], [14, 15, 15, 14]])
    unit_nre = vectors_nre / np.linalg.norm(vectors_nre, axis=-1, keepdims=True)
    n, r = kinds_nr.shape
    there, back, right = [], [], []
    for i in range(n):
        others, anchors = [], []
        for j in range(n):
            for role in range(1, r):
                kind, same_anchor = kinds_nr[j, role], kinds_nr[j, 0] == kinds_nr[i, 0] and role == 1
                if kind not in (0, kinds_nr[i, 0], kinds_nr[i, 1]) and not same_anchor:
                    others.append(unit_nre[i, 0] @ unit_nre[j, role])
            if kinds_nr[j, 0] not in kinds_nr[i, :2] and kinds_nr[j, 1] != kinds_nr[i, 1]:
                anchors.append(unit_nre[i, 1] @ unit_nre[j, 0])
        own = unit_nre[i, 0] @ unit_nre[i, 1]
        there.append(math.log(1 + sum(math.exp(20 * (other - own)) for other in others)))
        back.append(math.log(1 + sum(math.exp(20 * (other - own)) for other in anchors)))
        right.append(own > max(others))
    losses_n, right_n = nearest_losses(vectors_nre, kinds_nr, Contrast())
    np.testing.assert_allclose(losses_n, there, rtol=1e-4, atol=1e-5)
    assert right_n.astype(bool).tolist() == right and 0 < sum(right) < n
    both_n, _ = nearest_losses(vectors_nre, kinds_nr, Contrast(symmetric=True))
    np.testing.assert_allclose(both_n, np.add(there, back) / 2, rtol=1e-4, atol=1e-5)
    # An example alone has nothing to be told from.
    (loss,), (is_right,) = nearest_losses(vectors_nre[:1, :2], kinds_nr[:1, :2], Contrast())
    assert float(loss) == 0 and float(is_right) == 1


@functools.cache
def examples() -> Tuples:
    """Ten examples of three texts, some of which lack the hard negative, and two are equal."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 13, 30)
    texts_nr = np.arange(30).reshape(10, 3)
    texts_nr[[2, 5], 2], texts_nr[7, 1] = -1, texts_nr[3, 1]
    ids = rng.integers(5, 60, lengths.sum(), np.int32)
    return Tuples(
        "made", "", ids, np.concatenate(([0], np.cumsum(lengths))), texts_nr, np.linspace(0, 1, 10, dtype="f4")
    )


@functools.cache
def packed() -> TupleBatch:
    return TupleBatches(examples(), batch_size=10, row_length=24, seed=0).batch_at(0)


@functools.cache
def params() -> dict[str, Any]:
    return drawn_params(MODEL, seed=1)


def test_packed_vectors_are_those_of_single_texts() -> None:
    made, order = examples(), TupleBatches(examples(), batch_size=10, row_length=24, seed=0).numbers_at(0)
    assert len(packed().tokens_bt) < 28
    vectors_nre = np.asarray(jax.jit(functools.partial(tuple_vectors, MODEL))(params(), packed()))
    place_bt = np.broadcast_to(np.arange(16), (30, 16))
    there_bt = place_bt < made.lengths_m[:, None]
    tokens_bt = np.zeros((30, 16), np.int32)
    tokens_bt[there_bt] = made.ids
    apply = jax.jit(MODEL.apply)
    alone_me = np.asarray(apply({"params": params()}, tokens_bt, 0 * tokens_bt, place_bt, there_bt.astype("i4")))[:, 0]
    texts_nr = made.texts_nr[order]
    np.testing.assert_allclose(vectors_nre[:10][texts_nr >= 0], alone_me[texts_nr[texts_nr >= 0]], rtol=0, atol=1e-5)
    assert (
        not vectors_nre[:10][texts_nr < 0].any()
        and not vectors_nre[10:].any()
        and np.abs(alone_me[0] - alone_me[1]).max() > 0.1
    )
    assert (packed().kinds_bqr.reshape(-1, 3)[:10] == texts_nr + 1).all()


def test_in_parts_loss_and_gradients_are_those_of_the_whole_batch() -> None:
    """GradCache: also where the parts do not divide the rows."""
    contrast = Contrast(symmetric=True, sizes=(16, 4))
    (expected, told), (found, again) = (
        jax.jit(functools.partial(gradients, objective, gradient_accumulation_steps=2))(
            params(), packed(), jax.random.key(0)
        )
        for objective in (contrastive_objective(MODEL, contrast, parts=parts) for parts in (1, 4))
    )
    for mean, its in zip(again.values(), told.values(), strict=True):
        assert float(mean.total) == pytest.approx(float(its.total), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert len(packed().tokens_bt) % 4 and float(optax.tree.norm(expected)) > 0.1


def test_in_parts_a_text_has_the_same_dropout_both_times() -> None:
    """The gradient is that of the loss that is told: of vectors made once, part by part, with the same keys."""
    objective = contrastive_objective(DROPPING, Contrast(), parts=2)
    batch, key = (
        jax.tree.map(lambda x: np.pad(x, [(0, len(x) % 2), *[(0, 0)] * (x.ndim - 1)]), packed()),
        jax.random.key(3),
    )

    def kept(params: dict[str, Any]) -> jax.Array:
        """Without `jax.checkpoint`, and by a loop in Python."""
        vectors = []
        for part, of_part in enumerate(jax.random.split(key, 2)):
            rows, rngs = [field[part::2] for field in batch[:4]], {"dropout": of_part}
            k = batch.texts_bk.shape[1]
            vectors.append(DROPPING.apply({"params": params}, *rows, num_sequences=k, train=True, rngs=rngs))
        texts_bk = np.concatenate([batch.texts_bk[part::2] for part in (0, 1)])
        there, n = texts_bk > 0, batch.weights_bq.size
        placed = jnp.zeros((n * 3, 16)).at[texts_bk[there] - 1].set(jnp.concatenate(vectors)[there])
        loss = metrics_of_vectors(placed.reshape(n, 3, 16), batch, Contrast())["contrastive_loss"]
        return loss.total / loss.weight

    value, expected = jax.jit(jax.value_and_grad(kept))(params())
    step = jax.jit(functools.partial(gradients, objective, gradient_accumulation_steps=2))
    found, metrics = step(params(), batch, key)
    assert float(metrics["contrastive_loss"].total) == pytest.approx(10 * float(value), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert abs(float(step(params(), batch, jax.random.key(4))[1]["contrastive_loss"].total) - 10 * float(value)) > 0.1


def test_on_several_devices_negatives_are_of_the_whole_batch() -> None:
    found = []
    for sizes, parts in (((1, 1, 1), 1), ((2, 1, 1), 1), ((2, 2, 1), 2)):
        mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
        model = MODEL.clone(bert=MODEL.bert.clone(mesh=mesh))
        objective = contrastive_objective(model, Contrast(symmetric=True), parts=parts)
        step = jax.jit(functools.partial(gradients, objective))
        found.append(step(params(), place_batch(packed(), mesh, parts), jax.random.key(0)))
    for gradient, metrics in found[1:]:
        for name in ("contrastive_loss", "contrastive_accuracy"):
            assert float(metrics[name].total) == pytest.approx(float(found[0][1][name].total), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, found[0][0])
