"""Attention beside one whose mask and sums are made in loops: windows, packed rows, gradients, each backend."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.errors import BertjaxError
from bertjax.ops.attention import Backend, attention, choose_backend
from bertjax.ops.dropout import hashed_bits

B, H, T, E = 2, 3, 10, 8
KEY = jax.random.key(5)
# Two sequences and padding; one sequence that fills its row.
SEQUENCES_BT = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0], [1] * 10], np.int32)
HAS_GPU = choose_backend("auto", dtype="bfloat16", head_size=64) == "cudnn"
BACKENDS = [
    "xla",
    pytest.param("cudnn", marks=pytest.mark.skipif(not HAS_GPU, reason="cuDNN needs an NVIDIA GPU")),
]
WINDOWS = [None, 0, 1, 3, 100]


@pytest.fixture
def cudnn_on_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cuDNN is asked, answered by JAX's own implementation."""
    ours = jax.nn.dot_product_attention

    def answer(*args: jax.Array, implementation: str, **options: Any) -> jax.Array:
        assert implementation == "cudnn" and args[0].shape[1] % 2 == 0
        return ours(*args, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)


def inputs(t: int = T, dtype: Any = jnp.float32) -> tuple[jax.Array, ...]:
    q_bhte, k_bhse, v_bhse, g_bhte = jax.random.normal(KEY, (4, B, H, t, E))
    return tuple(x.astype(dtype) for x in (3 * q_bhte, k_bhse, v_bhse, g_bhte))


