"""The step learns, equals the textbook's, and is the same on any number of devices and in any number of parts."""

import dataclasses
import functools
import math
import re
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn_params import drawn_params
from textbook import Reference, relative_error

from bertjax.config import BertConfig, OptimConfig
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert
from bertjax.objectives.objective import Objective
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import by_name, make_mesh, place_batch
from bertjax.train.optimizer import make_optimizer
from bertjax.train.state import TrainState, init_state, make_init, state_template
from bertjax.train.step import TrainStep, compile_train_step, gradients

SMALL = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=32,
    max_position=16,
    dropout=0.2,
    biases=False,
)
STILL = dataclasses.replace(SMALL, dropout=0.0)
RATE = optax.linear_schedule(1e-2, 0.0, 1000)
ADAM = optax.adam(RATE)


def random_batch(rows: int, seed: int = 0) -> Batch:
    """Rows of different lengths, with different numbers of predictions."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 13, rows)
    place_bt = np.broadcast_to(np.arange(12, dtype=np.int32), (rows, 12))
    real_bt = place_bt < lengths[:, None]
    weights_bp = np.arange(3) < rng.integers(1, 4, rows)[:, None]
    return Batch(
        tokens_bt=rng.integers(5, 50, (rows, 12), np.int32) * real_bt,
        segments_bt=(place_bt > 4).astype(np.int32) * real_bt,
        positions_bt=place_bt * real_bt,
        sequences_bt=real_bt.astype(np.int32),
        mlm_positions_bp=np.arange(1, 4, dtype=np.int32) * weights_bp,
        mlm_labels_bp=rng.integers(5, 50, (rows, 3), np.int32) * weights_bp,
        mlm_weights_bp=weights_bp.astype(np.float32),
        cls_positions_bk=np.zeros((rows, 1), np.int32),
        nsp_labels_bk=rng.integers(0, 2, (rows, 1), np.int32),
        nsp_weights_bk=np.ones((rows, 1), np.float32),
    )


@functools.cache  # many a test compares with the same
def compiled(
    model: Bert, optimizer: optax.GradientTransformation, nsp_weight: float, z_loss: float, parts: int
) -> TrainStep:
    """The step over the model's mesh."""
    assert model.mesh is not None
    objective = pretraining_objective(model, nsp_weight=nsp_weight, z_loss=z_loss)
    return compile_train_step(model.mesh, objective, optimizer, RATE, gradient_accumulation_steps=parts)


