"""Losses of a student and its teacher: numpy's of both models' outputs, in parts, in blocks and over devices too."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert
from bertjax.objectives.distillation import PROJECTION, Teaching, distillation_objective, hidden_losses, paired_layers
from bertjax.objectives.objective import Objective
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import make_mesh, place_batch, place_params
from bertjax.train.step import gradients

STUDENT = BertConfig(48, 8, 1, 2, 16, 12, init_scale=0.5, dropout=0.0, biases=False)
TEACHER = BertConfig(
    50, 16, 2, 2, 16, 12, init_scale=0.5, biases=False
)  # its table has two rows more than there are words
TEACHING = Teaching(2.0, 5.0, 3.0, temperature=1.5, layers=((0, 0), (0, 1)))


def batch() -> Batch:
    """Rows of two sequences and padding, with different numbers of predictions."""
    rng, weights_bp = np.random.default_rng(0), np.float32([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
    sequences_bt = np.int32([[1] * 5 + [2] * 5 + [0] * 2, [1] * 3 + [2] * 3 + [0] * 6] * 2)
    positions_bt = np.int32([[*range(5), *range(5), 0, 0], [*range(3), *range(3), *[0] * 6]] * 2)
    return Batch(
        tokens_bt=rng.integers(5, 48, (4, 12), np.int32) * (sequences_bt > 0),
        segments_bt=positions_bt // 3,
        positions_bt=positions_bt,
        sequences_bt=sequences_bt,
        mlm_positions_bp=np.tile(np.int32([1, 3, 5]), (4, 1)),
        mlm_labels_bp=rng.integers(5, 48, (4, 3), np.int32),
        mlm_weights_bp=weights_bp,
        cls_positions_bk=np.int32([[0, 5], [0, 3]] * 2),
        nsp_labels_bk=rng.integers(0, 2, (4, 2), np.int32),
        nsp_weights_bk=np.ones((4, 2), np.float32),
    )


def both(**how: Any) -> tuple[Bert, Bert]:
    return Bert(STUDENT, **how), Bert(TEACHER, **how)


def params_of(student: Bert, teacher: Bert) -> tuple[dict, dict]:
    kernel_de = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
    return drawn_params(student) | {PROJECTION: {"kernel": kernel_de}}, drawn_params(teacher, 2)


def objective_of(student: Bert, teacher: Bert, params: dict, teaching: Teaching = TEACHING) -> Objective:
    return distillation_objective(pretraining_objective(student), student, teacher, params, teaching)


def outputs(config: BertConfig, params: dict) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [b, p, v], and what models of the first 1, 2, ... layers encode [b, t, d], float64."""
    inputs, models = (
        batch(),
        [Bert(dataclasses.replace(config, num_layers=1 + layer)) for layer in range(config.num_layers)],
    )

    @jax.jit
    def apply(params: dict) -> Any:
        states = [model.apply({"params": params}, *inputs[:4], method="encode") for model in models]
        return models[-1].apply({"params": params}, *inputs[:5], inputs.cls_positions_bk)[0], states

    logits_bpv, states = apply(params)
    return np.float64(logits_bpv), [np.float64(state_btd) for state_btd in states]


def shares(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def measured(sizes: tuple[int, int, int] | None = None, parts: int = 1) -> tuple[Any, Any]:
    """Gradients and metrics of one step, over a mesh of these sizes."""
    mesh = None if sizes is None else make_mesh(*sizes, devices=jax.devices()[:4])
    student, teacher = both(mesh=mesh)
    trees = jax.device_get(params_of(*both()))

    def step(params: Any, teachers: Any, rows: Any) -> Any:
        objective = objective_of(student, teacher, teachers)
        return gradients(objective.holding(teachers), params, rows, jax.random.key(0), parts)

    if mesh is None:
        return jax.device_get(jax.jit(step)(*trees, batch()))
    return jax.device_get(jax.jit(step)(*(place_params(tree, mesh) for tree in trees), place_batch(batch(), mesh)))


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    return measured()


def test_losses_are_numpys(plain: tuple[Any, Any]) -> None:
    student, teacher = both()
    params, teachers = params_of(student, teacher)
    (ours_bpv, ours), (theirs_bpv, theirs) = outputs(STUDENT, params), outputs(TEACHER, teachers)
    p, q = shares(theirs_bpv[..., :48] / 1.5), shares(ours_bpv / 1.5)
    weights_bp, there_bt = batch().mlm_weights_bp, batch().sequences_bt > 0
    a = ours[0] @ np.float64(params[PROJECTION]["kernel"])
    cosines = [(a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1) for b in theirs]
    wanted = {
        "logits_loss": (1.5**2 * (p * np.log(p / q)).sum(-1) * weights_bp).sum() / weights_bp.sum(),
        "hidden_loss": np.mean([(1 - cosine_bt)[there_bt].mean() for cosine_bt in cosines]),
    }
    _, metrics = plain
    found = {name: metrics[name].total / metrics[name].weight for name in wanted}
    assert found == pytest.approx(wanted, rel=1e-5)
    assert metrics["logits_loss"].weight == 8 and metrics["hidden_loss"].weight == 2 * there_bt.sum()
    of_labels_bp = np.take_along_axis(shares(ours_bpv), batch().mlm_labels_bp[..., None], -1)[..., 0]
    assert metrics["mlm_loss"].total == pytest.approx(-(np.log(of_labels_bp) * weights_bp).sum(), rel=1e-5)


def test_states_of_one_size_need_no_projection_and_may_be_compared_by_their_squares() -> None:
    student, teacher = Bert(dataclasses.replace(STUDENT, hidden_size=16)), Bert(TEACHER)
    objective = objective_of(student, teacher, {}, Teaching(logits_weight=0.0, layers=paired_layers(1, 2)))
    assert PROJECTION not in jax.eval_shape(objective.init, jax.random.key(0)) and "logits" not in objective.heads
    a_nd, b_nd = np.random.default_rng(0).normal(size=(2, 5, 3))
    losses_n = hidden_losses(jax.numpy.asarray(a_nd), jax.numpy.asarray(b_nd), None, "mse")
    np.testing.assert_allclose(losses_n, np.square(a_nd - b_nd).mean(-1), rtol=1e-6)


def test_gradients_are_the_same_in_parts_in_blocks_and_over_devices(
    plain: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertjax.ops.blockwise_kl.logits_at_once", lambda: 50)
    (found, metrics), (wanted, wanted_metrics) = measured((1, 2, 2), parts=2), plain
    for name in ("logits_loss", "hidden_loss", "mlm_loss"):
        np.testing.assert_allclose(metrics[name], wanted_metrics[name], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4), found, wanted)
    assert np.abs(wanted[PROJECTION]["kernel"]).max() > 1e-3


def test_layers_are_compared_with_those_as_far_up() -> None:
    assert paired_layers(4, 12, (0, 1, 2, 3)) == ((0, 2), (1, 5), (2, 8), (3, 11))  # TinyBERT's
    assert paired_layers(6, 12) == ((5, 11),)
    assert paired_layers(3, 4, (0, 1, 2)) == ((0, 1), (1, 2), (2, 3))
    assert paired_layers(4, 2, (0, 3)) == ((0, 0), (3, 1))
