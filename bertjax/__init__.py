"""Pretrain BERT encoders in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertjax.config import BertConfig as BertConfig
    from bertjax.config import Config as Config
    from bertjax.config.recipes import load_config as load_config
    from bertjax.errors import BertjaxError as BertjaxError
    from bertjax.inference.encoder import Encoder as Encoder
    from bertjax.models.bert import Bert as Bert
    from bertjax.train.pretrain import pretrain as pretrain

# Looked up when first asked for: `bertjax --help` must not wait for jax.
_MODULES = {
    "Bert": "models.bert",
    "BertConfig": "config",
    "BertjaxError": "errors",
    "Config": "config",
    "Encoder": "inference.encoder",
    "load_config": "config.recipes",
    "pretrain": "train.pretrain",
}
__all__ = ["Bert", "BertConfig", "BertjaxError", "Config", "Encoder", "load_config", "pretrain"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertjax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