@functools.cache
def fresh(config: BertConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """The state that all meshes begin with, in numpy's arrays."""
    drawn = pretraining_objective(Bert(config))._replace(init=lambda _: drawn_params(Bert(config)))
    return jax.device_get(init_state(drawn, optimizer, 0))


def train(
    config: BertConfig,
    batches: list[Batch],
    *,
    devices: int = 1,
    mesh: tuple[int, int, int] | None = None,
    computed: Mapping[str, Any] = types.MappingProxyType({}),
    gradient_accumulation_steps: int = 1,
    seed: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    nsp_weight: float = 1.0,
    z_loss: float = 0.0,
) -> tuple[TrainState, list[dict[str, float]]]:
    sizes = mesh or (devices, 1, 1)
    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    optimizer, model = optimizer or ADAM, Bert(config, mesh=mesh, **computed)
    step = compiled(model, optimizer, nsp_weight, z_loss, gradient_accumulation_steps)
    state = fresh(dataclasses.replace(config, dropout=0.0), optimizer)
    state = jax.device_put(state, by_name(state, mesh))
    history = []
    for batch in batches:
        state, metrics = step(state, place_batch(batch, mesh), seed)
        history.append({name: float(mean.total / mean.weight) for name, mean in metrics.items()})
    return state, history


def assert_close(ours: TrainState, theirs: TrainState, tolerance: float) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(theirs.params):
        mine = ours.params
        for step in path:
            mine = mine[step.key]
        np.testing.assert_allclose(mine, leaf, rtol=tolerance, atol=tolerance, err_msg=str(path))


def test_ten_steps_of_adam_equal_the_textbooks() -> None:
    reference = Reference()
    batch = reference.batch()
    optimizer = optax.adam(0.01)
    params = jax.tree.map(jnp.asarray, reference.params)
    objective = pretraining_objective(reference.model)
    mesh = make_mesh(devices=jax.devices()[:1])
    state = init_state(objective._replace(init=lambda _: params), optimizer, 0)
    state = jax.device_put(state, by_name(state, mesh))
    step = compile_train_step(mesh, objective, optimizer, RATE)
    losses = []
    for _ in range(10):
        state, metrics = step(state, batch, 0)
        losses.append([float(metrics[name].total / metrics[name].weight) for name in ("mlm_loss", "nsp_loss")])
    theirs = reference.arrays["train/losses"]
    assert np.abs(theirs[0] - theirs[-1]).max() > 0.5  # the ten steps do change the losses
    np.testing.assert_allclose(losses, theirs, rtol=1e-4)
    trained = reference.arrays["trained/mlm/vocab/kernel"]
    assert relative_error(state.params["mlm"]["vocab"]["kernel"], trained) < 1e-3


def test_devices_change_neither_losses_nor_parameters() -> None:
    devices = 8
    batches = [random_batch(8, seed) for seed in range(5)]
    one, one_history = train(SMALL, batches)
    many, many_history = train(SMALL, batches, devices=devices)
    for ours, theirs in zip(many_history, one_history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert_close(many, one, 2e-5)
    assert len(many.params["token_embedding"].sharding.device_set) == devices


@pytest.mark.parametrize("devices", [1, 2])
def test_accumulated_parts_equal_the_whole_batch(devices: int) -> None:
    batches = [random_batch(8, seed) for seed in range(3)]
    whole, whole_history = train(STILL, batches)
    parts, parts_history = train(STILL, batches, devices=devices, gradient_accumulation_steps=4)
    for ours, theirs in zip(parts_history, whole_history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert_close(parts, whole, 1e-4)


def test_parts_with_dropout_drop_differently() -> None:
    row = random_batch(1)
    batch = jax.tree.map(lambda x: np.repeat(x, 8, axis=0), row)
    whole, parts = (train(SMALL, [batch], gradient_accumulation_steps=n)[1][0] for n in (1, 8))
    alone = train(SMALL, [row])[1][0]
    assert parts["mlm_loss"] != pytest.approx(alone["mlm_loss"], rel=1e-6)
    assert parts["mlm_loss"] == pytest.approx(whole["mlm_loss"], rel=0.2)


def test_one_batch_can_be_learnt_by_heart() -> None:
    batch = random_batch(8)
    _, history = train(STILL, [batch] * 150)
    assert history[0]["mlm_loss"] > 3
    assert history[-1]["mlm_loss"] < 0.05 and history[-1]["nsp_loss"] < 0.01
    assert history[-1]["mlm_accuracy"] == history[-1]["nsp_accuracy"] == 1


def test_equal_seeds_are_equal_bit_for_bit_and_others_are_not() -> None:
    batches = [random_batch(8)] * 2
    (one, _), (same, _), (other, _) = (train(SMALL, batches, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.params["token_embedding"] != other.params["token_embedding"]).any()


def test_dropout_is_new_in_every_step() -> None:
    _, history = train(SMALL, [random_batch(8)] * 2, optimizer=optax.sgd(0.0))
    assert history[0]["mlm_loss"] != history[1]["mlm_loss"]


def test_the_old_state_is_given_up() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    step = compiled(Bert(SMALL, mesh=mesh), ADAM, 1.0, 0.0, 1)
    state = fresh(STILL, ADAM)
    step(state := jax.device_put(state, by_name(state, mesh)), place_batch(random_batch(8), mesh), 0)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_a_batch_without_predictions_gives_finite_gradients() -> None:
    batch = random_batch(8)._replace(mlm_weights_bp=np.zeros((8, 3), np.float32))
    state, _ = train(SMALL, [batch])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_the_compiled_step_holds_no_logits_of_every_token() -> None:
    config = dataclasses.replace(SMALL, vocab_size=997)
    mesh, optimizer = make_mesh(devices=jax.devices()[:2]), optax.adam(1e-2)
    objective = pretraining_objective(Bert(config, mesh=mesh))
    state = state_template(objective, optimizer)
    step = compile_train_step(mesh, objective, optimizer, RATE)
    program = step.lower(state, random_batch(16), 0).compile().as_text()
    assert "[24,997]" in program or "[8,3,997]" in program  # a device's 8 rows of 3 predictions: the search can find
    for tokens in ("[96,997]", "[8,12,997]", "[192,997]", "[16,12,997]"):
        assert tokens not in program


def test_devices_do_not_wait_for_each_other_within_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.ops.blockwise._BLOCK_ON_CPU", 2 * SMALL.vocab_size)  # several blocks on each device
    mesh, optimizer = make_mesh(), optax.adam(1e-2)
    objective = pretraining_objective(Bert(SMALL, mesh=mesh))
    state = state_template(objective, optimizer)
    step = compile_train_step(mesh, objective, optimizer, RATE)
    program = step.lower(state, random_batch(32), 0).compile().as_text()
    bodies = set(re.findall(r"body=%?([\w.\-]+)", program))
    waiting = [part.strip() for part in re.split(r"\n(?=%|ENTRY)", program) if " all-reduce(" in part]
    assert bodies and waiting
    assert not [part[:80] for part in waiting if part.split()[0].lstrip("%") in bodies]


MESHES = {"fsdp": (1, 8, 1), "tensor": (1, 1, 4), "all": (2, 2, 2)}
WIDER = dataclasses.replace(SMALL, vocab_size=52, hidden_size=32, num_heads=4, intermediate_size=64, biases=True)


@pytest.mark.parametrize("sizes", MESHES.values(), ids=MESHES)
def test_meshes_change_neither_losses_nor_parameters(sizes: tuple[int, int, int]) -> None:
    check_mesh(WIDER, sizes)


def test_vocabulary_that_tensor_does_not_divide() -> None:
    check_mesh(dataclasses.replace(WIDER, vocab_size=51, tie_word_embeddings=False), (2, 2, 2))


def test_muon_and_weighted_losses_are_the_same_on_a_mesh() -> None:
    optimizer = make_optimizer(OptimConfig(name="muon", learning_rate=1e-3), 4)
    check_mesh(WIDER, (2, 2, 2), optimizer=optimizer, nsp_weight=0.3, z_loss=0.1)


def both_gradients(objective: Objective, params: dict, batch: Batch) -> tuple:
    """Gradients, in two parts, and metrics."""
    return jax.jit(functools.partial(gradients, objective, gradient_accumulation_steps=2))(
        params, batch, jax.random.key(1)
    )


def test_z_loss_changes_the_gradients_and_not_the_losses() -> None:
    model, batch = Bert(STILL), random_batch(8)
    params = fresh(STILL, ADAM).params

    def squares(params: dict) -> jax.Array:
        logits_bpv, _ = model.apply(
            {"params": params},
            *batch[:5],
            batch.cls_positions_bk,  # fields that the model reads come first
        )
        lse_bp = jax.nn.logsumexp(logits_bpv, axis=-1)
        return (batch.mlm_weights_bp * lse_bp**2).sum() / batch.mlm_weights_bp.sum()

    (plain, without), (penalised, within) = (
        both_gradients(pretraining_objective(model, z_loss=z), params, batch) for z in (0.0, 0.5)
    )
    assert without == within
    expected = jax.tree.map(lambda x, y: x + 0.5 * y, plain, jax.jit(jax.grad(squares))(params))
    for ours, theirs in zip(jax.tree.leaves(penalised), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_nsp_weight_scales_the_gradients_of_its_loss_and_not_the_losses() -> None:
    model, batch = Bert(STILL), random_batch(8)
    params = fresh(STILL, ADAM).params
    found = [both_gradients(pretraining_objective(model, nsp_weight=nsp), params, batch) for nsp in (0.0, 1.0, 0.3)]
    (without, told), (whole, told_too), (part, told_three) = found
    assert told == told_too == told_three
    assert not without["pooler"]["kernel"].any() and whole["pooler"]["kernel"].any()
    expected = jax.tree.map(lambda x, y: x + 0.3 * (y - x), without, whole)
    for ours, theirs in zip(jax.tree.leaves(part), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_every_way_to_compute_works_on_a_mesh() -> None:
    deeper, how = dataclasses.replace(WIDER, num_layers=2), {"remat": True, "scan_layers": True}
    check_mesh(deeper, (2, 2, 2), gradient_accumulation_steps=2, computed=how, packed=True)


def packed_batch(rows: int, seed: int) -> Batch:
    """Two sequences in each row, of 6 tokens each at least."""
    one, two = random_batch(rows, seed), random_batch(rows, seed + 100)
    second = two._replace(
        sequences_bt=2 * two.sequences_bt,
        mlm_positions_bp=np.where(two.mlm_weights_bp > 0, two.mlm_positions_bp + 12, 0),
        cls_positions_bk=two.cls_positions_bk + 12,
    )
    return Batch(*(np.concatenate(fields, axis=1) for fields in zip(one, second, strict=True)))


def check_mesh(config: BertConfig, sizes: tuple[int, int, int], *, packed: bool = False, **how: Any) -> None:
    """Four steps, dropout on: losses to 1e-5 of one device's, parameters to 1e-4, a hundredth of a step of Adam's."""
    batches = [packed_batch(16, seed) if packed else random_batch(16, seed) for seed in range(4)]
    one, one_history = train(config, batches, **how)
    many, many_history = train(config, batches, mesh=sizes, **how)
    for ours, theirs in zip(many_history, one_history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert_close(many, one, 1e-4)


def assert_equal(ours: object, theirs: object) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def weighing(batch: Batch, weight: float) -> Batch:
    """The batch with this weight on its first prediction."""
    weights_bp = batch.mlm_weights_bp.copy()
    weights_bp[0, 0] = weight
    return batch._replace(mlm_weights_bp=weights_bp)


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 4])
@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_changes_nothing(weight: float, gradient_accumulation_steps: int) -> None:
    how: Any = {"gradient_accumulation_steps": gradient_accumulation_steps}
    first, second, third = (random_batch(8, seed) for seed in range(3))
    around, _ = train(STILL, [first, third], **how)  # without dropout, which the step's number would change
    through, history = train(STILL, [first, weighing(second, weight), third], **how)
    assert not np.isfinite(history[1]["mlm_loss"] + history[1]["gradient_norm"])
    assert_equal(through[1:3], around[1:3])  # parameters and optimiser state
    assert (int(through.step), int(through.health.skipped_steps)) == (3, 1)
    assert_equal(through.health.recent_loss, around.health.recent_loss)
    # The rate that is told is the optimiser's own, which has not counted the step.
    np.testing.assert_allclose([line["learning_rate"] for line in history], [RATE(0), RATE(1), RATE(1)], rtol=1e-6)


def test_gradients_alone_can_be_too_large() -> None:
    """Huge weights that cancel out leave a finite loss, and gradients whose squares are not."""
    batch = random_batch(8)
    batch.mlm_weights_bp[:2, 0] = 1e25, -1e25
    state, (line,) = train(STILL, [batch])
    assert np.isfinite(line["mlm_loss"]) and np.isinf(line["gradient_norm"])
    assert_equal(state.params, fresh(STILL, ADAM).params)


def test_skipped_steps_are_counted_and_losses_compared_with_the_recent() -> None:
    good = random_batch(8)
    bad = weighing(good, np.nan)
    state, history = train(SMALL, [good, good, bad, bad, good, bad])
    assert [line["skipped_steps"] for line in history] == [0, 0, 1, 2, 2, 3]
    assert [line["skipped_in_a_row"] for line in history] == [0, 0, 1, 2, 0, 1]
    losses = [line["mlm_loss"] + line["nsp_loss"] for line in history]
    assert history[0]["loss_rise"] == 1
    assert history[1]["loss_rise"] == pytest.approx(losses[1] / losses[0], rel=1e-5)
    recent = (0.98 * losses[0] + losses[1]) / 1.98
    assert history[4]["loss_rise"] == pytest.approx(losses[4] / recent, rel=1e-5)
    recent = (0.98**2 * losses[0] + 0.98 * losses[1] + losses[4]) / (0.98**2 + 1.98)
    assert float(state.health.recent_loss.total / state.health.recent_loss.weight) == pytest.approx(recent, rel=1e-5)


def test_a_step_without_anything_to_learn_says_nothing_of_the_recent_loss() -> None:
    """Its loss of 0 would halve the mean, so that the next one looked like a spike."""
    good = random_batch(8)
    empty = good._replace(mlm_weights_bp=0 * good.mlm_weights_bp, nsp_weights_bk=0 * good.nsp_weights_bk)
    state, history = train(SMALL, [empty, good, empty, good])
    assert [line["loss_rise"] for line in history[:3]] == [1, 1, 1]
    losses = [history[number]["mlm_loss"] + history[number]["nsp_loss"] for number in (1, 3)]
    assert history[3]["loss_rise"] == pytest.approx(losses[1] / losses[0], rel=1e-5)
    assert state.health.recent_loss.weight == pytest.approx(1.98) and state.health.skipped_steps == 0


def test_without_pairs_nothing_of_their_head_is_learnt() -> None:
    """The gradients are 0, and so is what the loss counts."""
    batch = random_batch(8)._replace(nsp_weights_bk=np.zeros((8, 1), np.float32))
    params = fresh(STILL, ADAM).params
    grads, metrics = both_gradients(pretraining_objective(Bert(SMALL)), params, batch)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        of_pairs = path[0].key in ("pooler", "nsp")
        assert (np.asarray(leaf) == 0).all() == of_pairs, jax.tree_util.keystr(path)
    assert metrics["nsp_loss"] == (0, 0) and metrics["mlm_loss"].weight > 0


def test_the_average_of_the_weights_equals_the_closed_form() -> None:
    """Steps that are not finite count for nothing."""
    mesh, optimizer = make_mesh(2, 2, 2), optax.adam(1e-2)
    objective = pretraining_objective(Bert(WIDER, mesh=mesh))
    step = compile_train_step(mesh, objective, optimizer, RATE, ema_decay=0.7)
    state = make_init(mesh, objective, optimizer, averaging=True)(0)
    params = []
    for number in (0, 1, 2, 3):
        batch = random_batch(16, number)
        state, _ = step(state, place_batch(weighing(batch, np.nan) if number == 2 else batch, mesh), 0)
        params.append(jax.device_get(state.params))
        if number == 0:
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), state.average, params[0])
    weights = np.array([0.7**2, 0.7, 1.0])
    for average, first, second, _, fourth in zip(*map(jax.tree.leaves, (state.average, *params)), strict=True):
        expected = np.average([first, second, fourth], axis=0, weights=weights)
        np.testing.assert_allclose(average, expected, atol=1e-6)
    assert state.eval_params is state.average
    assert jax.tree.map(lambda leaf: leaf.sharding, state.average) == by_name(state.params, mesh)


def test_without_an_average_there_is_none() -> None:
    state, _ = train(SMALL, [random_batch(8)])
    assert state.average is None and state.eval_params is state.params
