"""BERT (Devlin et al. 2019, arXiv:1810.04805): embeddings, encoder, pooler, MLM and NSP heads.

Letters: b rows, t and s tokens of a row, n = b*t, p predictions of a row, k sequences of a row, h heads, e features
of a head, d hidden, v vocabulary. Linear layers take [n, d] rather than [b, t, d]: XLA multiplies two-dimensional
arrays several times faster on CPUs.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers

from bertjax.config import BertConfig

ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
}


class Linear(nn.Module):
    """x @ kernel + bias on [n, features in] -> [n, features]."""

    features: int
    init: str

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        kernel_shape = (x_nd.shape[-1], self.features)
        kernel_init, bias_init = linear_initializers(self.init, fan_in=x_nd.shape[-1])
        kernel = self.param("kernel", kernel_init, kernel_shape)
        bias = self.param("bias", bias_init, (self.features,))
        return x_nd @ kernel + bias[None]


def linear_initializers(init: str, fan_in: int) -> tuple[Callable, Callable]:
    """For kernel and bias: BERT's, or `torch.nn.Linear`'s, uniform within 1/sqrt(fan_in) of 0."""
    if init == "bert":
        return initializers.truncated_normal(0.02), initializers.zeros
    bound = fan_in**-0.5

    def uniform(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform


class Attention(nn.Module):
    """Multi-head self-attention inside each sequence of a row (Vaswani et al. 2017, section 3.2.2)."""

    num_heads: int
    dropout: float
    init: str

    @nn.compact
    def __call__(self, x_nd: Array, sequences_bt: Array, *, train: bool) -> Array:
        (n, d), (b, t) = x_nd.shape, sequences_bt.shape
        linear = functools.partial(Linear, d, self.init)

        def heads(y_nd: Array) -> Array:
            return y_nd.reshape(b, t, self.num_heads, d // self.num_heads).swapaxes(1, 2)

        q_bhte, k_bhse, v_bhse = (heads(linear(name=name)(x_nd)) for name in ("query", "key", "value"))
        scores_bhts = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhse) * (d // self.num_heads) ** -0.5
        allowed_b1ts = attention_mask(sequences_bt)[:, None]
        # The lowest float, not -inf: a row of padding alone must average, not turn into NaN.
        scores_bhts = jnp.where(allowed_b1ts, scores_bhts, jnp.finfo(jnp.float32).min)
        weights_bhts = jax.nn.softmax(scores_bhts.astype(jnp.float32)).astype(x_nd.dtype)
        weights_bhts = nn.Dropout(self.dropout, deterministic=not train)(weights_bhts)
        mixed_bhte = jnp.einsum("bhts,bhse->bhte", weights_bhts, v_bhse)
        return linear(name="out")(mixed_bhte.swapaxes(1, 2).reshape(n, d))


def attention_mask(sequences_bt: Array) -> Array:
    """bool [b, t, s]: token t sees token s when both are in the same sequence, and s is not padding (0)."""
    return (sequences_bt[:, :, None] == sequences_bt[:, None, :]) & (sequences_bt[:, None, :] > 0)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    intermediate_size: int
    hidden_act: str
    init: str

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        inner_nf = ACTIVATIONS[self.hidden_act](Linear(self.intermediate_size, self.init, name="in")(x_nd))
        return Linear(x_nd.shape[-1], self.init, name="out")(inner_nf)


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward, each with dropout, residual and layer norm after it."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_nd: Array, sequences_bt: Array, *, train: bool) -> Array:
        c = self.config
        dropout = nn.Dropout(c.dropout, deterministic=not train)
        attention = Attention(c.num_heads, c.dropout, c.init, name="attention")
        feed_forward = FeedForward(c.intermediate_size, c.hidden_act, c.init, name="ffn")
        attended_nd = attention(x_nd, sequences_bt, train=train)
        x_nd = nn.LayerNorm(c.layer_norm_eps, use_fast_variance=False, name="attention_norm")(
            x_nd + dropout(attended_nd)
        )
        return nn.LayerNorm(c.layer_norm_eps, use_fast_variance=False, name="ffn_norm")(
            x_nd + dropout(feed_forward(x_nd))
        )


class MlmHead(nn.Module):
    """Hidden states of the tokens to predict -> logits over the vocabulary."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_nd: Array, token_embedding_vd: Array) -> Array:
        c = self.config
        hidden_nd = ACTIVATIONS[c.hidden_act](Linear(c.hidden_size, c.init, name="hidden")(x_nd))
        hidden_nd = nn.LayerNorm(c.layer_norm_eps, use_fast_variance=False, name="norm")(hidden_nd)
        if not c.tied_head:
            return Linear(token_embedding_vd.shape[0], c.init, name="vocab")(hidden_nd)
        bias_v = self.param("bias", initializers.zeros, token_embedding_vd.shape[:1])
        return hidden_nd @ token_embedding_vd.T + bias_v[None]


