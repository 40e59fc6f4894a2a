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
from bertjax.ops.dropout import dropout
from bertjax.ops.matmul import matmul
from bertjax.parallel.sharding import gathered, on_rows


def exact_gelu(x: Array) -> Array:
    """x times the share of a standard normal distribution below it (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    By erf, as BERT and PyTorch have it. JAX's is by erfc, which takes XLA's CPUs three times as long.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS = {
    "gelu": exact_gelu,
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
    "geglu": exact_gelu,
    "swiglu": nn.silu,
}
_GATED = ("geglu", "swiglu")


class Weights(nn.Module):
    """The kernel [features in, features] of a linear layer, and its bias [features], None where it has none."""

    features: int
    config: BertConfig
    biased: bool

    @nn.compact
    def __call__(self, features_in: int) -> tuple[Array, Array | None]:
        kernel_init, bias_init = linear_initializers(self.config, fan_in=features_in)
        kernel = self.param("kernel", kernel_init, (features_in, self.features))
        return kernel, self.param("bias", bias_init, (self.features,)) if self.biased else None


class Linear(nn.Module):
    """x @ kernel + bias on [n, features in] -> [n, features]."""

    features: int
    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        weights = Weights(self.features, self.config, self.config.biases)
        nn.share_scope(self, weights)  # its kernel and bias are ours
        kernel_df, bias_f = weights(x_nd.shape[-1])
        y_nf = matmul(x_nd, kernel_df, self.dtype)
        return y_nf if bias_f is None else y_nf + bias_f[None].astype(x_nd.dtype)


def linear_initializers(config: BertConfig, fan_in: int) -> tuple[Callable, Callable]:
    """For kernel and bias: BERT's, or `torch.nn.Linear`'s, uniform within 1/sqrt(fan_in) of 0."""
    if config.init == "bert":
        return initializers.truncated_normal(config.init_scale), initializers.zeros
    bound = fan_in**-0.5

    def uniform(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform


class Attention(nn.Module):
    """Multi-head self-attention inside each sequence of a row (Vaswani et al. 2017, section 3.2.2)."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array, positions_bt: Array, sequences_bt: Array, *, train: bool) -> Array:
        c, (n, d), (b, t) = self.config, x_nd.shape, sequences_bt.shape
        linear = functools.partial(Linear, d, c, self.dtype)

        def heads(y_nd: Array) -> Array:
            return y_nd.reshape(b, t, c.num_heads, d // c.num_heads).swapaxes(1, 2)

        q_bhte, k_bhse, v_bhse = (heads(linear(name=name)(x_nd)) for name in ("query", "key", "value"))
        if c.positions == "rotary":
            q_bhte, k_bhse = apply_rotary(q_bhte, positions_bt), apply_rotary(k_bhse, positions_bt)
        scores_bhts = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhse) * (d // c.num_heads) ** -0.5
        allowed_b1ts = attention_mask(sequences_bt)[:, None]
        # The lowest float, not -inf: a row of padding alone must average, not turn into NaN.
        scores_bhts = jnp.where(allowed_b1ts, scores_bhts.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        weights_bhts = jax.nn.softmax(scores_bhts).astype(x_nd.dtype)
        weights_bhts = dropout(weights_bhts, c.dropout, self.make_rng("dropout") if train else None)
        mixed_bhte = jnp.einsum("bhts,bhse->bhte", weights_bhts, v_bhse)
        return linear(name="out")(mixed_bhte.swapaxes(1, 2).reshape(n, d))


def attention_mask(sequences_bt: Array) -> Array:
    """bool [b, t, s]: token t sees token s when both are in the same sequence, and s is not padding (0)."""
    return (sequences_bt[:, :, None] == sequences_bt[:, None, :]) & (sequences_bt[:, None, :] > 0)


def apply_rotary(x_bhte: Array, positions_bt: Array) -> Array:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2.2): feature pairs (i, i + e/2) as angles.

    A product of two turned vectors depends on the difference of their positions alone.
    """
    half = x_bhte.shape[-1] // 2
    speed_e = 10_000.0 ** (-jnp.arange(half) / half)
    angle_b1te = (positions_bt[:, :, None] * speed_e[None, None])[:, None]
    cos_b1te, sin_b1te = jnp.cos(angle_b1te).astype(x_bhte.dtype), jnp.sin(angle_b1te).astype(x_bhte.dtype)
    first, second = x_bhte[..., :half], x_bhte[..., half:]
    return jnp.concatenate((first * cos_b1te - second * sin_b1te, second * cos_b1te + first * sin_b1te), -1)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, and perhaps a third that gates it (Shazeer 2020)."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        c = self.config
        inner_nf = ACTIVATIONS[c.hidden_act](Linear(c.intermediate_size, c, self.dtype, name="in")(x_nd))
        if c.hidden_act in _GATED:
            inner_nf *= Linear(c.intermediate_size, c, self.dtype, name="gate")(x_nd)
        return Linear(x_nd.shape[-1], c, self.dtype, name="out")(inner_nf)


class Norm(nn.Module):
    """Layer norm (Ba et al. 2016) or root mean square norm, in float32 whatever goes in and, of the same dtype, out."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        c = self.config
        norm: nn.Module
        if c.norm_kind == "rms":
            norm = nn.RMSNorm(c.layer_norm_eps, dtype=x_nd.dtype)
        else:
            norm = nn.LayerNorm(c.layer_norm_eps, dtype=x_nd.dtype, use_bias=c.biases, use_fast_variance=False)
        nn.share_scope(self, norm)  # its scale and bias are ours
        return norm(x_nd)


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward, each with dropout and residual, and a norm after or before it."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array, positions_bt: Array, sequences_bt: Array, *, train: bool) -> Array:
        c = self.config
        attention, feed_forward = Attention(c, self.dtype, name="attention"), FeedForward(c, self.dtype, name="ffn")

        def attend(x_nd: Array) -> Array:
            return attention(x_nd, positions_bt, sequences_bt, train=train)

        for sublayer, name in ((attend, "attention_norm"), (feed_forward, "ffn_norm")):
            norm = Norm(c, name=name)
            y_nd = sublayer(norm(x_nd) if c.norm == "pre" else x_nd)
            x_nd += dropout(y_nd, c.dropout, self.make_rng("dropout") if train else None)
            x_nd = norm(x_nd) if c.norm == "post" else x_nd
        return x_nd


class MlmHead(nn.Module):
    """Logits but for the last product: hidden states of tokens to predict, the vocabulary's kernel, and its bias."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x_nd: Array, token_embedding_vd: Array) -> tuple[Array, Array, Array]:
        c, (v, d) = self.config, token_embedding_vd.shape
        hidden_nd = ACTIVATIONS[c.hidden_act](Linear(d, c, self.dtype, name="hidden")(x_nd))
        hidden_nd = Norm(c, name="norm")(hidden_nd)
        if c.tie_word_embeddings:
            return hidden_nd, token_embedding_vd.T, self.param("bias", initializers.zeros, (v,))
        return hidden_nd, *Weights(v, c, biased=True, name="vocab")(d)


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
        table = initializers.truncated_normal(c.init_scale) if c.init == "bert" else initializers.normal(1.0)
        self.token_embedding = self.param("token_embedding", table, (c.vocab_size, c.hidden_size))
        self.segment_embedding = self.param("segment_embedding", table, (2, c.hidden_size))
        if c.positions == "learned":
            self.position_embedding = self.param("position_embedding", table, (c.max_position, c.hidden_size))
        if c.embedding_norm:
            self.embedding_norm = Norm(c)
        self.block = [Block(c, self.dtype) for _ in range(c.num_layers)]
        if c.norm == "pre":
            self.final_norm = Norm(c)
        self.pooler = Linear(c.hidden_size, c, self.dtype)
        self.mlm = MlmHead(c, self.dtype)
        self.nsp = Linear(2, c, self.dtype)

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
        c = self.config
        x_btd = self.token_embedding[tokens_bt] + self.segment_embedding[segments_bt]
        if c.positions == "learned":
            x_btd += self.position_embedding[positions_bt]
        x_nd = on_rows(x_btd.reshape(b * t, -1), self.mesh)
        if c.embedding_norm:
            x_nd = dropout(self.embedding_norm(x_nd), c.dropout, self.make_rng("dropout") if train else None)
        if jax.default_backend() != "cpu":  # there float32 arithmetic between the products is the faster
            x_nd = x_nd.astype(self.dtype)
        if self.is_initializing():
            for block in self.block:
                block(x_nd, positions_bt, sequences_bt, train=False)
        else:
            x_nd = self._apply_blocks(x_nd, positions_bt, sequences_bt, train)
        if c.norm == "pre":
            x_nd = self.final_norm(x_nd)
        return x_nd.astype(jnp.float32).reshape(b, t, -1)

    def _apply_blocks(self, x_nd: Array, positions_bt: Array, sequences_bt: Array, train: bool) -> Array:
        c = self.config
        keys = jax.random.split(self.make_rng("dropout"), c.num_layers) if train else [None] * c.num_layers
        layers = [(block.variables["params"], key) for block, key in zip(self.block, keys, strict=True)]
        block = Block(c, self.dtype, parent=None)

        def apply_block(x_nd: Array, layer: tuple[dict, Array | None]) -> tuple[Array, None]:
            params, key = layer
            params, x_nd = gathered(params, self.mesh), on_rows(x_nd, self.mesh)
            rngs = {"dropout": key} if train else None
            return block.apply({"params": params}, x_nd, positions_bt, sequences_bt, train=train, rngs=rngs), None

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
        of_pairs_bkf = jnp.take_along_axis(encoded_btd, cls_positions_bk[:, :, None], axis=1)
        if self.config.nsp_features == "pair":
            compared_bkf = compared(encoded_btd, segments_bt, sequences_bt, num_sequences=cls_positions_bk.shape[1])
            of_pairs_bkf = jnp.concatenate((of_pairs_bkf, compared_bkf), -1)
        d = self.config.hidden_size
        mlm_hidden_md, kernel_dv, bias_v = self.mlm(at_predictions_bpd.reshape(-1, d), self.token_embedding)
        nsp_logits_m2 = self.nsp(jnp.tanh(self.pooler(of_pairs_bkf.reshape(-1, of_pairs_bkf.shape[-1]))))
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


def compared(x_btd: Array, segments_bt: Array, sequences_bt: Array, *, num_sequences: int) -> Array:
    """[b, k, 3d]: a * b, |a - b| and a + b of the means a and b of a sequence's segments (Conneau et al. 2017, 3.1)."""
    numbers_1k1 = 1 + jnp.arange(num_sequences)[None, :, None]

    def mean(segment: int) -> Array:
        chosen_bkt = ((sequences_bt[:, None] == numbers_1k1) & (segments_bt[:, None] == segment)).astype(jnp.float32)
        totals_bkd = jnp.einsum("bkt,btd->bkd", chosen_bkt, x_btd)
        return totals_bkd / jnp.maximum(chosen_bkt.sum(-1, keepdims=True), 1)

    a_bkd, b_bkd = mean(0), mean(1)
    return jnp.concatenate((a_bkd * b_bkd, jnp.abs(a_bkd - b_bkd), a_bkd + b_bkd), -1)


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
