"""ELECTRA (Clark et al. 2020, arXiv:2003.10555) in Hugging Face's format: BERT without pooler and NSP.

A discriminator, which tells words that were replaced, has no word head here; only the generator has one.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head

_LAYOUT = Layout(
    "electra",
    pooler=None,
    nsp=None,
    hidden="generator_predictions.dense",
    norm="generator_predictions.LayerNorm",
    decoder="generator_lm_head",
    bias="generator_lm_head.bias",
    other_heads=("discriminator_predictions.", "classifier.", "qa_outputs."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with ELECTRA's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    config = dataclasses.replace(bert.read_config(sizes | theirs), pooler_act="hidden_act")
    if config.hidden_act != "gelu":
        raise BertjaxError(f"hidden_act={theirs['hidden_act']!r} is not supported; only 'gelu' is")
    return bert.with_embedding_size(config, theirs.get("embedding_size", 128))


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    architecture = "ElectraForMaskedLM" if "mlm" in heads else "ElectraModel"
    written = bert.write_config(config, heads)
    return written | {"architectures": [architecture], "embedding_size": config.embedding_width}


ELECTRA = Family(
    name="ELECTRA",
    model_type="electra",
    architecture="Electra",
    carried=bert.OF_ANY_WIDTH | {"hidden_act": Carried(("gelu",), "its word head knows no other")},
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=text_head("classifier.dense", "classifier.out_proj", "hidden_act"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
)
