"""Block by block, the loss and every gradient are those of the plain definition over all logits at once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.objectives.metrics import correct, cross_entropy
from bertjax.ops.blockwise import blockwise_cross_entropy
from bertjax.parallel.sharding import make_mesh

M, D, V = 36, 24, 501


@pytest.fixture(scope="module")
def head() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    hidden_md, kernel_dv, bias_v = rng.normal(size=(M, D)), rng.normal(size=(D, V)), rng.normal(size=V)
    labels_m = rng.integers(0, V, M)
    labels_m[::3] = (hidden_md @ kernel_dv + bias_v)[::3].argmax(-1)  # some are hit
    return {
        "hidden_md": jnp.array(hidden_md, jnp.float32),
        "kernel_dv": jnp.array(kernel_dv, jnp.float32),
        "bias_v": jnp.array(bias_v, jnp.float32),
        "labels_m": jnp.array(labels_m),
        "weights_m": jnp.array(rng.integers(0, 2, M), jnp.float32),
    }


def plain(hidden_md: jax.Array, kernel_dv: jax.Array, bias_v: jax.Array, head: dict) -> tuple[jax.Array, jax.Array]:
    logits_mv = hidden_md @ kernel_dv + bias_v[None]
    loss_m, hit_m = cross_entropy(logits_mv, head["labels_m"]), correct(logits_mv, head["labels_m"])
    return (loss_m * head["weights_m"]).sum() / 3, (hit_m * head["weights_m"]).sum()


def loss_and_gradients(head: dict, **how) -> tuple:  # type: ignore[no-untyped-def]
    def blockwise(hidden_md: jax.Array, kernel_dv: jax.Array, bias_v: jax.Array) -> tuple[jax.Array, jax.Array]:
        rest = (head["labels_m"], head["weights_m"])
        loss, correct = blockwise_cross_entropy(hidden_md, kernel_dv, bias_v, *rest, **how)
        return loss / 3, correct  # a cotangent other than 1

    function = blockwise if how else lambda *args: plain(*args, head)
    arguments = (head["hidden_md"], head["kernel_dv"], head["bias_v"])
    return jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))(*arguments)


# Rows alone; words too; words that cannot be shared out evenly, so that each device has them all.
MESHES = {"one device": (1, 1, 1), "rows": (2, 2, 1), "words": (1, 1, 3), "both": (1, 2, 3), "odd": (1, 2, 2)}


@pytest.mark.parametrize("sizes", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("block_rows", [1, 5, 100])
def test_loss_and_gradients_equal_the_plain_path(head: dict, block_rows: int, sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    (loss, correct), gradients = loss_and_gradients(head, block_rows=block_rows, mesh=mesh)
    (plain_loss, plain_correct), plain_gradients = loss_and_gradients(head)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    assert correct == plain_correct > 0
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", MESHES.values(), ids=MESHES)
def test_z_loss_adds_its_gradient_and_nothing_to_the_loss(head: dict, sizes: tuple[int, int, int]) -> None:
    def with_z(hidden_md: jax.Array, kernel_dv: jax.Array, bias_v: jax.Array) -> jax.Array:
        lse_m = jax.nn.logsumexp(hidden_md @ kernel_dv + bias_v[None], axis=-1)
        return plain(hidden_md, kernel_dv, bias_v, head)[0] + 0.1 * (lse_m**2 * head["weights_m"]).sum() / 3

    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    (loss, _), gradients = loss_and_gradients(head, block_rows=5, mesh=mesh, z_loss=0.1)
    (plain_loss, _), _ = loss_and_gradients(head)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    expected = jax.grad(with_z, (0, 1, 2))(head["hidden_md"], head["kernel_dv"], head["bias_v"])
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_without_gradients_the_figures_are_the_same(head: dict) -> None:
    loss, correct = jax.jit(lambda: blockwise_cross_entropy(**head, block_rows=5))()
    (with_gradients, same_correct), _ = loss_and_gradients(head, block_rows=5)
    np.testing.assert_allclose(loss / 3, with_gradients, rtol=1e-6)
    assert correct == same_correct


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 1), (1, 2, 3)])
def test_predictions_of_weight_0_are_not_computed(head: dict, sizes: tuple[int, int, int]) -> None:
    """Where they are on the way, they turn every figure into NaN."""
    few = np.zeros(M, np.float32)
    few[[3, 12, 22, 33]] = 1
    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    poisoned = head | {
        "hidden_md": jnp.where(jnp.array(few)[:, None] > 0, head["hidden_md"], jnp.nan),
        "weights_m": jnp.array(few),
    }
    (loss, _), (grad_hidden_md, *others) = loss_and_gradients(poisoned, block_rows=1, mesh=mesh)
    (plain_loss, _), (_, *plain_others) = loss_and_gradients(head | {"weights_m": jnp.array(few)})
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    for ours, theirs in zip(others, plain_others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (np.asarray(grad_hidden_md)[few == 0] == 0).all()


def test_no_prediction_at_all(head: dict) -> None:
    (loss, correct), gradients = loss_and_gradients(head | {"weights_m": jnp.zeros(M)}, block_rows=5)
    assert loss == correct == 0 and all((gradient == 0).all() for gradient in gradients)


def test_bfloat16_products_come_close(head: dict) -> None:
    (loss, _), gradients = loss_and_gradients(head, block_rows=8, dtype=jnp.bfloat16)
    (plain_loss, _), plain_gradients = loss_and_gradients(head)
    assert loss != plain_loss
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-2)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert ours.dtype == jnp.float32
        assert np.linalg.norm(ours - theirs) < 0.03 * np.linalg.norm(theirs)


def test_large_logits_neither_overflow_nor_vanish(head: dict) -> None:
    large = head | {"hidden_md": head["hidden_md"] * 1000}
    (loss, _), gradients = loss_and_gradients(large, block_rows=8)
    (plain_loss, _), _ = loss_and_gradients(large)
    assert np.isfinite(loss) and all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-5)


def test_no_more_than_a_block_of_logits_is_ever_held(head: dict) -> None:
    def program(block_rows: int) -> str:
        def total(hidden_md: jax.Array) -> jax.Array:
            return blockwise_cross_entropy(hidden_md, *list(head.values())[1:], block_rows=block_rows)[0]

        return jax.jit(jax.grad(total)).lower(head["hidden_md"]).compile().as_text()

    assert f"[{M},{V}]" in program(M)  # what is looked for can be found
    assert f"[{M},{V}]" not in program(8) and f"[40,{V}]" not in program(8)
