"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) in Hugging Face's format.

Norms before the sublayers but for the first one, rotary positions, GeGLU, no biases, local attention in some layers and
no token types: it knows no second sentence, and has no NSP head. What is below its words is below its labels too: a
linear layer and a norm.
"""

from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.family import Carried, Family, LabelHead, read_settings, read_theta
from bertjax.hub.tensors import Tensors

SETTINGS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position": "max_position_embeddings",
    "layer_norm_eps": "norm_eps",
}
_DEFAULTS = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
}
_FIXED = {"norm_bias": False, "attention_bias": False, "mlp_bias": False, "classifier_bias": False}
_FIXED |= {"decoder_bias": True, "tie_word_embeddings": True}
_DROPOUTS = ("embedding_dropout", "attention_dropout", "mlp_dropout")
_ACTIVATIONS = {"gelu": "geglu", "silu": "swiglu"}  # of the feed-forward layers there, and here
_LAYERS = {True: "full_attention", False: "sliding_attention"}  # by whether they see whole texts
_TASK_HEADS = ("classifier.", "drop.")
_WORDS_BIAS = "decoder.bias"  # which is there where the head is that of words
_PARTS = ("embeddings.", "layers.", "final_norm.")  # under these names where it was saved without a head


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with ModernBERT-base's for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, value in _FIXED.items():
        if theirs.get(key, value) != value:
            raise BertjaxError(f"{key}={theirs[key]!r} is not supported; only {value!r} is")
    activation = theirs.get("hidden_activation", "gelu")
    if activation not in ("gelu", "silu"):
        raise BertjaxError(f"hidden_activation={activation!r} is not supported; only gelu, silu are")
    if (of_head := theirs.get("classifier_activation", "gelu")) != activation:
        raise BertjaxError(f"classifier_activation={of_head!r} is not supported; only that of hidden_activation is")
    if (pooling := theirs.get("classifier_pooling", "cls")) not in ("cls", "mean"):
        raise BertjaxError(f"classifier_pooling={pooling!r} is not supported; only cls, mean are")
    settings = read_settings(_DEFAULTS | theirs, SETTINGS)
    window = theirs.get("local_attention", 128)
    if isinstance(window, bool) or not isinstance(window, int) or window < 2:
        raise BertjaxError(f"local_attention={window!r} is not a number of tokens; fetch it again")
    every = _global_every(theirs, settings["num_layers"])
    return BertConfig(
        **settings,
        dropout=_dropout(theirs),
        norm="pre",
        first_attention_norm=False,
        positions="rotary",
        rotary_theta=_theta(theirs, "full_attention", "global_rope_theta", 160_000.0),
        window=0 if every == 1 else window // 2,
        global_every=every if every > 1 else BertConfig.global_every,
        local_rotary_theta=_theta(theirs, "sliding_attention", "local_rope_theta", 10_000.0) if every > 1 else None,
        hidden_act=_ACTIVATIONS[activation],  # type: ignore[arg-type]  # one of the names
        biases=False,
        token_types=0,
        pooler_act="hidden_act",
        pooler_norm=True,
        classifier_pooling=pooling,
        classifier_bias=True,
    )


def _dropout(theirs: dict[str, Any]) -> float:
    """The rate of all parts, of which we have one: the model is the same with any, so theirs may differ."""
    rates = [theirs.get(key, 0.0) for key in _DROPOUTS]
    if any(isinstance(rate, bool) or not isinstance(rate, int | float) for rate in rates):
        raise BertjaxError(f"{', '.join(_DROPOUTS)} are not all numbers; fetch it again")
    return float(max(rates))


def _global_every(theirs: dict[str, Any], num_layers: int) -> int:
    """Every how many layers one sees whole texts; layer_types says it of each, since transformers 5."""
    kinds = theirs.get("layer_types")
    every = theirs.get("global_attn_every_n_layers", 3)
    if kinds is not None:
        local = [kind != _LAYERS[True] for kind in kinds] if isinstance(kinds, list) else []
        every = local.index(False, 1) if False in local[1:] else max(num_layers, 2)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise BertjaxError(f"global_attn_every_n_layers={every!r} is not a number of layers; fetch it again")
    if kinds is not None and kinds != [_LAYERS[layer % every == 0] for layer in range(num_layers)]:
        raise BertjaxError("layer_types are not supported but for full_attention in every n-th layer from the first on")
    return every


def _theta(theirs: dict[str, Any], kind: str, old_key: str, default: float) -> float:
    """The base of the angles in layers of a kind, under its new name or the old one."""
    rope = (theirs.get("rope_parameters") or {}).get(kind) or {}
    return read_theta(rope, old_key, theirs.get(old_key, default))


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    layers = range(config.num_layers)
    thetas = {
        _LAYERS[True]: config.rotary_theta,
        _LAYERS[False]: config.rotary_theta if config.local_rotary_theta is None else config.local_rotary_theta,
    }
    return {
        "architectures": ["ModernBertForMaskedLM" if "mlm" in heads else "ModernBertModel"],
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
        **_FIXED,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "hidden_activation": "gelu" if config.hidden_act == "geglu" else "silu",
        "classifier_activation": "gelu" if config.hidden_act == "geglu" else "silu",
        "classifier_pooling": config.classifier_pooling,
        "initializer_range": config.init_scale,
        "local_attention": 2 * config.window or 128,
        "layer_types": [_LAYERS[config.window_of(layer) is None] for layer in layers],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
        # As it was said before transformers 5.
        "global_attn_every_n_layers": config.global_every if config.window else 1,
        "global_rope_theta": thetas[_LAYERS[True]],
        "local_rope_theta": thetas[_LAYERS[False]],
    }


def names(config: BertConfig) -> dict[str, str]:
    """Returns for the path of every parameter here its name there; the NSP head has none."""
    table = {"token_embedding": "model.embeddings.tok_embeddings.weight"}
    table |= {"embedding_norm/scale": "model.embeddings.norm.weight", "final_norm/scale": "model.final_norm.weight"}
    for number in range(config.num_layers):
        ours, theirs = f"block_{number}", f"model.layers.{number}"
        table |= {f"{ours}/attention/{part}/kernel": f"{theirs}.attn.Wqkv.weight" for part in ("query", "key", "value")}
        table |= {f"{ours}/ffn/{part}/kernel": f"{theirs}.mlp.Wi.weight" for part in ("in", "gate")}
        table |= {f"{ours}/attention/out/kernel": f"{theirs}.attn.Wo.weight"}
        table |= {
            f"{ours}/ffn/out/kernel": f"{theirs}.mlp.Wo.weight",
            f"{ours}/ffn_norm/scale": f"{theirs}.mlp_norm.weight",
        }
        if number or config.first_attention_norm:
            table[f"{ours}/attention_norm/scale"] = f"{theirs}.attn_norm.weight"
    table |= {"mlm/hidden/kernel": "head.dense.weight", "mlm/norm/scale": "head.norm.weight"}
    return table | {"mlm/bias": _WORDS_BIAS}


def after_reading(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns a folder's tensors with the names that they have beside a head, without the decoder's tied copy."""
    tensors = {f"model.{name}" if name.startswith(_PARTS) else name: array for name, array in tensors.items()}
    left_out = (*_TASK_HEADS, "decoder.weight", *(() if _WORDS_BIAS in tensors else ("head.",)))
    return {name: array for name, array in tensors.items() if not name.startswith(left_out)}


