"""The stack of encoder layers (Vaswani et al. 2017, arXiv:1706.03762, section 3.1; Devlin et al. 2019, section 3).

Letters: b rows, t and s tokens of a row, n = b*t, h heads, e features of a head, d hidden, f features inside a layer.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.sharding import Mesh
from jax.typing import DTypeLike

from bertjax.config import BertConfig
from bertjax.models.layers import Linear, Norm, embedding_initializer
from bertjax.ops.activations import ACTIVATIONS, GATED
from bertjax.ops.attention import Backend, attention, attention_weights
from bertjax.ops.distances import NUM_BUCKETS, NUM_WAYS, disentangled_bias, distance_bias, way_buckets
from bertjax.ops.dropout import dropout
from bertjax.ops.rotary import apply_rotary, biases_that_look
from bertjax.parallel.sharding import gathered, on_rows

STATES = "states"  # the collection of layers' hidden states, kept where `apply` is told that it is mutable


class Attention(nn.Module):
    """Multi-head self-attention inside each sequence of a row (Vaswani et al. 2017, section 3.2.2)."""

    config: BertConfig
    dtype: DTypeLike
    backend: Backend = "xla"
    layer: int = 0

    @nn.compact
    def __call__(
        self, x_nd: Array, positions_bt: Array, sequences_bt: Array, relative: Array | None = None, *, train: bool
    ) -> Array:
        c, (n, d), (b, t) = self.config, x_nd.shape, sequences_bt.shape
        linear = functools.partial(Linear, d, _of_block(c), self.dtype)
        window, theta = c.window_of(self.layer), c.rotary_theta_of(self.layer)

        key = self.make_rng("dropout") if train else None

        def heads(y_nd: Array) -> Array:
            return y_nd.reshape(b, t, c.num_heads, d // c.num_heads).swapaxes(1, 2)

        starts: dict[str, Any] = {}
        if c.attention_start == "neighbours":
            offset_h = [1 if head % 2 else -1 for head in range(c.num_heads)]
            query_d, key_d = biases_that_look(offset_h, d // c.num_heads, theta)
            starts = {"query": {"bias_init": lambda *_: query_d}, "key": {"bias_init": lambda *_: key_d}}
            starts |= {name: {"gain": 2.0} for name in ("value", "out")}  # else what is seen is little beside x

        def projected(name: str, x_nd: Array) -> Array:
            return linear(name=name, **starts.get(name, {}))(x_nd)

        seen_nd = x_nd
        if c.positions == "disentangled":  # embeddings of ways pass the layers that tokens do
            assert relative is not None
            ways_rd = dropout(
                relative.astype(x_nd.dtype), c.dropout, None if key is None else jax.random.fold_in(key, 1)
            )
            seen_nd = jnp.concatenate((x_nd, ways_rd))
        q_nd, k_nd = (projected(name, seen_nd) for name in ("query", "key"))
        q_bhte, k_bhse, v_bhse = heads(q_nd[:n]), heads(k_nd[:n]), heads(projected("value", x_nd))
        if c.positions == "rotary":
            q_bhte, k_bhse = (apply_rotary(x, positions_bt, theta) for x in (q_bhte, k_bhse))
        elif c.positions == "disentangled":
            q_hre, k_hre = (y_nd[n:].reshape(-1, c.num_heads, d // c.num_heads).swapaxes(0, 1) for y_nd in (q_nd, k_nd))
            q_bhte, q_hre = (q / math.sqrt(3) for q in (q_bhte, q_hre))  # as scores are sums of three
            relative = disentangled_bias(q_bhte, k_bhse, q_hre, k_hre, way_buckets(t, c.max_position))
        where: dict[str, Any] = {"bias_bhts": relative, "window": window}
        if self.is_mutable_collection("weights"):  # where somebody looks
            self.sow("weights", "bhts", attention_weights(q_bhte, k_bhse, sequences_bt, **where))
        how: dict[str, Any] = where | {"dropout": c.dropout, "key": key, "backend": self.backend}
        mixed_bhte = attention(q_bhte, k_bhse, v_bhse, sequences_bt, **how)
        return projected("out", mixed_bhte.swapaxes(1, 2).reshape(n, d))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, and perhaps a third that gates it (Shazeer 2020)."""

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        c = _of_block(self.config)
        inner_nf = ACTIVATIONS[c.hidden_act](Linear(c.intermediate_size, c, self.dtype, name="in")(x_nd))
        if c.hidden_act in GATED:
            inner_nf *= Linear(c.intermediate_size, c, self.dtype, name="gate")(x_nd)
        return Linear(x_nd.shape[-1], c, self.dtype, name="out")(inner_nf)


