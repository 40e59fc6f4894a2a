"""The model section: the shape of the encoder and how its weights begin."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import require, require_at_least


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Model; the defaults are BERT-base as published (Devlin et al. 2019, section 3)"""

    vocab_size: int | None = None
    """rows of the embedding table; by default as many as the tokenizer has tokens"""
    hidden_size: int = 768
    """features of a token"""
    num_layers: int = 12
    """encoder layers"""
    num_heads: int = 12
    """attention heads in a layer; must divide hidden_size"""
    intermediate_size: int = 3072
    """features inside a feed-forward layer"""
    max_position: int = 512
    """longest sequence that can be read, in tokens"""
    dropout: float = 0.1
    """rate on attention weights and on every sublayer's output while training"""
    hidden_act: Literal["gelu", "gelu_tanh", "relu", "silu", "geglu", "swiglu"] = "gelu"
    """activation of the feed-forward layers and of the MLM head; gelu is the exact one, geglu and swiglu have a second
    matrix in the feed-forward layers, whose product gates that of the first (Shazeer 2020)"""
    layer_norm_eps: float = 1e-12
    """added to the variance in norms"""
    norm: Literal["post", "pre"] = "post"
    """where norms are: after each sublayer and its residual, as in BERT, or before it, and one after the last layer"""
    norm_kind: Literal["layer", "rms"] = "layer"
    """layer norm, as in BERT, or by the root of the mean square alone (Zhang and Sennrich 2019)"""
    embedding_norm: bool = True
    """norm, then dropout, on the summed embeddings: BERT has it, the textbook has not"""
    positions: Literal["learned", "rotary"] = "learned"
    """an embedding of each position, as in BERT, or queries and keys turned by it (Su et al. 2021)"""
    biases: bool = True
    """in linear layers and norms, as in BERT; words to predict always have theirs"""
    nsp_features: Literal["cls", "pair"] = "cls"
    """what the NSP head reads: <cls>, as in BERT, or also how the means of both sentences' tokens differ"""
    tie_word_embeddings: bool = True
    """predict words with the transposed token embeddings: BERT does, the textbook has a matrix of its own"""
    init: Literal["bert", "textbook"] = "bert"
    """truncated normal of init_scale, or PyTorch's defaults as the textbook has them"""
    init_scale: float = 0.02
    """standard deviation of init: bert"""
    frequency_bias: bool = False
    """start the vocabulary's biases at the log of the words' frequencies in the training text"""
    cooccurrence_embedding: bool = False
    """start token embeddings from which words stand near each other in the training text (Levy et al. 2015); it is
    counted in the first 2**27 tokens"""

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_position")
        require_at_least(self, "model", 1, *sizes)
        if self.vocab_size is not None:
            require_at_least(self, "model", 6, "vocab_size")
        require(
            self.hidden_size % self.num_heads == 0,
            f"model.hidden_size={self.hidden_size} is not divisible by model.num_heads={self.num_heads}; "
            "change one of them",
        )
        features = self.hidden_size // self.num_heads
        require(
            self.positions == "learned" or features % 2 == 0,
            f"model.positions=rotary turns pairs of features, and a head has {features}; give an even number",
        )
        require(0 <= self.dropout < 1, f"model.dropout={self.dropout} is not a rate; give 0 <= rate < 1")
        for name in ("layer_norm_eps", "init_scale"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"model.{name}={value} is impossible; give a positive number")

    @classmethod
    def textbook(cls, vocab_size: int | None = None) -> "BertConfig":
        """The small model of "Dive into Deep Learning", section 15.10: 2 layers, 128 hidden, 2 heads."""
        return cls(
            vocab_size=vocab_size,
            hidden_size=128,
            num_layers=2,
            num_heads=2,
            intermediate_size=256,
            max_position=1000,
            dropout=0.2,
            hidden_act="relu",
            layer_norm_eps=1e-5,
            embedding_norm=False,
            tie_word_embeddings=False,
            init="textbook",
        )

    @classmethod
    def base(cls, vocab_size: int | None = None) -> "BertConfig":
        """BERT-base (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size)

    @classmethod
    def large(cls, vocab_size: int | None = None) -> "BertConfig":
        """BERT-large (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096)