@pytest.fixture(params=["kept", "computed again"])
def way_back(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways that XLA's backend has for its weights on the way back, whatever the length."""
    monkeypatch.setattr("bertjax.ops.attention._COMPUTED_AGAIN_FROM", 1 if request.param == "computed again" else 1000)


def sees(sequences_t: np.ndarray, i: int, j: int, window: int | None) -> bool:
    together = sequences_t[i] == sequences_t[j] and sequences_t[i] != 0
    return bool(together and (window is None or abs(i - j) <= window))


def expected(
    q_bhte: np.ndarray,
    k_bhse: np.ndarray,
    v_bhse: np.ndarray,
    sequences_bt: np.ndarray,
    window: int | None,
    factor_bhts: np.ndarray | None = None,
) -> np.ndarray:
    """Token by token, in float64.

    Args:
      factor_bhts: what dropout multiplies weights by.
    """
    mixed_bhte = np.zeros(q_bhte.shape)
    for b, h, i in np.ndindex(*q_bhte.shape[:3]):
        seen = [j for j in range(k_bhse.shape[2]) if sees(sequences_bt[b], i, j, window)]
        everywhere = seen or range(k_bhse.shape[2])  # a token of padding averages
        scores = np.array([q_bhte[b, h, i] @ k_bhse[b, h, j] / E**0.5 if seen else 0.0 for j in everywhere])
        weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        for weight, j in zip(weights, everywhere, strict=True):
            mixed_bhte[b, h, i] += weight * v_bhse[b, h, j] * (1 if factor_bhts is None else factor_bhts[b, h, i, j])
    return mixed_bhte


def plain(
    q_bhte: jax.Array, k_bhse: jax.Array, v_bhse: jax.Array, window: int | None, factor_bhts: Any = 1.0
) -> jax.Array:
    """The definition, which JAX derives, with a mask made in loops."""
    seen_bts = np.array(
        [[[sees(row, i, j, window) for j in range(row.size)] for i in range(row.size)] for row in SEQUENCES_BT]
    )
    scores_bhts = jnp.where(seen_bts[:, None], q_bhte @ k_bhse.swapaxes(2, 3) / E**0.5, -1e30)
    return (jax.nn.softmax(scores_bhts) * factor_bhts) @ v_bhse


def with_gradients(function: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    @jax.jit  # one program in place of one for each operation
    def both_ways(q_bhte: jax.Array, k_bhse: jax.Array, v_bhse: jax.Array, g_bhte: jax.Array) -> tuple[jax.Array, ...]:
        mixed_bhte, pull_back = jax.vjp(function, q_bhte, k_bhse, v_bhse)
        return mixed_bhte, *pull_back(g_bhte)

    return both_ways(*(arrays or inputs()))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_token_sees_its_sequence_inside_the_window(window: int | None) -> None:
    q, k, v, _ = inputs()
    wanted = expected(*(np.asarray(x, np.float64) for x in (q, k, v)), SEQUENCES_BT, window)
    np.testing.assert_allclose(attention(q, k, v, SEQUENCES_BT, window=window), wanted, atol=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
def test_gradients_are_those_of_the_definition(way_back: None, window: int | None) -> None:
    def ours(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, SEQUENCES_BT, window=window)

    for one, other in zip(with_gradients(ours), with_gradients(lambda *args: plain(*args, window)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
        assert np.abs(other).max() > 0.1 or window == 0  # where a token sees itself alone its score is nothing to it


def test_a_bias_is_added_to_scores(way_back: None) -> None:
    """To those of tokens that are seen, with the gradient of the definition."""
    q, k, v, g = inputs()
    bias_hts = jax.random.normal(jax.random.key(1), (H, T, T))

    def ours(bias_hts: jax.Array) -> jax.Array:
        return (attention(q, k, v, SEQUENCES_BT, bias_bhts=bias_hts[None]) * g).sum()

    def defined(bias_hts: jax.Array) -> jax.Array:
        seen_bts = (SEQUENCES_BT[:, :, None] == SEQUENCES_BT[:, None]) & (SEQUENCES_BT[:, None] > 0)
        scores_bhts = q @ k.swapaxes(2, 3) / E**0.5 + bias_hts[None]
        return (jax.nn.softmax(jnp.where(seen_bts[:, None], scores_bhts, -1e30)) @ v * g).sum()

    for one, other in zip(*(jax.jit(jax.value_and_grad(of))(bias_hts) for of in (ours, defined)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)
        assert np.abs(other).max() > 0.1


@pytest.mark.parametrize("window", [1, 4])
def test_chunks_of_a_long_row_see_what_the_window_holds(
    way_back: None, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Beside the whole mask: in a row that no chunk divides, of sequences that chunks cut."""
    q, k, v, g = inputs(23)
    sequences_bt = np.array([[1] * 9 + [2] * 4 + [3] * 8 + [0] * 2, [1] * 23], np.int32)
    real_bt = sequences_bt > 0

    def mixed(least: int) -> tuple[Any, ...]:
        monkeypatch.setattr("bertjax.ops.attention._LEAST_CHUNK", least)

        def ours(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return attention(q, k, v, sequences_bt, window=window) * real_bt[:, None, :, None]

        return with_gradients(ours, q, k, v, g)

    for one, other in zip(mixed(1), mixed(100), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_dropout_drops_what_its_hash_says_forward_and_back(way_back: None) -> None:
    rate = 0.3
    factor_bhts = (np.asarray(hashed_bits(KEY, (B, H, T, T))) >= np.uint32(round(rate * 2**32))) / (1 - rate)

    def ours(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, SEQUENCES_BT, window=3, dropout=rate, key=KEY)

    found, wanted = with_gradients(ours), with_gradients(lambda *args: plain(*args, 3, factor_bhts.astype(np.float32)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    q, k, v, _ = inputs()
    np.testing.assert_allclose(
        found[0], expected(*(np.asarray(x) for x in (q, k, v)), SEQUENCES_BT, 3, factor_bhts), atol=1e-5
    )
    np.testing.assert_array_equal(
        attention(q, k, v, SEQUENCES_BT, dropout=rate), attention(q, k, v, SEQUENCES_BT)
    )  # no key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [None, 2])
def test_neighbours_and_padding_are_nothing_to_a_sequence(way_back: None, backend: Backend, window: int | None) -> None:
    check_leaks(backend, window, jnp.float32 if backend == "xla" else jnp.bfloat16)


@pytest.mark.parametrize("window", [None, 2])
def test_what_cudnn_is_asked_leaks_nothing(cudnn_on_xla: None, window: int | None) -> None:
    check_leaks("cudnn", window, jnp.float32)


def check_leaks(backend: Backend, window: int | None, dtype: Any) -> None:
    q, k, v, _ = inputs(dtype=dtype)
    other = np.asarray(SEQUENCES_BT != 1)[:, None, :, None]  # all but the first sequence of each row

    def first(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.where(other, 0, attention(q, k, v, SEQUENCES_BT, window=window, backend=backend))

    def squares(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed = first(*arrays)
        return (mixed.astype(jnp.float32) ** 2).sum(), mixed

    both_ways = jax.jit(jax.grad(squares, (0, 1, 2), has_aux=True))
    gradients, mixed = both_ways(q, k, v)
    np.testing.assert_array_equal(mixed, both_ways(*(jnp.where(other, 7 * x + 1, x) for x in (q, k, v)))[1])
    for gradient in gradients:
        assert (np.asarray(gradient, np.float32)[np.broadcast_to(other, gradient.shape)] == 0).all()
        assert np.asarray(gradient, np.float32).any()


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("t", [T, T - 1])
def test_what_cudnn_is_asked_is_the_same_function(cudnn_on_xla: None, window: int | None, t: int) -> None:
    real = (SEQUENCES_BT[:, :t] > 0)[:, None, :, None]  # padding averages one token more where t is odd

    def mixed(backend: Backend) -> tuple[jax.Array, ...]:
        def of_real(*qkv: jax.Array) -> jax.Array:
            return jnp.where(real, attention(*qkv, SEQUENCES_BT[:, :t], window=window, backend=backend), 0)

        return with_gradients(of_real, *inputs(t))

    for one, other in zip(mixed("xla"), mixed("cudnn"), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.skipif(not HAS_GPU, reason="cuDNN needs an NVIDIA GPU")
@pytest.mark.parametrize("window", [None, 2])
def test_cudnn_comes_close_to_the_plain_one(window: int | None) -> None:
    *qkv, g_bhte = inputs(dtype=jnp.bfloat16)
    results = []
    for backend in ("xla", "cudnn"):
        mixed_bhte, pull_back = jax.vjp(
            lambda *args, backend=backend: attention(*args, SEQUENCES_BT, window=window, backend=backend), *qkv
        )
        results.append((mixed_bhte, *pull_back(g_bhte)))
    for one, other in zip(*results, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        assert np.linalg.norm(one - other) < 0.03 * np.linalg.norm(other)


# Which backend.

BF16 = {"dtype": "bfloat16", "head_size": 64, "dropout": 0.0}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", compute_capability="9.0")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])


def test_auto_is_cudnn_where_it_can_be_had(gpu: None) -> None:
    assert choose_backend("auto", **BF16) == choose_backend("cudnn", **BF16) == "cudnn"
    assert choose_backend("xla", **BF16) == "xla"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float32"}, "not in float32; use train.precision=bfloat16"),
        ({"head_size": 20}, "not 20; change model.num_heads"),
        ({"head_size": 192}, "not 192; change model.num_heads"),
        ({"dropout": 0.1}, "model.dropout=0.1; use model.dropout=0"),
        ({"bias": True}, "model.positions=disentangled; use model.attention=xla"),
    ],
)
def test_cudnn_has_rules(gpu: None, change: dict[str, Any], reason: str) -> None:
    assert choose_backend("auto", **BF16 | change) == "xla"
    with pytest.raises(BertjaxError, match=rf"model.attention=cudnn .*{reason}, or model.attention=auto"):
        choose_backend("cudnn", **BF16 | change)


@pytest.mark.parametrize(
    "device", [("cpu", "cpu", None), ("gpu", "AMD Instinct MI300X", "gfx942"), ("gpu", "Tesla T4", "7.5")]
)
def test_cudnn_needs_an_nvidia_gpu(monkeypatch: pytest.MonkeyPatch, device: tuple[str, str, str | None]) -> None:
    found = SimpleNamespace(platform=device[0], device_kind=device[1], compute_capability=device[2])
    monkeypatch.setattr(jax, "local_devices", lambda: [found])
    assert choose_backend("auto", **BF16) == "xla"
    with pytest.raises(BertjaxError, match=f"needs an NVIDIA GPU since A100, and this machine's device is {device[1]}"):
        choose_backend("cudnn", **BF16)


# What is kept for the way back.


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_nothing_of_tokens_by_tokens_is_kept_for_the_way_back(dropout: float) -> None:
    def shapes_kept(t: int) -> list[tuple[int, ...]]:
        def mix(x_bhte: jax.Array) -> jax.Array:
            sequences_bt = jnp.ones((B, t), jnp.int32)
            return attention(x_bhte, x_bhte, x_bhte, sequences_bt, dropout=dropout, key=KEY)

        pull_back = jax.eval_shape(lambda x_bhte: jax.vjp(mix, x_bhte)[1], inputs(t)[0])
        return [leaf.shape for leaf in jax.tree.leaves(pull_back)]

    assert (B, H, 256, E) in shapes_kept(256) and (B, H, 256, 256) not in shapes_kept(256)
    assert (B, H, 96, 96) in shapes_kept(96)  # short rows: to keep them is cheaper


def test_the_compiler_does_not_keep_it_either() -> None:
    b, h, t, e = 2, 2, 256, 8

    def temporary(layers: int) -> int:
        def loss(x_bhte: jax.Array) -> jax.Array:
            for layer in range(layers):
                key = jax.random.fold_in(KEY, layer)
                x_bhte = attention(x_bhte, x_bhte, x_bhte, jnp.ones((b, t), jnp.int32), dropout=0.1, key=key)
            return (x_bhte**2).sum()

        program = jax.jit(jax.grad(loss)).lower(jax.ShapeDtypeStruct((b, h, t, e), jnp.float32)).compile()
        return program.memory_analysis().temp_size_in_bytes

    of_weights = 4 * b * h * t * t
    assert temporary(6) - temporary(2) < of_weights  # four more layers; what JAX derives keeps eight times this
