"""Pretrain BERT encoders in JAX."""

import importlib

# Not typing's own: `python -m bertjax` comes by here before it leaves out the user's folder, where a types.py may be.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bertjax.config import BertConfig as BertConfig
    from bertjax.config import Config as Config
    from bertjax.config import MeshConfig as MeshConfig
    from bertjax.config.recipes import load_config as load_config
    from bertjax.errors import BertjaxError as BertjaxError
    from bertjax.inference.answerer import Answerer as Answerer
    from bertjax.inference.classifier import Classifier as Classifier
    from bertjax.inference.encoder import Encoder as Encoder
    from bertjax.inference.matcher import Matcher as Matcher
    from bertjax.inference.tagger import Tagger as Tagger
    from bertjax.models.bert import Bert as Bert
    from bertjax.train.finetune import finetune as finetune
    from bertjax.train.pretrain import pretrain as pretrain
    from bertjax.train.sweep import sweep as sweep

# Looked up when first asked for: `bertjax --help` must not wait for jax.
_MODULES = {
    "Answerer": "inference.answerer",
    "Bert": "models.bert",
    "BertConfig": "config",
    "BertjaxError": "errors",
    "Classifier": "inference.classifier",
    "Config": "config",
    "Encoder": "inference.encoder",
    "Matcher": "inference.matcher",
    "MeshConfig": "config",
    "Tagger": "inference.tagger",
    "finetune": "train.finetune",
    "load_config": "config.recipes",
    "pretrain": "train.pretrain",
    "sweep": "train.sweep",
}
__all__ = [
    "Answerer",
    "Bert",
    "BertConfig",
    "BertjaxError",
    "Classifier",
    "Config",
    "Encoder",
    "Matcher",
    "MeshConfig",
    "Tagger",
    "finetune",
    "load_config",
    "pretrain",
    "sweep",
]


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertjax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
