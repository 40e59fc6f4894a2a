"""RoFormer (Su et al. 2021, arXiv:2104.09864) in Hugging Face's format: BERT with rotary positions.

It turns neighbouring features of queries and keys by one angle, (0, 1), (2, 3), ...; here feature i goes with i + e/2.
So the rows of their weights stand in another order. It has no NSP head,
and a pooler of its own where it tells labels of texts.
"""

import dataclasses
from collections.abc import Set
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head
from bertjax.hub.tensors import Tensors

_LAYOUT = Layout("roformer", pooler=None, nsp=None)
_ANGLES = "roformer.encoder.embed_positions.weight"  # a constant that they save; it follows from the sizes
_ROUNDING = 0.01  # of angles that were saved in bfloat16
_TURNED = ("attention/query/kernel", "attention/query/bias", "attention/key/kernel", "attention/key/bias")


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with RoFormer's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    if theirs.get("rotary_value"):
        raise BertjaxError("rotary_value=true is not supported; only false is")
    settings = {"vocab_size": 50000, "max_position_embeddings": 1536} | theirs
    config = dataclasses.replace(bert.read_config(settings), positions="rotary", pooler_act="hidden_act")
    size = theirs.get("embedding_size")
    return config if size is None else bert.with_embedding_size(config, size)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = bert.write_config(config, heads)
    del written["position_embedding_type"]
    architecture = "RoFormerForMaskedLM" if "mlm" in heads else "RoFormerModel"
    return written | {"architectures": [architecture], "embedding_size": config.embedding_width, "rotary_value": False}


def to_ours(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns the parameter at one of our paths, made of their tensor."""
    return _reordered(config, path, bert.to_ours(config, path, array), (-1, 2))


def to_theirs(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns their tensor, made of the parameter at one of our paths."""
    return bert.to_theirs(config, path, _reordered(config, path, array, (2, -1)))


def _reordered(config: BertConfig, path: str, array: np.ndarray, pairs: tuple[int, int]) -> np.ndarray:
    """Returns the features of each head of queries and keys in the other order."""
    if not path.endswith(_TURNED) or array.shape[-1] % (2 * config.num_heads):
        return array
    return array.reshape(*array.shape[:-1], config.num_heads, *pairs).swapaxes(-1, -2).reshape(array.shape)


def after_reading(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns a folder's tensors under today's names, as of a BERT, without the angles.

    Raises:
      BertjaxError: as of a BERT; or its angles are others than those that follow from its sizes.
    """
    tensors = _LAYOUT.after_reading(config, tensors)
    angles, shape = tensors.pop(_ANGLES, None), (config.max_position, config.hidden_size // config.num_heads)
    if angles is not None and not (angles.shape == shape and np.abs(angles - _angles(config)).max() < _ROUNDING):
        raise BertjaxError(f"{_ANGLES} has other angles than those of base 10,000; no others can be read")
    return tensors


def before_writing(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns the tensors with the angles, of which they have first all sines and then all cosines."""
    return _LAYOUT.before_writing(config, tensors) | {_ANGLES: _angles(config)}


def _angles(config: BertConfig) -> np.ndarray:
    half = config.hidden_size // config.num_heads // 2
    angles = np.arange(config.max_position)[:, None] * 10_000.0 ** (-np.arange(half) / half)
    return np.concatenate((np.sin(angles), np.cos(angles)), -1).astype(np.float32)


ROFORMER = Family(
    name="RoFormer",
    model_type="roformer",
    architecture="RoFormer",
    carried=bert.OF_ANY_WIDTH
    | {
        "positions": Carried(("rotary",), "its positions are rotary"),
        "rotary_theta": Carried((10_000.0,), "its angles have one base"),
    },
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=text_head("classifier.dense", "classifier.out_proj", "hidden_act"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    to_ours=to_ours,
    to_theirs=to_theirs,
    after_reading=after_reading,
    before_writing=before_writing,
    tokenizer_class="PreTrainedTokenizerFast",  # its own splits Chinese by a library that few have
)
