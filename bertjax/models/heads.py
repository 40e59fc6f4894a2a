"""The heads: masked words and pairs of sentences, to pretrain (Devlin et al. 2019, section 3.1), and labels.

Letters: m tokens or sequences, p predictions of a row, k sequences of a row, d hidden (in what the MLM head gives the
features of the word embeddings), v vocabulary, c labels.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.typing import DTypeLike

from bertjax.config import BertConfig
from bertjax.models.layers import Linear, Norm, Weights
from bertjax.ops.activations import ACTIVATIONS
from bertjax.ops.dropout import dropout


class Predictions(NamedTuple):
    """Predictions of the two heads. MLM logits are `mlm_hidden_bpd @ vocab_kernel_dv + vocab_bias_v`."""

    mlm_hidden_bpd: Array
    vocab_kernel_dv: Array
    vocab_bias_v: Array
    nsp_logits_bk2: Array  # float32


class MlmHead(nn.Module):
    """Logits of words but for the last product: hidden states [m, d], the vocabulary's kernel [d, v] and bias [v]."""

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_md: Array, token_embedding_vd: Array) -> tuple[Array, Array, Array]:
        c, (v, d) = self.config, token_embedding_vd.shape
        hidden_md = ACTIVATIONS[c.hidden_act](Linear(d, c, self.dtype, name="hidden")(x_md))
        hidden_md = Norm(c, name="norm")(hidden_md)
        if c.tie_word_embeddings:
            return hidden_md, token_embedding_vd.T, self.param("bias", initializers.zeros, (v,))
        return hidden_md, *Weights(v, c, biased=True, name="vocab")(d)


class Pooler(nn.Module):
    """What heads read of sequences, [m, d], from features [m, f]: a linear layer, an activation, and perhaps a norm."""

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, features_mf: Array) -> Array:
        c = self.config
        linear = Linear(c.hidden_size, c, self.dtype)
        nn.share_scope(self, linear)  # its kernel and bias are ours
        activation = {"tanh": jnp.tanh, "relu": jax.nn.relu, "hidden_act": ACTIVATIONS[c.hidden_act]}[c.pooler_act]
        pooled_md = activation(linear(features_mf))
        return Norm(c, name="norm")(pooled_md) if c.pooler_norm else pooled_md


class NspHead(nn.Module):
    """Logits, float32 [m, 2], of whether a sequence's second sentence is the next: a pooler, then a linear layer."""

    config: BertConfig
    dtype: DTypeLike

    def setup(self) -> None:
        self.pooler = Pooler(self.config, self.dtype)
        self.nsp = Linear(2, self.config, self.dtype)

    def __call__(self, features_mf: Array) -> Array:
        return self.nsp(self.pooler(features_mf)).astype(jnp.float32)


class ClassificationHead(nn.Module):
    """Logits of a sequence's labels, float32 [m, c], from its vector [m, d]: a pooler, then a linear layer.

    The pooler is that of the NSP head, whose start it takes where that reads the first token alone.
    """

    config: BertConfig
    dtype: DTypeLike
    num_labels: int

    def setup(self) -> None:
        self.pooler = Pooler(self.config, self.dtype)
        self.classifier = _of_labels(self.num_labels, self.config, self.dtype)

    def __call__(self, x_md: Array, *, train: bool) -> Array:
        pooled_md = dropout(self.pooler(x_md), self.config.dropout, self.make_rng("dropout") if train else None)
        return self.classifier(pooled_md).astype(jnp.float32)


class TaggingHead(nn.Module):
    """Logits of tokens' labels, float32 [m, c], from their representations [m, d]: a linear layer after dropout."""

    config: BertConfig
    dtype: DTypeLike
    num_labels: int

    def setup(self) -> None:
        self.classifier = _of_labels(self.num_labels, self.config, self.dtype)

    def __call__(self, x_md: Array, *, train: bool) -> Array:
        x_md = dropout(x_md, self.config.dropout, self.make_rng("dropout") if train else None)
        return self.classifier(x_md).astype(jnp.float32)


def _of_labels(num_labels: int, config: BertConfig, dtype: DTypeLike) -> Linear:
    return Linear(num_labels, dataclasses.replace(config, biases=config.biases or config.classifier_bias), dtype)


def compared(x_btd: Array, segments_bt: Array, sequences_bt: Array, *, num_sequences: int) -> Array:
    """Returns a * b, |a - b| and a + b of the means a and b of a sequence's segments, [b, k, 3d].

    They are InferSent's features of a pair (Conneau et al. 2017, arXiv:1705.02364, section 3.1).

    Args:
      segments_bt: int32, 0 in the first sentence of a pair and 1 in the second.
      sequences_bt: int32, which of the row's sequences a token belongs to, 1 or more; 0 is padding.
      num_sequences: k, the most sequences in a row.
    """
    numbers_1k1 = 1 + jnp.arange(num_sequences)[None, :, None]

    def mean(segment: int) -> Array:
        chosen_bkt = ((sequences_bt[:, None] == numbers_1k1) & (segments_bt[:, None] == segment)).astype(jnp.float32)
        totals_bkd = jnp.einsum("bkt,btd->bkd", chosen_bkt, x_btd)
        return totals_bkd / jnp.maximum(chosen_bkt.sum(-1, keepdims=True), 1)

    a_bkd, b_bkd = mean(0), mean(1)
    return jnp.concatenate((a_bkd * b_bkd, jnp.abs(a_bkd - b_bkd), a_bkd + b_bkd), -1)
