"""RoBERTa (Liu et al. 2019, arXiv:1907.11692) in Hugging Face's format, and what has its weights and names.

Those are XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116) and CamemBERT (Martin et al. 2020, arXiv:1911.03894): they
differ in their tokenizers. Positions are numbered from the one after padding's number: the table has two rows more than
texts have tokens. A pooler, which a folder without a word head may have, is left out: no labels are told from it.
"""

import dataclasses
import functools
from collections.abc import Set
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family, transpose_kernels
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head

PAD = 1  # the number of padding
_UNUSED = PAD + 1  # rows of positions that no token has
LAYOUT = Layout(
    "roberta",
    pooler=None,
    nsp=None,
    hidden="lm_head.dense",
    norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    bias="lm_head.bias",
    other_heads=("classifier.", "qa_outputs.", "roberta.pooler."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with RoBERTa's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, default, values in (("pad_token_id", PAD, (PAD,)), ("type_vocab_size", 2, (1, 2))):
        if (value := theirs.get(key, default)) not in values:
            raise BertjaxError(f"{key}={value!r} is not supported; only {' or '.join(map(str, values))} is")
    config = bert.read_config({"vocab_size": 50265} | theirs | {"type_vocab_size": 2})
    if config.hidden_act != "gelu":
        raise BertjaxError(f"hidden_act={theirs['hidden_act']!r} is not supported; only 'gelu' is")
    if config.max_position <= _UNUSED:
        raise BertjaxError(
            f"max_position_embeddings={config.max_position} leaves no position for a token, as {_UNUSED} are not used"
        )
    positions, types = config.max_position - _UNUSED, theirs.get("type_vocab_size", 2)
    return dataclasses.replace(config, max_position=positions, token_types=types)


def write_config(config: BertConfig, heads: Set[str], architecture: str) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads, whose class's name begins with `architecture`."""
    named = {"architectures": [f"{architecture}{'ForMaskedLM' if 'mlm' in heads else 'Model'}"]}
    return bert.write_config(config, heads) | named | {"max_position_embeddings": config.max_position + _UNUSED}


def to_ours(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns the parameter at one of our paths, made of their tensor."""
    return array[_UNUSED:] if path == "position_embedding" else transpose_kernels(config, path, array)


def to_theirs(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns their tensor, made of the parameter at one of our paths."""
    if path == "position_embedding":
        return np.pad(array, ((_UNUSED, 0), (0, 0)))
    return transpose_kernels(config, path, array)


def _family(name: str, model_type: str, architecture: str) -> Family:
    return Family(
        name=name,
        model_type=model_type,
        architecture=architecture,
        carried=bert.CARRIED
        | {
            "token_types": Carried((1, 2), "it has an embedding of segments"),
            "hidden_act": Carried(("gelu",), "its word head knows no other"),
        },
        read_config=read_config,
        write_config=functools.partial(write_config, architecture=architecture),
        names=LAYOUT.names,
        text_head=text_head("classifier.dense", "classifier.out_proj", "tanh"),
        token_head=TOKEN_HEAD,
        answer_head=ANSWER_HEAD,
        to_ours=to_ours,
        to_theirs=to_theirs,
        after_reading=LAYOUT.after_reading,
        before_writing=LAYOUT.before_writing,
        pad=PAD,
    )


ROBERTA = _family("RoBERTa", "roberta", "Roberta")
XLM_ROBERTA = _family("XLM-RoBERTa", "xlm-roberta", "XLMRoberta")
CAMEMBERT = _family("CamemBERT", "camembert", "Camembert")
