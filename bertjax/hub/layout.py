"""Names of the weights of families that are built as BERT is: what of them differs, and what they settle alike."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.family import Carried, LabelHead
from bertjax.hub.tensors import Tensors

_LINEARS = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "ffn/in": "intermediate.dense",
    "ffn/out": "output.dense",
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}


_OF_LABELS = {"kernel": "weight", "bias": "bias"}
# For labels of tokens, and for answers, most families have a linear layer of these names.
TOKEN_HEAD = LabelHead({f"classifier/{ours}": f"classifier.{theirs}" for ours, theirs in _OF_LABELS.items()})
ANSWER_HEAD = LabelHead({f"classifier/{ours}": f"qa_outputs.{theirs}" for ours, theirs in _OF_LABELS.items()})


def text_head(pooler: str | None, classifier: str, activation: str) -> LabelHead:
    """Returns a head for labels of texts: a linear layer on the first token, an activation and a linear layer.

    Args:
      pooler: name of the first layer; None where the model has a pooler without the head too.
      classifier: name of the last layer.
      activation: of `BertConfig.pooler_act`.
    """
    layers = {"classifier": classifier} | ({} if pooler is None else {"pooler": pooler})
    return LabelHead(
        {f"{part}/{ours}": f"{name}.{theirs}" for part, name in layers.items() for ours, theirs in _OF_LABELS.items()},
        carried={
            "pooler_act": Carried((activation,), "its head for labels of texts has no other"),
            "pooler_norm": Carried((False,), "its head for labels of texts has none"),
            "classifier_pooling": Carried(("cls",), "its labels are told from the first token"),
        },
    )


class Layout(NamedTuple):
    """Names of a family's weights; the defaults are BERT's."""

    base: str = "bert"  # what names of the encoder's begin with; a model saved without heads may leave it out
    layers: str = "encoder.layer"
    linears: Mapping[str, str] = _LINEARS  # of a layer
    norms: Mapping[str, str] = _NORMS  # of a layer
    embedding_norm: str = "embeddings.LayerNorm"  # after the base
    projection: str = "embeddings_project"  # after the base; of embeddings that are not as wide as the layers
    pooler: str | None = "pooler.dense"  # after the base; None where there is none
    nsp: str | None = "cls.seq_relationship"  # None where there is none
    hidden: str = "cls.predictions.transform.dense"  # of the MLM head
    norm: str = "cls.predictions.transform.LayerNorm"
    decoder: str = "cls.predictions.decoder"
    bias: str = "cls.predictions.bias"  # tied it is the decoder's own bias too; untied, nothing adds it
    # What begins names of other heads, which are left out.
    other_heads: tuple[str, ...] = ("classifier.", "qa_outputs.")

    def names(self, config: BertConfig) -> dict[str, str]:
        """Returns for the path of every parameter here its name there, but for those it has no place for."""
        table = {"token_embedding": f"{self.base}.embeddings.word_embeddings.weight"}
        if config.token_types:
            table["segment_embedding"] = f"{self.base}.embeddings.token_type_embeddings.weight"
        if config.positions == "learned":
            table["position_embedding"] = f"{self.base}.embeddings.position_embeddings.weight"

        def add(ours: str, theirs: str, leaf: str) -> None:
            table[f"{ours}/{leaf}"], table[f"{ours}/bias"] = f"{theirs}.weight", f"{theirs}.bias"

        add("embedding_norm", f"{self.base}.{self.embedding_norm}", "scale")
        if config.embedding_size is not None:
            add("embedding_projection", f"{self.base}.{self.projection}", "kernel")
        for number in range(config.num_blocks):
            for ours, theirs in self.linears.items():
                add(f"block_{number}/{ours}", f"{self.base}.{self.layers}.{number}.{theirs}", "kernel")
                if not config.block_biases:
                    del table[f"block_{number}/{ours}/bias"]
            for ours, theirs in self.norms.items():
                add(f"block_{number}/{ours}", f"{self.base}.{self.layers}.{number}.{theirs}", "scale")
        if config.nsp_features == "cls" and self.pooler is not None:
            add("pooler", f"{self.base}.{self.pooler}", "kernel")
        if config.nsp_features == "cls" and self.nsp is not None:
            add("nsp", self.nsp, "kernel")
        add("mlm/hidden", self.hidden, "kernel")
        add("mlm/norm", self.norm, "scale")
        if config.tie_word_embeddings:
            table["mlm/bias"] = self.bias
        else:
            add("mlm/vocab", self.decoder, "kernel")
        return table

    def after_reading(self, config: BertConfig, tensors: Tensors) -> Tensors:
        """Returns a folder's tensors under today's names, the decoder settled, other heads left out.

        A tied decoder may be in the file once more; of the two biases there, an untied one adds the decoder's own.

        Raises:
          BertjaxError: a decoder that config.json has as tied is not.
        """
        constants = (f"{self.base}.embeddings.position_ids", f"{self.base}.embeddings.token_type_ids")  # once saved
        tensors = {self._modern(name): array for name, array in tensors.items()}
        tensors = {
            name: array for name, array in tensors.items() if not name.startswith((*self.other_heads, *constants))
        }
        own = f"{self.decoder}.bias"
        if not config.tie_word_embeddings:
            if own != self.bias and (bias := tensors.pop(self.bias, None)) is not None:
                tensors.setdefault(own, bias)
            return tensors
        ties = {f"{self.decoder}.weight": f"{self.base}.embeddings.word_embeddings.weight", own: self.bias}
        for copy, original in ties.items():
            if copy == original or copy not in tensors:
                continue
            if not np.array_equal(tensors[copy], tensors.setdefault(original, tensors[copy]), True):
                raise BertjaxError(
                    f"{copy} is not {original}, as its config.json has it; set tie_word_embeddings to false there"
                )
            del tensors[copy]
        return tensors

    def before_writing(self, config: BertConfig, tensors: Tensors) -> Tensors:
        """Returns the tensors with the bias that nothing adds: it would be missing to `transformers`."""
        own = f"{self.decoder}.bias"
        if config.tie_word_embeddings or own not in tensors or own == self.bias:
            return tensors
        return tensors | {self.bias: tensors[own].copy()}

    def _modern(self, name: str) -> str:
        """Returns today's name: old folders have TensorFlow's names for norms, those without heads lack the base."""
        if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        own = (self.layers.partition(".")[0], self.embedding_norm.partition(".")[0], self.projection)
        parts = ("embeddings.", "pooler.", *(f"{part}." for part in own))
        return f"{self.base}.{name}" if name.startswith(parts) else name
