"""The model section: the shape of the encoder and how its weights begin."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_types

Family = Literal[
    "bert",
    "roformer",
    "modernbert",
    "distilbert",
    "electra",
    "albert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
    "nomic_bert",
    "jina_embeddings_v3",
    "deberta-v2",
]

# Some ten times what the largest encoders have.
_MOST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 17,
    "embedding_size": 1 << 17,
    "num_layers": 1000,
    "num_heads": 1 << 12,
    "intermediate_size": 1 << 19,
    "max_position": 1 << 22,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Model; the defaults are BERT-base as published (Devlin et al. 2019, section 3)"""

    vocab_size: int | None = None
    """rows of the token embedding; by default the number of tokens in the vocabulary"""
    hidden_size: int = 768
    """features of each token's vector"""
    num_layers: int = 12
    """number of encoder layers"""
    num_heads: int = 12
    """attention heads of each layer; must divide model.hidden_size"""
    intermediate_size: int = 3072
    """features inside each feed-forward layer"""
    max_position: int = 512
    """longest sequence that the model can read, in tokens; more than init_from has, if typed (init_positions)"""
    dropout: float = 0.1
    """dropout rate on attention weights and on every sublayer's output, in training only"""
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    """what computes attention: XLA, which every device has, or cuDNN, faster and leaner on NVIDIA GPUs, in bfloat16 and
    without dropout; auto is cuDNN where that is possible. The model is the same with either"""
    hidden_act: Literal["gelu", "gelu_tanh", "relu", "silu", "geglu", "swiglu"] = "gelu"
    """activation of the feed-forward layers and the MLM head; gelu is the exact one; with geglu and swiglu the
    feed-forward layers have a second matrix, whose product gates that of the first (Shazeer 2020)"""
    layer_norm_eps: float = 1e-12
    """constant added to the variance in norms"""
    norm: Literal["post", "pre"] = "post"
    """position of the norms: after each sublayer and its residual (as in BERT), or before each sublayer and after the
    last layer"""
    norm_kind: Literal["layer", "rms"] = "layer"
    """layer norm (as in BERT), or RMS norm, which divides by the root mean square alone (Zhang and Sennrich 2019)"""
    embedding_norm: bool = True
    """whether the summed embeddings pass a norm and dropout (as in BERT; not in the textbook)"""
    embedding_size: int | None = None
    """features of the embeddings, of which a linear layer makes model.hidden_size (as in ALBERT and the small ELECTRA);
    by default they are as wide as the layers"""
    positions: Literal["learned", "rotary", "disentangled"] = "learned"
    """learned position embeddings (as in BERT), rotary ones on queries and keys (Su et al. 2021), or disentangled
    attention, whose scores have parts for the way between two tokens, in 512 learned buckets that all layers share (as
    in DeBERTa v2 and v3; He et al. 2021)"""
    share_layers: bool = False
    """whether all layers have the same parameters, those of one (as in ALBERT)"""
    token_types: int = 2
    """rows of the segment embedding: 2 (as in BERT), one for each sentence of a pair; 1 that all tokens share (as in
    RoBERTa); or 0, none (as in DistilBERT)"""
    rotary_theta: float = 10_000.0
    """base of the angles of rotary positions: the higher, the slower they turn, which suits longer texts"""
    window: int = 0
    """tokens to either side that a layer with local attention sees; 0: all layers see whole texts"""
    global_every: int = 3
    """with a window: every n-th layer, from the first on, sees whole texts, the others what is in the window"""
    local_rotary_theta: float | None = None
    """with a window: model.rotary_theta of the layers with local attention; by default the same"""
    relative_attention_bias: bool = False
    """whether attention has a learned bias for how far apart two tokens are, in 32 buckets of distances up to 128 and
    more, which all layers share (as in MPNet; Raffel et al. 2020)"""
    first_attention_norm: bool = True
    """whether the first layer's attention has a norm where norms are before the sublayers; it follows the embeddings'
    norm (ModernBERT has none there)"""
    biases: bool = True
    """whether linear layers and norms have biases (as in BERT); the MLM head's output always has one for each token"""
    block_biases: bool = True
    """with model.biases: whether the linear layers of the encoder's layers have them too (not in Nomic BERT)"""
    nsp_features: Literal["cls", "pair"] = "cls"
    """input of the NSP head: the vector of <cls> (as in BERT), or that together with how the means of the two
    sentences' tokens differ"""
    pooler_act: Literal["tanh", "relu", "hidden_act"] = "tanh"
    """activation of the pooler, the linear layer below the NSP head and labels of texts: tanh (as in BERT), relu (as in
    DistilBERT), or that of model.hidden_act without its gate (as in ELECTRA, RoFormer and ModernBERT)"""
    pooler_norm: bool = False
    """whether a norm follows the pooler's activation (as in ModernBERT)"""
    classifier_pooling: Literal["cls", "mean"] = "cls"
    """what the pooler reads for labels of texts: the vector of <cls> (as in BERT), or the mean of all tokens'"""
    classifier_bias: bool = False
    """whether labels have biases where model.biases is false too (as in ModernBERT)"""
    tie_word_embeddings: bool = True
    """whether the MLM head predicts tokens with the transposed token embedding (as in BERT); the textbook has a
    separate matrix"""
    init: Literal["bert", "textbook"] = "bert"
    """initial weights: a truncated normal distribution of model.init_scale, or PyTorch's defaults as in the textbook"""
    init_scale: float = 0.02
    """standard deviation of the initial weights for model.init=bert"""
    attention_start: Literal["random", "neighbours"] = "random"
    """what attention heads look at before they have learned anything: nothing in particular, or by turns the word
    before and the word after, which biases of queries and keys make of rotary positions; values and outputs then
    start at twice the scale"""
    frequency_bias: bool = False
    """whether the MLM head's output biases start at the log frequencies of the tokens in the training text"""
    cooccurrence_embedding: bool = False
    """whether token embeddings start from which words stand near each other in the training text (Levy et al. 2015),
    counted in its first 2**27 tokens"""
    family: Family | None = dataclasses.field(default=None, compare=False)  # nothing that is computed depends on it
    """family of models as which it is exported, where that one's format carries it: by default that of the folder of
    init_from, or else the first whose format does"""

    def __post_init__(self) -> None:
        require_types(self, "model")
        sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_position")
        require_at_least(self, "model", 1, *sizes)
        require_at_least(self, "model", 0, "window")
        require_at_least(self, "model", 1, "global_every")
        if self.vocab_size is not None:
            require_at_least(self, "model", 6, "vocab_size")
        for name, most in _MOST.items():  # before anything is made of them
            value = getattr(self, name)
            require(value is None or value <= most, f"model.{name}={value} is beyond reason; give {most:,} at most")
        require(
            self.hidden_size % self.num_heads == 0,
            f"model.hidden_size={self.hidden_size} is not divisible by model.num_heads={self.num_heads}; "
            "change one of them",
        )
        if self.embedding_size is not None:
            require_at_least(self, "model", 1, "embedding_size")
            require(
                self.embedding_size != self.hidden_size,
                f"model.embedding_size={self.embedding_size} is model.hidden_size; leave it out, or give another",
            )
        require(
            self.first_attention_norm or self.norm == "post" or not self.share_layers,
            "model.share_layers=true gives all layers the same norms; leave out model.first_attention_norm=false",
        )
        features = self.hidden_size // self.num_heads
        require(
            self.positions != "rotary" or features % 2 == 0,
            f"model.positions=rotary turns pairs of features, and a head has {features}; give an even number",
        )
        if self.attention_start == "neighbours":
            require(
                self.positions == "rotary" and self.biases and self.block_biases,
                f"model.attention_start=neighbours is of rotary positions and biases, not of model.positions="
                f"{self.positions}, model.biases={self.biases} and model.block_biases={self.block_biases}; change "
                "these, or give model.attention_start=random",
            )
        require(
            self.window == 0 or not self.relative_attention_bias,
            f"model.window={self.window} has no place for model.relative_attention_bias=true; leave one of them out",
        )
        require(
            self.window == 0 or self.positions != "disentangled",
            f"model.window={self.window} has no place for model.positions=disentangled; change one of them",
        )
        require(
            not self.relative_attention_bias or self.positions != "disentangled",
            "model.relative_attention_bias=true has no place beside model.positions=disentangled; change one of them",
        )
        require(
            self.token_types in (0, 1, 2),
            f"model.token_types={self.token_types} is impossible: texts have two segments at most; give 0, 1 or 2",
        )
        require(0 <= self.dropout < 1, f"model.dropout={self.dropout} is not a rate; give 0 <= rate < 1")
        for name in ("layer_norm_eps", "init_scale", "rotary_theta", "local_rotary_theta"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf, f"model.{name}={value} is impossible; give a positive number"
            )

    @property
    def num_blocks(self) -> int:
        """Layers that have parameters of their own."""
        return 1 if self.share_layers else self.num_layers

    @property
    def embedding_width(self) -> int:
        """Features of the embeddings."""
        return self.embedding_size or self.hidden_size

    def with_layers(self, layers: Sequence[int]) -> "BertConfig":
        """Returns the settings of a model that has only these layers of this one.

        Args:
          layers: their numbers, from 0 on, in ascending order.

        Raises:
          BertjaxError: there is no such layer, or it would see or do something else in its new place.
        """
        given = f"init_layers={list(layers)}"
        require(not self.share_layers, f"{given}: the layers there share one's parameters; leave it out")
        require(
            layers[-1] < self.num_layers,
            f"{given}: there are {self.num_layers} layers, 0 to {self.num_layers - 1}; give some of these",
        )
        require(
            layers[0] == 0 or self.norm == "post" or self.first_attention_norm,
            f"{given}: layer 0 has no norm before its attention, as the first one must be there; begin with 0",
        )
        for place, layer in enumerate(layers):
            require(
                self.window_of(layer) == self.window_of(place),
                f"{given}: layer {layer} sees {self._seen_by(layer)}, and in place {place} a layer sees "
                f"{self._seen_by(place)}; give layers that see in their new places what they saw",
            )
        return dataclasses.replace(self, num_layers=len(layers))

    def _seen_by(self, layer: int) -> str:
        window = self.window_of(layer)
        return "whole texts" if window is None else f"{window} tokens to either side"

    def window_of(self, layer: int) -> int | None:
        """Returns how many tokens to either side a layer sees; None: all."""
        return self.window if self.window and layer % self.global_every else None

    def rotary_theta_of(self, layer: int) -> float:
        """Returns the base of the angles by which a layer turns queries and keys."""
        if self.window_of(layer) is None or self.local_rotary_theta is None:
            return self.rotary_theta
        return self.local_rotary_theta

    @classmethod
    def textbook(cls, vocab_size: int | None = None) -> "BertConfig":
        """Returns the small model of "Dive into Deep Learning", section 15.10: 2 layers, 128 features, 2 heads."""
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
        """Returns BERT-base (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size)

    @classmethod
    def large(cls, vocab_size: int | None = None) -> "BertConfig":
        """Returns BERT-large (Devlin et al. 2019, section 3)."""
        return cls(vocab_size=vocab_size, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096)
