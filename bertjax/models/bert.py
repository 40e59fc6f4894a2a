"""BERT (Devlin et al. 2019, arXiv:1810.04805): embeddings, encoder, and the heads of pretraining.

Letters: b rows, t tokens of a row, n = b*t, p predictions of a row, k sequences of a row, d hidden, v vocabulary.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from bertjax.config import BertConfig, TrainConfig
from bertjax.config.checks import as_type, require
from bertjax.models.embeddings import Embeddings
from bertjax.models.encoder import Encoder
from bertjax.models.heads import MlmHead, NspHead, Predictions, compared
from bertjax.models.parameters import init_params, params_template
from bertjax.ops.attention import Backend, choose_backend
from bertjax.ops.matmul import matmul

__all__ = ["Bert", "Predictions", "init_params", "make_model", "num_parameters", "params_template"]


class Bert(nn.Module):
    """The pretraining model. `config.vocab_size` must be set.

    Parameter paths are API: `block_0/attention/query/kernel`, `mlm/hidden/bias`, ... Parameters are float32. The other
    attributes change how the model is computed, not what it is: parameters and checkpoints are the same.
    """

    NUM_INPUTS: ClassVar[int] = 6

    config: BertConfig
    dtype: DTypeLike = jnp.float32  # of what matrix products multiply; their sums, softmax and norms are float32
    remat: bool = False  # compute a layer's activations again on the way back instead of keeping them
    scan_layers: bool = False  # compile one layer and loop over it
    mesh: Mesh | None = None  # devices that the rows, and perhaps the parameters, are spread over
    backend: Backend = "xla"  # of attention

    def setup(self) -> None:
        c = as_type(self.config, BertConfig, "config")
        require(c.vocab_size is not None, "config.vocab_size is not set; give the number of tokens in the vocabulary")
        self.embeddings = Embeddings(c, self.dtype, self.mesh)
        self.encoder = Encoder(c, self.dtype, self.remat, self.scan_layers, self.mesh, self.backend)
        self.mlm = MlmHead(c, self.dtype)
        self.pairs = NspHead(c, self.dtype)
        for part in (self.embeddings, self.encoder, self.pairs):
            nn.share_scope(self, part)  # its parameters lie beside the MLM head's, without a name before theirs

    def encode(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        *,
        train: bool = False,
    ) -> Array:
        """Returns the tokens' representations, float32 [b, t, d]; those of padding mean nothing.

        Args:
          tokens_bt: int32, below the vocabulary's size.
          segments_bt: int32, 0 in the first sentence of a pair and 1 in the second.
          positions_bt: int32, a token's place in its sequence.
          sequences_bt: int32, which of the row's sequences a token belongs to, 1 or more; 0 is padding.
          train: with it dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        x_nd = self.embeddings(tokens_bt, segments_bt, positions_bt, train=train)
        return self.encoder(x_nd, positions_bt, sequences_bt, train=train).reshape(*tokens_bt.shape, -1)

    def attention_weights(
        self, tokens_bt: Array, segments_bt: Array, positions_bt: Array, sequences_bt: Array
    ) -> Array:
        """Returns what each token looks at, by layer and head, float32 [l, b, h, t, s].

        The arguments are those of `encode`.
        """
        x_nd = self.embeddings(tokens_bt, segments_bt, positions_bt, train=False)
        return self.encoder.attention_weights(x_nd, positions_bt, sequences_bt)

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
        """Returns what both heads say, but for the product with the vocabulary; the arguments are those of `encode`.

        Args:
          mlm_positions_bp: int32, places in the row of the tokens to predict.
          cls_positions_bk: int32, places in the row of the `<cls>` tokens.
        """
        encoded_btd = self.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        words = self._words_at(encoded_btd, mlm_positions_bp)
        of_pairs_bkf = jnp.take_along_axis(encoded_btd, cls_positions_bk[:, :, None], axis=1)
        if self.config.nsp_features == "pair":
            compared_bkf = compared(encoded_btd, segments_bt, sequences_bt, num_sequences=cls_positions_bk.shape[1])
            of_pairs_bkf = jnp.concatenate((of_pairs_bkf, compared_bkf), -1)
        nsp_logits_m2 = self.pairs(of_pairs_bkf.reshape(-1, of_pairs_bkf.shape[-1]))
        nsp_logits_bk2 = nsp_logits_m2.reshape(*cls_positions_bk.shape, 2)
        return Predictions(*words, nsp_logits_bk2)

    def predict_words(
        self, tokens_bt: Array, segments_bt: Array, positions_bt: Array, sequences_bt: Array, mlm_positions_bp: Array
    ) -> tuple[Array, Array, Array]:
        """Returns what the MLM head alone says, as `predict` does; the arguments are its own."""
        return self._words_at(self.encode(tokens_bt, segments_bt, positions_bt, sequences_bt), mlm_positions_bp)

    def _words_at(self, encoded_btd: Array, places_bp: Array) -> tuple[Array, Array, Array]:
        """Logits of the MLM head at some tokens, but for the last product: [b, p, d], [d, v] and [v]."""
        at_places_bpd = jnp.take_along_axis(encoded_btd, places_bp[:, :, None], axis=1)
        at_places_md = at_places_bpd.reshape(-1, at_places_bpd.shape[-1])
        hidden_md, kernel_dv, bias_v = self.mlm(at_places_md, self.embeddings.token_embedding)
        return hidden_md.reshape(*places_bp.shape, -1), kernel_dv, bias_v

    def words(self, encoded_md: Array) -> Array:
        """Returns logits of the MLM head for the representations of m tokens, float32 [m, v]."""
        hidden_md, kernel_dv, bias_v = self.mlm(encoded_md, self.embeddings.token_embedding)
        return matmul(hidden_md, kernel_dv, self.dtype).astype(jnp.float32) + bias_v[None]

    def __call__(self, *batch: Array, train: bool = False) -> tuple[Array, Array]:
        """`predict`, its products made: logits of the MLM head [b, p, v] and of the NSP head [b, k, 2], float32."""
        mlm_hidden_bpd, vocab_kernel_dv, vocab_bias_v, nsp_logits_bk2 = self.predict(*batch, train=train)
        b, p, d = mlm_hidden_bpd.shape
        logits_mv = matmul(mlm_hidden_bpd.reshape(b * p, d), vocab_kernel_dv, self.dtype) + vocab_bias_v[None]
        return logits_mv.astype(jnp.float32).reshape(b, p, -1), nsp_logits_bk2


def make_model(config: BertConfig, train: TrainConfig, *, learning: bool = True) -> Bert:
    """Returns the model, computed as the recipe's training section and `config.attention` say.

    Args:
      learning: whether it is to be trained. One that is not has no dropout, and computes attention as well as this
        machine can, whatever the one that trained it had.

    Raises:
      BertjaxError: attention cannot be computed as the recipe says.
    """
    backend = choose_backend(
        config.attention if learning or config.attention == "xla" else "auto",
        dtype=train.precision,
        head_size=config.hidden_size // config.num_heads,
        dropout=config.dropout if learning else 0.0,
        bias=config.relative_attention_bias or config.positions == "disentangled",
    )
    how = {"dtype": jnp.dtype(train.precision), "remat": train.remat, "scan_layers": train.scan_layers}
    return Bert(config, backend=backend, **how)


def num_parameters(config: BertConfig) -> int:
    """Returns how many numbers the model has, both heads included."""
    return sum(leaf.size for leaf in jax.tree.leaves(params_template(Bert(config))))
