"""Nomic BERT (Nussbaum et al. 2024, arXiv:2402.01613) in Hugging Face's format: BERT with rotary positions and SwiGLU.

The linear layers of its encoder layers have no biases. Settings are read under the names that the model's own code had,
too; weights have these names still, whatever transformers calls them inside.
"""

from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family, read_settings, read_theta
from bertjax.hub.layout import TOKEN_HEAD, Layout, text_head

_ACTIVATIONS = {"silu": "swiglu", "swiglu": "swiglu", "gelu": "geglu", "geglu": "geglu"}
_DEFAULTS = {
    "vocab_size": 30528,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 2048,
    "hidden_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "hidden_act": "silu",
}
_OLD_KEYS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "hidden_dropout_prob": "resid_pdrop",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
_FIXED = {  # the only value of each that we compute, which is also what it is where it is not given
    "tie_word_embeddings": True,
    "prenorm": False,
    "parallel_block": False,
    "use_rms_norm": False,
    "causal": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
}
_LAYOUT = Layout(
    "nomic_bert",
    "encoder.layers",
    linears={
        **dict.fromkeys(("attention/query", "attention/key", "attention/value"), "attn.Wqkv"),
        "attention/out": "attn.out_proj",
        "ffn/in": "mlp.fc12",
        "ffn/gate": "mlp.fc11",
        "ffn/out": "mlp.fc2",
    },
    norms={"attention_norm": "norm1", "ffn_norm": "norm2"},
    embedding_norm="emb_ln",
    pooler=None,
    nsp=None,
    norm="cls.predictions.transform.layer_norm",
    other_heads=("classifier.", "nomic_bert.pooler."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with those of nomic-embed-text-v1.5 for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, value in _FIXED.items():
        if theirs.get(key, value) != value:
            raise BertjaxError(f"{key}={theirs[key]!r} is not supported; only {value!r} is")
    old = {key: theirs[old_key] for key, old_key in _OLD_KEYS.items() if old_key in theirs}
    theirs = {**_DEFAULTS, **old, **theirs}
    if (types := theirs.get("type_vocab_size", 2)) not in (1, 2):
        raise BertjaxError(f"type_vocab_size={types!r} is not supported; only 1 or 2 is")
    if (activation := theirs["hidden_act"]) not in _ACTIVATIONS:
        raise BertjaxError(f"hidden_act={activation!r} is not supported; only {', '.join(_ACTIVATIONS)} are")
    settings = read_settings(theirs, bert.SETTINGS)
    features = settings["hidden_size"] // max(1, settings["num_heads"])
    if (given := theirs.get("head_dim")) not in (None, features):
        raise BertjaxError(f"head_dim={given!r} is not supported; only {features}, hidden_size / its heads, is")
    base = theirs.get("rotary_emb_base", 1000.0)
    return BertConfig(
        **settings,
        hidden_act=_ACTIVATIONS[activation],  # type: ignore[arg-type]  # one of the names
        positions="rotary",
        rotary_theta=read_theta(theirs.get("rope_parameters") or {}, "rope_theta", base),
        token_types=types,
        block_biases=False,
    )


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    return {
        "architectures": ["NomicBertForMaskedLM" if "mlm" in heads else "NomicBertModel"],
        **{theirs: getattr(config, ours) for ours, theirs in bert.SETTINGS.items()},
        "attention_probs_dropout_prob": config.dropout,
        "hidden_act": "silu" if config.hidden_act == "swiglu" else "gelu",
        "type_vocab_size": config.token_types,
        "initializer_range": config.init_scale,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_theta},
        "tie_word_embeddings": True,
    }


NOMIC_BERT = Family(
    name="Nomic BERT",
    model_type="nomic_bert",
    architecture="NomicBert",
    carried=bert.CARRIED
    | {
        "positions": Carried(("rotary",), "its positions are rotary"),
        "token_types": Carried((1, 2), "it has an embedding of segments"),
        "block_biases": Carried((False,), "its layers' linear layers have no biases"),
        "hidden_act": Carried(("geglu", "swiglu"), "its feed-forward layers have a gate"),
        "tie_word_embeddings": Carried((True,), "its word head is the token embedding"),
    },
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=text_head("nomic_bert.pooler.dense", "classifier", "tanh"),
    token_head=TOKEN_HEAD,
    answer_head=None,  # it has none
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
)
