"""BERT (Devlin et al. 2019, arXiv:1810.04805): embeddings, encoder, pooler, MLM and NSP heads.

Letters: b rows, t and s tokens of a row, n = b*t, p predictions of a row, k sequences of a row, h heads, e features
of a head, d hidden, v vocabulary. Linear layers take [n, d] rather than [b, t, d]: XLA multiplies two-dimensional
arrays several times faster on CPUs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.sharding import Mesh

from bertjax.config import BertConfig, TrainConfig
from bertjax.dropout import dropout
from bertjax.products import matmul
from bertjax.sharding import gathered, on_rows

ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


class Weights(nn.Module):
    """The kernel [features in, features] and the bias [features] of a linear layer."""

    features: int
    init: str

    @nn.compact
    def __call__(self, features_in: int) -> tuple[Array, Array]:
        kernel_init, bias_init = linear_initializers(self.init, fan_in=features_in)
        kernel = self.param("kernel", kernel_init, (features_in, self.features))
        return kernel, self.param("bias", bias_init, (self.features,))


class Linear(nn.Module):
    """x @ kernel + bias on [n, features in] -> [n, features]."""

    features: int
    dtype: Any
    init: str  # last: nn.Module has an attribute of this name, which reads as a default

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        weights = Weights(self.features, self.init)
        nn.share_scope(self, weights)  # its kernel and bias are ours
        kernel_df, bias_f = weights(x_nd.shape[-1])
        return matmul(x_nd, kernel_df, self.dtype) + bias_f[None].astype(x_nd.dtype)


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
    dtype: Any
    init: str

    @nn.compact
    def __call__(self, x_nd: Array, sequences_bt: Array, *, train: bool) -> Array:
        (n, d), (b, t) = x_nd.shape, sequences_bt.shape
        linear = functools.partial(Linear, d, self.dtype, self.init)

        def heads(y_nd: Array) -> Array:
            return y_nd.reshape(b, t, self.num_heads, d // self.num_heads).swapaxes(1, 2)

        q_bhte, k_bhse, v_bhse = (heads(linear(name=name)(x_nd)) for name in ("query", "key", "value"))
        scores_bhts = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhse) * (d // self.num_heads) ** -0.5
        allowed_b1ts = attention_mask(sequences_bt)[:, None]
        # The lowest float, not -inf: a row of padding alone must average, not turn into NaN.
        scores_bhts = jnp.where(allowed_b1ts, scores_bhts.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        weights_bhts = jax.nn.softmax(scores_bhts).astype(x_nd.dtype)
        weights_bhts = dropout(weights_bhts, self.dropout, self.make_rng("dropout") if train else None)
        mixed_bhte = jnp.einsum("bhts,bhse->bhte", weights_bhts, v_bhse)
        return linear(name="out")(mixed_bhte.swapaxes(1, 2).reshape(n, d))


def attention_mask(sequences_bt: Array) -> Array:
    """bool [b, t, s]: token t sees token s when both are in the same sequence, and s is not padding (0)."""
    return (sequences_bt[:, :, None] == sequences_bt[:, None, :]) & (sequences_bt[:, None, :] > 0)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    intermediate_size: int
    hidden_act: str
    dtype: Any
    init: str

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        inner_nf = ACTIVATIONS[self.hidden_act](Linear(self.intermediate_size, self.dtype, self.init, name="in")(x_nd))
        return Linear(x_nd.shape[-1], self.dtype, self.init, name="out")(inner_nf)


class LayerNorm(nn.Module):
    """Layer norm (Ba et al. 2016) in float32 arithmetic, whatever goes in and, of the same dtype, out."""

    eps: float

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        norm = nn.LayerNorm(self.eps, dtype=x_nd.dtype, use_fast_variance=False)
        nn.share_scope(self, norm)  # its scale and bias are ours
        return norm(x_nd)


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward, each with dropout, residual and layer norm after it."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array, sequences_bt: Array, *, train: bool) -> Array:
        c = self.config
        attention = Attention(c.num_heads, c.dropout, self.dtype, c.init, name="attention")
        feed_forward = FeedForward(c.intermediate_size, c.hidden_act, self.dtype, c.init, name="ffn")

        def add_and_norm(x_nd: Array, y_nd: Array, name: str) -> Array:
            y_nd = dropout(y_nd, c.dropout, self.make_rng("dropout") if train else None)
            return LayerNorm(c.layer_norm_eps, name=name)(x_nd + y_nd)

        x_nd = add_and_norm(x_nd, attention(x_nd, sequences_bt, train=train), "attention_norm")
        return add_and_norm(x_nd, feed_forward(x_nd), "ffn_norm")


class MlmHead(nn.Module):
    """Logits but for the last product: hidden states of tokens to predict, the vocabulary's kernel, and its bias."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array, token_embedding_vd: Array) -> tuple[Array, Array, Array]:
        c, (v, d) = self.config, token_embedding_vd.shape
        hidden_nd = ACTIVATIONS[c.hidden_act](Linear(d, self.dtype, c.init, name="hidden")(x_nd))
        hidden_nd = LayerNorm(c.layer_norm_eps, name="norm")(hidden_nd)
        if c.tied_head:
            return hidden_nd, token_embedding_vd.T, self.param("bias", initializers.zeros, (v,))
        return hidden_nd, *Weights(v, c.init, name="vocab")(d)


