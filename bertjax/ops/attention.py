"""Attention inside each sequence of a row (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1), by several backends.

A backend is a function of (q, k, v, sequences, bias, window, dropout, key), `_xla` and `_cudnn` here. To add one, write
that function, name it in `Backend` and in `_BACKENDS`, and say in `choose_backend` where it can be had.

Letters: b rows, t tokens of a row that look, s tokens of a row that are looked at, h heads, e features of a head.
"""

import re
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from bertjax.errors import BertjaxError
from bertjax.ops.dropout import dropout as drop

Backend = Literal["xla", "cudnn"]


def attention(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    *,
    bias_bhts: Array | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    backend: Backend = "xla",
) -> Array:
    """Returns for each token the mean of the values it sees, weighted by softmax(q @ k / sqrt(e) + bias): [b, h, t, e].

    A token sees those of its own sequence, and with a window only those near it. One that sees none, which is padding,
    gets the mean of all values in its row, or of those near it.

    Args:
      sequences_bt: int32, which of the row's sequences a token belongs to, 1 or more; 0 is padding.
      bias_bhts: what is added to scores, in rows without a window, [b or 1, h, t, s]; by default nothing.
      window: tokens to either side that are seen at most; by default all.
      dropout: rate at which attention weights are dropped.
      key: a `jax.random.key` for the dropout; without it nothing is dropped.
      backend: what computes it, as `choose_backend` has it.
    """
    dropout = 0.0 if key is None else dropout
    return _BACKENDS[backend](q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, window, dropout, key)


def attention_weights(
    q_bhte: Array,
    k_bhse: Array,
    sequences_bt: Array,
    *,
    bias_bhts: Array | None = None,
    window: int | None = None,
) -> Array:
    """Returns what each value counts for in the means that `attention` makes, float32 [b, h, t, s].

    Args:
      sequences_bt: as for `attention`, and so are bias and window.
    """
    scores_bhts = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhse) * q_bhte.shape[-1] ** -0.5
    seen_b1ts = visible(sequences_bt, window)[:, None]
    # The lowest float, not -inf: a row of padding alone must average, not turn into NaN.
    scores_bhts = scores_bhts.astype(jnp.float32)
    scores_bhts = scores_bhts if bias_bhts is None else scores_bhts + bias_bhts
    scores_bhts = jnp.where(seen_b1ts, scores_bhts, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_bhts)


def choose_backend(
    asked: Literal["auto"] | Backend, *, dtype: DTypeLike, head_size: int, dropout: float = 0.0, bias: bool = False
) -> Backend:
    """Returns the backend that was asked for, or for "auto" cuDNN's where that can be had on this machine.

    Args:
      dtype: of queries, keys and values on an accelerator.
      head_size: features of a head.
      dropout: rate on attention weights; 0 where the model is not trained.
      bias: whether something is added to scores.

    Raises:
      BertjaxError: the backend that was asked for cannot be had.
    """
    if asked == "xla":
        return "xla"
    reason = _why_not_cudnn(jnp.dtype(dtype), head_size, dropout, bias)
    if asked == "cudnn" and reason:
        raise BertjaxError(f"model.attention=cudnn {reason}, or model.attention=auto")
    return "xla" if reason else "cudnn"


def visible(sequences_bt: Array, window: int | None = None) -> Array:
    """Returns bool [b, t, s]: both tokens are of the same sequence, and not further from each other than the window.

    It is symmetric in t and s. Padding sees nothing and is not seen.
    """
    seen_bts = (sequences_bt[:, :, None] == sequences_bt[:, None, :]) & (sequences_bt[:, None, :] > 0)
    if window is None:
        return seen_bts
    places_t = jnp.arange(sequences_bt.shape[1])
    return seen_bts & (jnp.abs(places_t[:, None] - places_t[None, :]) <= window)[None]


# XLA's own products, everywhere. In long rows all is computed again on the way back from queries, keys and values, so
# that nothing of [b, h, t, s] is kept (Dao et al. 2022, arXiv:2205.14135, section 3.1). In short ones that is little
# beside what else a layer keeps, and to keep it is the faster.
_COMPUTED_AGAIN_FROM = 256  # tokens a row


def _xla(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    bias_bhts: Array | None,
    window: int | None,
    dropout: float,
    key: Array | None,
) -> Array:
    t = sequences_bt.shape[1]  # a symbol in a program exported for all lengths, which is not differentiated
    compute = _recomputing if isinstance(t, int) and t >= _COMPUTED_AGAIN_FROM else _plain
    return compute(q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, window, dropout, key)


def _plain(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    bias_bhts: Array | None,
    window: int | None,
    dropout: float,
    key: Array | None,
) -> Array:
    t = sequences_bt.shape[1]
    assert bias_bhts is None or window is None, "BertConfig sees to it"
    if window is not None and isinstance(t, int) and t >= _IN_CHUNKS_FROM * max(window, _LEAST_CHUNK):
        return _in_chunks(q_bhte, k_bhse, v_bhse, sequences_bt, window, dropout, key)
    weights_bhts = attention_weights(q_bhte, k_bhse, sequences_bt, bias_bhts=bias_bhts, window=window)
    weights_bhts = drop(weights_bhts.astype(q_bhte.dtype), dropout, key)
    return jnp.einsum("bhts,bhse->bhte", weights_bhts, v_bhse)


# In a row so many times as long as a chunk, products with what lies outside the window would be most of the work.
_IN_CHUNKS_FROM, _LEAST_CHUNK = 4, 32  # times; tokens


