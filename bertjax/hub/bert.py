"""Hugging Face folders, made: BERT's weights under their names there, its vocabulary, and a card.

A linear layer's weight is [out, in] there and [in, out] here. Label 0 of their next-sentence head means that the
sentence does follow, which is label 1 here.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.config import BertConfig, Config
from bertjax.data.tokenizer.files import ROLES_FILE
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.runs.metrics import figures

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "layer_norm_eps": "layer_norm_eps",
}
HEADS = ("pooler", "mlm", "nsp")  # which a folder may lack
DEAD_BIAS = "cls.predictions.bias"  # tied it is the decoder's own bias too; untied, nothing adds it

_EMBEDDINGS = {
    "token_embedding": "word_embeddings",
    "segment_embedding": "token_type_embeddings",
    "position_embedding": "position_embeddings",
}
_LINEARS = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "ffn/in": "intermediate.dense",
    "ffn/out": "output.dense",
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}


def names(config: BertConfig) -> dict[str, str]:
    """For the path of every parameter here its name there."""
    table = {ours: f"bert.embeddings.{theirs}.weight" for ours, theirs in _EMBEDDINGS.items()}

    def add(ours: str, theirs: str, leaf: str) -> None:
        table[f"{ours}/{leaf}"], table[f"{ours}/bias"] = f"{theirs}.weight", f"{theirs}.bias"

    add("embedding_norm", "bert.embeddings.LayerNorm", "scale")
    for number in range(config.num_layers):
        for ours, theirs in _LINEARS.items():
            add(f"block_{number}/{ours}", f"bert.encoder.layer.{number}.{theirs}", "kernel")
        for ours, theirs in _NORMS.items():
            add(f"block_{number}/{ours}", f"bert.encoder.layer.{number}.{theirs}", "scale")
    add("pooler", "bert.pooler.dense", "kernel")
    add("mlm/hidden", "cls.predictions.transform.dense", "kernel")
    add("mlm/norm", "cls.predictions.transform.LayerNorm", "scale")
    if config.tie_word_embeddings:
        table["mlm/bias"] = DEAD_BIAS
    else:
        add("mlm/vocab", "cls.predictions.decoder", "kernel")
    add("nsp", "cls.seq_relationship", "kernel")
    return table


# What BERT's format has no place for: the values that it does carry, and why it carries no others.
_CARRIED: dict[str, tuple[tuple[Any, ...], str]] = {
    "norm": (("post",), "its norms stand after each sublayer"),
    "norm_kind": (("layer",), "its norms are layer norms"),
    "embedding_norm": ((True,), "its embeddings are always normalised"),
    "positions": (("learned",), "it has an embedding of each position"),
    "biases": ((True,), "its linear layers and norms have biases"),
    "hidden_act": (tuple(ACTIVATIONS), "its feed-forward layers have no gate"),
    "nsp_features": (("cls",), "its NSP head reads <cls> alone"),
}


def check_exportable(config: BertConfig, folder: Path) -> None:
    """Raises BertjaxError where the folder exists, or BERT's format cannot carry the model."""
    reasons, remedies = [], []
    for key, (values, reason) in _CARRIED.items():
        if getattr(config, key) not in values:
            reasons.append(f"model.{key}={_written(getattr(config, key))} ({reason})")
            remedies.append(f"model.{key}={' or '.join(map(_written, values))}")
    if reasons:
        raise BertjaxError(
            f"BERT's format has no place for {', '.join(reasons)}; train with {', '.join(remedies)}, "
            "or export with --format stablehlo, which carries any model"
        )
    if folder.exists():
        raise BertjaxError(f"{folder} exists and is left as it is; give another folder")


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def export(config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer, folder: Path, *, card: str) -> None:
    """Writes a folder that `transformers` and `sentence-transformers` load; it appears whole or not at all.

    Args:
      params: nested, as `Bert` has them.
      card: the text of README.md.

    Raises:
      BertjaxError: the folder exists or cannot be written, or BERT's format cannot carry the model.
    """
    check_exportable(config, folder)
    flat = dict(leaves(params))
    tensors = {theirs: to_theirs(ours, np.asarray(flat[ours])) for ours, theirs in names(config).items()}
    if not config.tie_word_embeddings:
        tensors[DEAD_BIAS] = tensors["cls.predictions.decoder.bias"].copy()  # or it would be missing there
    from safetensors.numpy import save_file

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            built = Path(unfinished) / "built"
            (built / "1_Pooling").mkdir(parents=True)
            save_file(tensors, built / "model.safetensors", metadata={"format": "pt"})
            (built / "tokenizer.json").write_text(tokenizer.to_hub_json(), encoding="utf-8")
            (built / "README.md").write_text(card, encoding="utf-8")
            for name, content in _json_files(config, tokenizer).items():
                (built / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            shutil.copymode(built / "config.json", built / "model.safetensors")  # which the library makes private
            os.rename(built, folder)
    except OSError as error:
        raise BertjaxError(f"cannot write {folder}: {error.strerror}; give another place") from error


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def to_theirs(ours: str, array: np.ndarray) -> np.ndarray:
    if ours.startswith("nsp/"):
        array = array[..., ::-1]
    return np.ascontiguousarray(array.T if ours.endswith("/kernel") else array, np.float32)


def to_ours(ours: str, array: np.ndarray) -> np.ndarray:
    array = array.T if ours.endswith("/kernel") else array
    return np.ascontiguousarray(array[..., ::-1] if ours.startswith("nsp/") else array, np.float32)


def _json_files(config: BertConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    pooling = {f"pooling_mode_{name}": name == "mean_tokens" for name in ("cls_token", "mean_tokens", "max_tokens")}
    modules = ("sentence_transformers.models.Transformer", ""), ("sentence_transformers.models.Pooling", "1_Pooling")
    return {
        "config.json": {
            "architectures": ["BertForPreTraining"],
            "model_type": "bert",
            **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
            "attention_probs_dropout_prob": config.dropout,
            "hidden_act": ACTIVATIONS[config.hidden_act],
            "type_vocab_size": 2,
            "initializer_range": config.init_scale,
            "pad_token_id": tokenizer.vocabulary.pad,
            "position_embedding_type": "absolute",
            "tie_word_embeddings": config.tie_word_embeddings,
            "torch_dtype": "float32",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.max_position,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "do_lower_case": tokenizer.rules.lowercase,
            **tokenizer.roles,
        },
        ROLES_FILE: tokenizer.roles,
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (kind, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": config.hidden_size, **pooling},
        "sentence_bert_config.json": {"max_seq_length": config.max_position, "do_lower_case": False},
    }


_PRIVATE = {"path", "eval_path", "cache"}


def card(run: Config, environment: dict[str, Any], held_out: dict[str, float], tokenizer: Tokenizer) -> str:
    """The folder's README.md: what was trained, on what, how well, and how to load it.

    Args:
      environment: of the run's environment.json.
      held_out: a line of metrics.jsonl with held-out figures, or an empty one.
    """
    corpus, model = environment["corpus"], run.model
    recipe = dataclasses.asdict(run)
    data = {key: value for key, value in recipe["data"].items() if key not in _PRIVATE}
    del recipe["tokenizer"]["path"]
    recipe = {"seed": run.seed, "data": data} | {
        part: recipe[part] for part in ("tokenizer", "model", "optim", "train")
    }
    begun = f" It began with the weights of `{Path(run.init_from).name}`." if run.init_from else ""
    evaluation = "It was not evaluated."
    if held_out:
        heads = "; ".join(
            f"{name} loss {loss:.3f}, accuracy {accuracy:.1%}"
            for name, loss, accuracy in figures(held_out, run.data.heads, prefix="held_out_")
        )
        evaluation = f"Held out, {corpus['held_out']['name']} at step {held_out['step']:,}: {heads}."
    return _CARD.format(
        **dataclasses.asdict(model) | {"vocab_size": tokenizer.vocab_size},
        text=corpus["train"]["name"],
        tokens=corpus["train"]["tokens"],
        steps=run.train.steps,
        batch_size=run.train.batch_size,
        begun=begun,
        sequences="sequences" if run.data.objective == "mlm" else "pairs of sentences",
        evaluation=evaluation,
        mask=tokenizer.rules.special[-1],
        versions=", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        recipe=json.dumps(recipe, indent=2),
    )


_CARD = """\
---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, sentence-transformers]
---

# A BERT pretrained with bertjax

{num_layers} layers, {hidden_size} hidden, {num_heads} heads, {vocab_size:,} tokens in the vocabulary. Trained on {text}
({tokens:,} tokens) for {steps:,} steps of {batch_size:,} {sequences}.{begun}

{evaluation}

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained("FOLDER") for kind in (AutoTokenizer, AutoModelForMaskedLM))
model(**tokenizer("the {mask} sat", return_tensors="pt")).logits
```

`sentence_transformers.SentenceTransformer("FOLDER")` gives one vector a text, the mean over its tokens, and
`bertjax.Encoder.load("FOLDER")` the same with JAX.

Versions: {versions}.

```json
{recipe}
```
"""