class Bert(nn.Module):
    """The pretraining model. `config.vocab_size` must be set.

    Parameter paths are API: `block_0/attention/query/kernel`, `mlm/hidden/bias`, ...
    """

    config: BertConfig

    def setup(self) -> None:
        c = self.config
        assert c.vocab_size is not None
        embedding_init = initializers.truncated_normal(0.02) if c.init == "bert" else initializers.normal(1.0)
        self.token_embedding = self.param("token_embedding", embedding_init, (c.vocab_size, c.hidden_size))
        self.segment_embedding = self.param("segment_embedding", embedding_init, (2, c.hidden_size))
        self.position_embedding = self.param("position_embedding", embedding_init, (c.max_position, c.hidden_size))
        if c.embedding_norm:
            self.embedding_norm = nn.LayerNorm(c.layer_norm_eps, use_fast_variance=False)
            self.embedding_dropout = nn.Dropout(c.dropout)
        self.block = [Block(c) for _ in range(c.num_layers)]
        self.pooler = Linear(c.hidden_size, c.init)
        self.mlm = MlmHead(c)
        self.nsp = Linear(2, c.init)

    def encode(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        *,
        train: bool = False,
    ) -> Array:
        """Token representations, float32 [b, t, d]; those of padding (sequence 0) mean nothing."""
        b, t = tokens_bt.shape
        x_btd = (
            self.token_embedding[tokens_bt]
            + self.segment_embedding[segments_bt]
            + self.position_embedding[positions_bt]
        )
        x_nd = x_btd.reshape(b * t, -1)
        if self.config.embedding_norm:
            x_nd = self.embedding_dropout(self.embedding_norm(x_nd), deterministic=not train)
        for block in self.block:
            x_nd = block(x_nd, sequences_bt, train=train)
        return x_nd.reshape(b, t, -1)

    def __call__(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        mlm_positions_bp: Array,
        cls_positions_bk: Array,
        *,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Logits of the MLM head [b, p, v], at the predicted positions only, and of the NSP head [b, k, 2].

        With `train` dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        encoded_btd = self.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        at_predictions_bpd = jnp.take_along_axis(encoded_btd, mlm_positions_bp[:, :, None], axis=1)
        at_cls_bkd = jnp.take_along_axis(encoded_btd, cls_positions_bk[:, :, None], axis=1)
        d = self.config.hidden_size
        mlm_logits_mv = self.mlm(at_predictions_bpd.reshape(-1, d), self.token_embedding)
        nsp_logits_m2 = self.nsp(jnp.tanh(self.pooler(at_cls_bkd.reshape(-1, d))))
        return mlm_logits_mv.reshape(*mlm_positions_bp.shape, -1), nsp_logits_m2.reshape(*cls_positions_bk.shape, 2)


def init_params(model: Bert, key: Array) -> dict:
    """Fresh parameters, a plain nested dict of float32 arrays. Jit it to make them on the device."""
    b1 = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, b1, b1, b1, b1, b1, b1)["params"]


def num_parameters(config: BertConfig) -> int:
    """Numbers in the model, both heads included; nothing is computed."""
    shapes = jax.eval_shape(functools.partial(init_params, Bert(config)), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