MODERNBERT = Family(
    name="ModernBERT",
    model_type="modernbert",
    architecture="ModernBert",
    carried={
        "norm": Carried(("pre",), "its norms stand before each sublayer"),
        "norm_kind": Carried(("layer",), "its norms are layer norms"),
        "first_attention_norm": Carried((False,), "its first layer's attention has none"),
        "embedding_norm": Carried((True,), "its embeddings are always normalised"),
        "positions": Carried(("rotary",), "its positions are rotary"),
        "relative_attention_bias": Carried((False,), "its attention has no bias of distances"),
        "biases": Carried((False,), "its linear layers and norms have no biases"),
        "hidden_act": Carried(("geglu", "swiglu"), "its feed-forward layers have a gate"),
        "share_layers": Carried((False,), "its layers have parameters of their own"),
        "embedding_size": Carried((None,), "its embeddings are as wide as its layers"),
        "token_types": Carried((0,), "it has no segments"),
        "tie_word_embeddings": Carried((True,), "its word head is the token embedding"),
    },
    read_config=read_config,
    write_config=write_config,
    names=names,
    text_head=LabelHead(
        {
            "pooler/kernel": "head.dense.weight",
            "pooler/norm/scale": "head.norm.weight",
            "classifier/kernel": "classifier.weight",
            "classifier/bias": "classifier.bias",
        },
        carried={
            "pooler_act": Carried(("hidden_act",), "its head for labels has that of its layers"),
            "pooler_norm": Carried((True,), "its head for labels has one"),
            "classifier_bias": Carried((True,), "its labels have them"),
        },
    ),
    token_head=None,  # whose labels have a layer below them too
    answer_head=None,  # likewise
    after_reading=after_reading,
)
