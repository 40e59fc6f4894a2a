"""From ids to vectors: token, segment and position embeddings (Devlin et al. 2019, section 3, figure 2)."""

import flax.linen as nn
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from bertjax.config import BertConfig
from bertjax.models.layers import Linear, Norm, embedding_initializer
from bertjax.ops.dropout import dropout
from bertjax.parallel.sharding import on_rows


class Embeddings(nn.Module):
    """The sum of a token's embeddings, perhaps with norm and dropout, made as wide as the layers where it is not.

    `config.vocab_size` must be set.
    """

    config: BertConfig
    dtype: DTypeLike
    mesh: Mesh | None

    def setup(self) -> None:
        c = self.config
        assert c.vocab_size is not None
        table = embedding_initializer(c)
        self.token_embedding = self.param("token_embedding", table, (c.vocab_size, c.embedding_width))
        if c.token_types:
            self.segment_embedding = self.param("segment_embedding", table, (c.token_types, c.embedding_width))
        if c.positions == "learned":
            self.position_embedding = self.param("position_embedding", table, (c.max_position, c.embedding_width))
        if c.embedding_norm:
            self.embedding_norm = Norm(c)
        if c.embedding_size is not None:
            self.embedding_projection = Linear(c.hidden_size, c, self.dtype)

    def __call__(self, tokens_bt: Array, segments_bt: Array, positions_bt: Array, *, train: bool) -> Array:
        """Returns float32 [n, d], n = b*t."""
        c = self.config
        x_btd = self.token_embedding[tokens_bt]
        if c.token_types:
            x_btd += self.segment_embedding[segments_bt if c.token_types > 1 else 0 * segments_bt]
        if c.positions == "learned":
            x_btd += self.position_embedding[positions_bt]
        x_nd = on_rows(x_btd.reshape(tokens_bt.size, -1), self.mesh)
        if c.embedding_norm:
            x_nd = dropout(self.embedding_norm(x_nd), c.dropout, self.make_rng("dropout") if train else None)
        return x_nd if c.embedding_size is None else self.embedding_projection(x_nd)