def _of_block(config: BertConfig) -> BertConfig:
    """The settings of linear layers in an encoder layer."""
    return dataclasses.replace(config, biases=config.biases and config.block_biases)


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward, each with dropout and residual, and a norm after or before it."""

    config: BertConfig
    dtype: DTypeLike
    backend: Backend = "xla"
    layer: int = 0  # layers may differ in what they see, and the first one in its norm

    @nn.compact
    def __call__(
        self, x_nd: Array, positions_bt: Array, sequences_bt: Array, relative: Array | None = None, *, train: bool
    ) -> Array:
        c = self.config
        attention = Attention(c, self.dtype, self.backend, self.layer, name="attention")
        feed_forward = FeedForward(c, self.dtype, name="ffn")

        def attend(x_nd: Array) -> Array:
            return attention(x_nd, positions_bt, sequences_bt, relative, train=train)

        for sublayer, name in ((attend, "attention_norm"), (feed_forward, "ffn_norm")):
            bare = c.norm == "pre" and name == "attention_norm" and self.layer == 0 and not c.first_attention_norm
            norm = (lambda x_nd: x_nd) if bare else Norm(c, name=name)
            y_nd = sublayer(norm(x_nd) if c.norm == "pre" else x_nd)
            x_nd += dropout(y_nd, c.dropout, self.make_rng("dropout") if train else None)
            x_nd = norm(x_nd) if c.norm == "post" else x_nd
        return x_nd


class Encoder(nn.Module):
    """`config.num_layers` blocks one after the other, and a norm at the end where norms are before the sublayers.

    The attributes are `Bert`'s.
    """

    config: BertConfig
    dtype: DTypeLike
    remat: bool
    scan_layers: bool
    mesh: Mesh | None
    backend: Backend

    def setup(self) -> None:
        layers = range(self.config.num_blocks)
        self.block = [Block(self.config, self.dtype, self.backend, layer) for layer in layers]
        if self.config.norm == "pre":
            self.final_norm = Norm(self.config)
        if self.config.positions == "disentangled":
            shape = (2 * NUM_WAYS, self.config.hidden_size)
            self.relative_embedding = self.param("relative_embedding", embedding_initializer(self.config), shape)
            self.relative_norm = Norm(self.config)
        if self.config.relative_attention_bias:
            shape = (NUM_BUCKETS, self.config.num_heads)
            self.relative_attention_bias = self.param("relative_attention_bias", initializers.zeros, shape)

    def _relative(self, sequences_bt: Array) -> Array | None:
        """What attention in all layers knows of distances: a bias of scores [1, h, t, s], or embeddings of ways [r, d].

        A sequence's tokens lie side by side in a row, so that their distances there are those of their positions.
        """
        if self.config.positions == "disentangled":
            return self.relative_norm(self.relative_embedding)
        if self.config.relative_attention_bias:
            return distance_bias(self.relative_attention_bias, sequences_bt.shape[1])[None]
        return None

    def __call__(self, x_nd: Array, positions_bt: Array, sequences_bt: Array, *, train: bool) -> Array:
        """Returns the representations [n, d], float32 whatever the blocks compute in."""
        if jax.default_backend() != "cpu":  # there float32 arithmetic between the products is the faster
            x_nd = x_nd.astype(self.dtype)
        inputs = (positions_bt, sequences_bt, self._relative(sequences_bt))
        if self.is_initializing():
            for block in self.block:
                block(x_nd, *inputs, train=False)
        else:
            x_nd, *states = self._apply_blocks(x_nd, *inputs, train)
        if self.config.norm == "pre":
            x_nd = self.final_norm(x_nd)
        if self.is_mutable_collection(STATES) and not self.is_initializing():
            self.sow(STATES, "layers", [*states[:-1], x_nd])
        return x_nd.astype(jnp.float32)

    def attention_weights(self, x_nd: Array, positions_bt: Array, sequences_bt: Array) -> Array:
        """Returns what each token looks at in each layer, float32 [l, b, h, t, s], without dropout."""
        found, relative = [], self._relative(sequences_bt)
        for layer, params in enumerate(self._params()):
            x_nd, kept = Block(self.config, self.dtype, layer=layer, parent=None).apply(
                {"params": params}, x_nd, positions_bt, sequences_bt, relative, train=False, mutable="weights"
            )
            found.append(kept["weights"]["attention"]["bhts"][0])
        return jnp.stack(found)

    def _apply_blocks(
        self, x_nd: Array, positions_bt: Array, sequences_bt: Array, relative: Array | None, train: bool
    ) -> tuple[Array, ...]:
        """Returns what comes of the last block, and then, where somebody looks, of each."""
        c = self.config
        looked_at, states = self.is_mutable_collection(STATES), list[Array]()
        keys = jax.random.split(self.make_rng("dropout"), c.num_layers) if train else [None] * c.num_layers
        layers = list(zip(self._params(), keys, strict=True))

        def applied(block: Block) -> Callable[[Array, Any], tuple[Array, Array | None]]:
            def apply_block(x_nd: Array, layer: tuple[dict[str, Any], Array | None]) -> tuple[Array, Array | None]:
                params, key = layer
                params, x_nd = gathered(params, self.mesh), on_rows(x_nd, self.mesh)
                rngs = {"dropout": key} if train else None
                inputs = (x_nd, positions_bt, sequences_bt, relative)
                x_nd = block.apply({"params": params}, *inputs, train=train, rngs=rngs)
                return x_nd, x_nd if looked_at else None

            if not self.remat and (not train or jax.default_backend() == "cpu"):
                return apply_block
            policy = None if self.remat else _is_costly
            return jax.checkpoint(apply_block, policy=policy, prevent_cse=not self.scan_layers)

        for _, alike in itertools.groupby(range(c.num_layers), self._kind):
            first, *_ = numbers = list(alike)
            apply_block = applied(Block(c, self.dtype, self.backend, first, parent=None))
            if self.scan_layers and len(numbers) > 1:
                x_nd, each = self._scan(apply_block, x_nd, [layers[number] for number in numbers])
                states += each if looked_at else ()
                continue
            apply_block = jax.jit(apply_block)  # traced once for all that are alike; XLA puts each in its place
            for number in numbers:
                x_nd, state = apply_block(x_nd, layers[number])
                states += () if state is None else (state,)
        return x_nd, *states

    def _params(self) -> list[dict[str, Any]]:
        """The parameters of each layer."""
        of_blocks = [block.variables["params"] for block in self.block]
        return [of_blocks[layer % len(of_blocks)] for layer in range(self.config.num_layers)]

    def _scan(self, apply_block: Callable[..., Any], x_nd: Array, layers: list[tuple[dict[str, Any], Any]]) -> Any:
        """Applies layers that are alike by one program; returns what comes of the last, and of each or None."""
        shared = layers[0][0] if self.config.share_layers else None
        # Stacked here, not in the parameters: their paths stay as they are, for the price of a copy.
        of_each = layers if shared is None else [({}, key) for _, key in layers]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_each)
        return jax.lax.scan(
            lambda x_nd, layer: apply_block(x_nd, (shared or layer[0], layer[1])), x_nd, stacked, length=len(layers)
        )

    def _kind(self, layer: int) -> tuple[int | None, bool]:
        """What sets a layer apart from others: layers that are alike are one program."""
        return self.config.window_of(layer), layer == 0 and not self.config.first_attention_norm


def _is_costly(primitive: Any, *_: Any, **__: Any) -> bool:
    """What a layer keeps for the way back on an accelerator: its products, and attention's sums of weights.

    All else takes less time to compute again than to write and read: norms and activations would keep twice as many
    bytes again.
    """
    return str(primitive) in ("dot_general", "dot_product_attention_fwd_wrapper")
