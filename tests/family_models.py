"""Tiny random models of the real `transformers`, a family each, and their folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_tokenizers import ROLES, bpe, pieces, unigram, write

from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.family import Family
from bertjax.hub.folder import FAMILIES as KNOWN

torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")

ATOL = 1e-5
TEXTS = ["a crane is flying over it", "he just left", "cranes"]
PIECES = Tokenizer.train(TEXTS, min_frequency=1, rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS), vocab_size=60)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES |= {"max_position_embeddings": 40, "pad_token_id": 0}

ALBERT = {"embedding_size": 16, "hidden_act": "gelu_pytorch_tanh"}  # its default is the same but for rounding

DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": "p2c|c2p",
}

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roformer": {},
    "roformer narrow": {"embedding_size": 24},
    "roformer untied": {"tie_word_embeddings": False},
    "electra": {"embedding_size": 32},
    "electra small": {"embedding_size": 16},
    "electra untied": {"embedding_size": 32, "tie_word_embeddings": False},
    "albert": ALBERT,
    "albert untied": {"embedding_size": 16, "tie_word_embeddings": False, "hidden_act": "relu"},
    "roberta": {},
    "roberta untied": {"tie_word_embeddings": False, "type_vocab_size": 2},
    "xlm-roberta": {},
    "camembert": {},
    "nomic_bert": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "nomic_bert gelu": {"hidden_act": "gelu", "type_vocab_size": 1},
    "jina_embeddings_v3": {},
    "jina_embeddings_v3 untied": {"tie_word_embeddings": False, "type_vocab_size": 2},
    "deberta-v2": DEBERTA,
    "mpnet": {},
    "deberta-v2 segments": DEBERTA | {"type_vocab_size": 2, "hidden_act": "relu", "pooler_hidden_act": "relu"},
    "mpnet untied": {"tie_word_embeddings": False},
    "distilbert": {},
    "distilbert untied": {"tie_word_embeddings": False, "activation": "relu"},
    "modernbert": {"local_attention": 4, "num_hidden_layers": 4},
    "modernbert global": {"global_attn_every_n_layers": 1, "global_rope_theta": 500.0},
    "modernbert silu": {"hidden_activation": "silu", "classifier_activation": "silu", "local_attention": 6},
}

HEADS: dict[str, dict[str, Any]] = {  # where heads for labels and answers are tried
    "bert": {},
    "albert": ALBERT,
    "roformer": {},
    "distilbert": {},
    "electra": {"embedding_size": 16},
    "modernbert": {"local_attention": 4, "num_hidden_layers": 4},
    "modernbert mean": {"local_attention": 4, "num_hidden_layers": 4, "classifier_pooling": "mean"},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "nomic_bert": {},
    "jina_embeddings_v3": {},
    "deberta-v2": DEBERTA,
    "mpnet": {},
}


WHOLE = {  # families whose padding is token 1: what makes a tokenizer, and its class
    "roberta": (bpe, "RobertaTokenizer"),
    "xlm-roberta": (unigram, "XLMRobertaTokenizer"),
    "camembert": (unigram, "CamembertTokenizer"),
    "mpnet": (pieces, "MPNetTokenizer"),
}


def theirs(name: str, settings: dict[str, Any], kind: Any = transformers.AutoModelForMaskedLM) -> Any:
    """A random model of theirs, by default one that predicts words, whose norms and biases differ from 1 and 0."""
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": PIECES.vocab_size} | settings
    kind_of_model = name.split()[0]
    if kind_of_model == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    if kind_of_model in WHOLE:
        made = WHOLE[kind_of_model][0]()
        sizes = {"type_vocab_size": 1} | sizes | {"vocab_size": made.get_vocab_size(), "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(kind_of_model, **sizes)
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(folder: Path, name: str, settings: dict[str, Any], kind: Any = transformers.AutoModelForMaskedLM) -> Any:
    """A model as `theirs` makes it, which a folder has together with its tokenizer."""
    model = theirs(name, settings, kind)
    write_tokenizer(folder, name, segments=has_segments(model))
    model.save_pretrained(folder)
    return model


def has_segments(model: Any) -> bool:
    return getattr(model.config, "type_vocab_size", 0) > 1


def family_of(name: str) -> Family:
    return next(family for family in KNOWN if family.model_type == name.split()[0])


def outputs(model: Any, ids_bt: np.ndarray, mask_bt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last hidden states and the words' logits of theirs."""
    with torch.no_grad():
        ids, mask = torch.from_numpy(ids_bt).long(), torch.from_numpy(mask_bt).long()
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = model(input_ids=ids, attention_mask=mask).logits
    return hidden.numpy(), logits.numpy()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, beside the largest number if that is above 1: float32 is no finer."""
    return float(np.abs(ours - theirs).max() / max(1, np.abs(theirs).max()))


def write_tokenizer(folder: Path, name: str, *, segments: bool) -> None:
    """The tokenizer as one of their folders has it."""
    if name.split()[0] in WHOLE:
        make, made_by = WHOLE[name.split()[0]]
        write(folder, make(), tokenizer_class=made_by, **ROLES)
        return
    folder.mkdir()
    (folder / "tokenizer.json").write_text(PIECES.to_hub_json())
    inputs = ["input_ids", *(["token_type_ids"] * segments), "attention_mask"]
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_input_names=inputs, **PIECES.roles
    )
    made.save_pretrained(folder)