def _in_chunks(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    window: int,
    dropout: float,
    key: Array | None,
) -> Array:
    """Attention of chunks of the row to themselves and the chunks on both sides, which hold all that is in the window.

    Beltagy et al. 2020 (arXiv:2004.05150, section 3.1) have such chunks. Letters: n chunks of c tokens, each of which
    sees s = 3c.
    """
    (b, h, t, e), c = q_bhte.shape, max(window, _LEAST_CHUNK)
    n = -(-t // c)

    def chunks(x: Array, axis: int) -> Array:
        x = jnp.pad(x, [(0, n * c - t if at == axis else 0) for at in range(x.ndim)])
        return x.reshape(*x.shape[:axis], n, c, *x.shape[axis + 1 :])

    def with_neighbours(x: Array, axis: int) -> Array:
        x = jnp.pad(x, [(1, 1) if at == axis else (0, 0) for at in range(x.ndim)])
        sides = [jax.lax.slice_in_dim(x, start, start + n, axis=axis) for start in range(3)]
        return jnp.concatenate(sides, axis + 1)

    q_bhnce = chunks(q_bhte, 2)
    k_bhnse, v_bhnse = (with_neighbours(chunks(x, 2), 2) for x in (k_bhse, v_bhse))
    sequences_bnc = chunks(sequences_bt, 1)
    sequences_bns = with_neighbours(sequences_bnc, 1)
    near_cs = jnp.abs(jnp.arange(c)[:, None] + c - jnp.arange(3 * c)[None]) <= window
    seen_bncs = (
        (sequences_bnc[..., None] == sequences_bns[:, :, None]) & (sequences_bns[:, :, None] > 0) & near_cs[None, None]
    )
    scores_bhncs = jnp.einsum("bhnce,bhnse->bhncs", q_bhnce, k_bhnse) * e**-0.5
    scores_bhncs = jnp.where(seen_bncs[:, None], scores_bhncs.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    weights_bhncs = drop(jax.nn.softmax(scores_bhncs).astype(q_bhte.dtype), dropout, key)
    mixed_bhnce = jnp.einsum("bhncs,bhnse->bhnce", weights_bhncs, v_bhnse)
    return mixed_bhnce.reshape(b, h, n * c, e)[:, :, :t]


_Inputs = tuple[Array, Array, Array, Array, Array | None, Array | None]


def _recomputing_forward(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    bias_bhts: Array | None,
    window: int | None,
    dropout: float,
    key: Array | None,
) -> tuple[Array, _Inputs]:
    mixed_bhte = _plain(q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, window, dropout, key)
    return mixed_bhte, (q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, key)


def _recomputing_backward(
    window: int | None, dropout: float, inputs: _Inputs, grad_bhte: Array
) -> tuple[Array, Array, Array, None, Array | None, None]:
    q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, key = inputs

    def mix(q_bhte: Array, k_bhse: Array, v_bhse: Array, bias_bhts: Array | None) -> Array:
        return _plain(q_bhte, k_bhse, v_bhse, sequences_bt, bias_bhts, window, dropout, key)

    # Told to wait for the gradient. XLA would else find that it has computed all this before, and keep it: on CPUs it
    # ignores the barrier that `jax.checkpoint` puts there.
    waiting_bhte = q_bhte + 0 * grad_bhte
    pull_back = jax.vjp(mix, waiting_bhte, k_bhse, v_bhse, bias_bhts)[1]
    grad_q_bhte, grad_k_bhse, grad_v_bhse, grad_bias_bhts = pull_back(grad_bhte)
    return grad_q_bhte, grad_k_bhse, grad_v_bhse, None, grad_bias_bhts, None


_recomputing = jax.custom_vjp(_plain, nondiff_argnums=(5, 6))
_recomputing.defvjp(_recomputing_forward, _recomputing_backward)


# cuDNN's fused attention, through JAX's public call.


def _cudnn(
    q_bhte: Array,
    k_bhse: Array,
    v_bhse: Array,
    sequences_bt: Array,
    bias_bhts: Array | None,
    window: int | None,
    dropout: float,
    key: Array | None,
) -> Array:
    assert dropout == 0 and bias_bhts is None, "choose_backend sees to it"
    t = sequences_bt.shape[1]
    # With a mask it wants an even number of tokens.
    q, k, v = (jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, t % 2), (0, 0), (0, 0))) for x in (q_bhte, k_bhse, v_bhse))
    seen_b1ts = visible(jnp.pad(sequences_bt, ((0, 0), (0, t % 2))), window)[:, None]
    mixed_bthe = jax.nn.dot_product_attention(q, k, v, mask=seen_b1ts, implementation="cudnn")
    return mixed_bthe[:, :t].swapaxes(1, 2)


def _why_not_cudnn(dtype: jnp.dtype, head_size: int, dropout: float, bias: bool) -> str:
    """Returns what cuDNN lacks here and what to change, or "" where it can be used."""
    device = jax.local_devices()[0]
    # Its fused attention is of compute capability 8.0 on. AMD's GPUs have names there, such as gfx942.
    if not re.fullmatch(r"([89]|\d\d)\.\d", str(getattr(device, "compute_capability", ""))):
        kind = device.device_kind
        return f"needs an NVIDIA GPU since A100, and this machine's device is {kind}; use model.attention=xla"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16, not in {dtype}; use train.precision=bfloat16"
    if head_size % 8 or head_size > 128:
        return f"wants heads of 8, 16, … 128 features, not {head_size}; change model.num_heads"
    if dropout > 0:
        return f"cannot drop attention weights, and model.dropout={dropout}; use model.dropout=0"
    if bias:
        return (
            "is not used with model.relative_attention_bias=true, nor with model.positions=disentangled; use "
            "model.attention=xla"
        )
    return ""


_Compute = Callable[[Array, Array, Array, Array, Array | None, int | None, float, Array | None], Array]
_BACKENDS: dict[Backend, _Compute] = {"xla": _xla, "cudnn": _cudnn}