class Predictions(NamedTuple):
    """What the two heads say. MLM logits are `mlm_hidden_bpd @ vocab_kernel_dv + vocab_bias_v`."""

    mlm_hidden_bpd: Array
    vocab_kernel_dv: Array
    vocab_bias_v: Array
    nsp_logits_bk2: Array  # float32


class Bert(nn.Module):
    """The pretraining model. `config.vocab_size` must be set.

    Parameter paths are API: `block_0/attention/query/kernel`, `mlm/hidden/bias`, ... Parameters are float32. The other
    attributes change how the model is computed, not what it is: parameters and checkpoints are the same.
    """

    config: BertConfig
    dtype: Any = jnp.float32  # of what matrix products multiply; their sums, softmax and norms are float32
    remat: bool = False  # compute a layer's activations again on the way back instead of keeping them
    scan_layers: bool = False  # compile one layer and loop over it
    mesh: Mesh | None = None  # devices that the rows, and perhaps the parameters, are spread over

    def setup(self) -> None:
        c = self.config
        assert c.vocab_size is not None
        embedding_init = initializers.truncated_normal(0.02) if c.init == "bert" else initializers.normal(1.0)
        self.token_embedding = self.param("token_embedding", embedding_init, (c.vocab_size, c.hidden_size))
        self.segment_embedding = self.param("segment_embedding", embedding_init, (2, c.hidden_size))
        self.position_embedding = self.param("position_embedding", embedding_init, (c.max_position, c.hidden_size))
        if c.embedding_norm:
            self.embedding_norm = LayerNorm(c.layer_norm_eps)
        self.block = [Block(c, self.dtype) for _ in range(c.num_layers)]
        self.pooler = Linear(c.hidden_size, self.dtype, c.init)
        self.mlm = MlmHead(c, self.dtype)
        self.nsp = Linear(2, self.dtype, c.init)

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
        x_nd = on_rows(x_btd.reshape(b * t, -1), self.mesh)
        if self.config.embedding_norm:
            key = self.make_rng("dropout") if train else None
            x_nd = dropout(self.embedding_norm(x_nd), self.config.dropout, key)
        if jax.default_backend() != "cpu":  # there float32 arithmetic between the products is the faster
            x_nd = x_nd.astype(self.dtype)
        if self.is_initializing():
            for block in self.block:
                block(x_nd, sequences_bt, train=False)
        else:
            x_nd = self._apply_blocks(x_nd, sequences_bt, train)
        return x_nd.astype(jnp.float32).reshape(b, t, -1)

    def _apply_blocks(self, x_nd: Array, sequences_bt: Array, train: bool) -> Array:
        c = self.config
        keys = jax.random.split(self.make_rng("dropout"), c.num_layers) if train else [None] * c.num_layers
        layers = [(block.variables["params"], key) for block, key in zip(self.block, keys, strict=True)]
        block = Block(c, self.dtype, parent=None)

        def apply_block(x_nd: Array, layer: tuple[dict, Array | None]) -> tuple[Array, None]:
            params, key = layer
            params, x_nd = gathered(params, self.mesh), on_rows(x_nd, self.mesh)
            rngs = {"dropout": key} if train else None
            return block.apply({"params": params}, x_nd, sequences_bt, train=train, rngs=rngs), None

        if self.remat:
            apply_block = jax.checkpoint(apply_block, prevent_cse=not self.scan_layers)
        if self.scan_layers:
            # Stacked here, not in the parameters: their paths stay as they are, for the price of a copy.
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
            return jax.lax.scan(apply_block, x_nd, stacked)[0]
        for layer in layers:
            x_nd, _ = apply_block(x_nd, layer)
        return x_nd

    def predict(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        mlm_positions_bp: Array,
        cls_positions_bk: Array,
        *,
        train: bool = False,
    ) -> Predictions:
        """Both heads at the predicted positions and the `<cls>` tokens only, but for the product with the vocabulary.

        With `train` dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        encoded_btd = self.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        at_predictions_bpd = jnp.take_along_axis(encoded_btd, mlm_positions_bp[:, :, None], axis=1)
        at_cls_bkd = jnp.take_along_axis(encoded_btd, cls_positions_bk[:, :, None], axis=1)
        d = self.config.hidden_size
        mlm_hidden_md, kernel_dv, bias_v = self.mlm(at_predictions_bpd.reshape(-1, d), self.token_embedding)
        nsp_logits_m2 = self.nsp(jnp.tanh(self.pooler(at_cls_bkd.reshape(-1, d))))
        nsp_logits_bk2 = nsp_logits_m2.astype(jnp.float32).reshape(*cls_positions_bk.shape, 2)
        mlm_hidden_bpd = mlm_hidden_md.reshape(*mlm_positions_bp.shape, d)
        return Predictions(mlm_hidden_bpd, kernel_dv, bias_v, nsp_logits_bk2)

    def words(self, encoded_md: Array) -> Array:
        """Logits of the MLM head for the representations of m tokens, float32 [m, v]."""
        hidden_md, kernel_dv, bias_v = self.mlm(encoded_md, self.token_embedding)
        return matmul(hidden_md, kernel_dv, self.dtype).astype(jnp.float32) + bias_v[None]

    def __call__(self, *batch: Array, train: bool = False) -> tuple[Array, Array]:
        """`predict`, its products made: logits of the MLM head [b, p, v] and of the NSP head [b, k, 2], float32."""
        mlm_hidden_bpd, vocab_kernel_dv, vocab_bias_v, nsp_logits_bk2 = self.predict(*batch, train=train)
        b, p, d = mlm_hidden_bpd.shape
        logits_mv = matmul(mlm_hidden_bpd.reshape(b * p, d), vocab_kernel_dv, self.dtype) + vocab_bias_v[None]
        return logits_mv.astype(jnp.float32).reshape(b, p, -1), nsp_logits_bk2


def make_model(config: BertConfig, train: TrainConfig) -> Bert:
    """The model, computed as the recipe's training section says."""
    return Bert(config, dtype=jnp.dtype(train.precision), remat=train.remat, scan_layers=train.scan_layers)


def init_params(model: Bert, key: Array) -> dict:
    """Fresh parameters, a plain nested dict of float32 arrays. Jit it to make them on the device."""
    b1 = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, b1, b1, b1, b1, b1, b1)["params"]


@functools.cache  # a deep model takes half a second to be traced
def params_template(model: Bert) -> dict:
    """Shapes and dtypes of the parameters; nothing is computed."""
    return jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))


def num_parameters(config: BertConfig) -> int:
    """Numbers in the model, both heads included."""
    return sum(leaf.size for leaf in jax.tree.leaves(params_template(Bert(config))))
