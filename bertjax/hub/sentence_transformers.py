"""What sentence-transformers keeps beside a model: how the vector of a text is made of those of its tokens, both ways.

modules.json lists the modules: Transformer, which is the model itself, Pooling, and what comes after it. Their types
have moved from version to version, but for the last part of their names.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bertjax.data.tokenizer.settings import read_json
from bertjax.errors import BertjaxError
from bertjax.hub.tensors import WHOLE, Tensors, as_float32, read_tensors
from bertjax.models.sentence import ACTIVATIONS, POOLINGS, Dense, Layer, LayerNorm, Normalize, Truncate, vector_size

OF_RUN = "sentence"  # the folder in which a run that learned embeddings keeps all this
_MODULES = "modules.json"
_SETTINGS = "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
# Up to version 5 a key for each kind of pooling, true or false; since then one key with a name, or several in a list.
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OTHER_POOLING_KEYS = ("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt")
# Of the other settings the only value that we compute, which is also what each is where it is not given.
_TRANSFORMER_FIXED: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
    "processing_kwargs": {},
}
_INSTEAD = f"; without {_MODULES} the model alone is read"
_LAYER_FIXED = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


class SentenceSettings(NamedTuple):
    """How the vector of a text is made; by default the mean over all tokens."""

    pooling: tuple[str, ...] = ("mean",)  # of `POOLINGS`; what several make stands one after the other
    layers: tuple[Layer, ...] = ()  # what follows
    normalize: bool = False  # whether each vector is scaled to length 1 at the end
    max_length: int | None = None  # tokens of a text that are read, special ones included; None for all that fit
    prompts: Mapping[str, str] = MappingProxyType({})  # texts that may be put before each text, by name
    default_prompt_name: str | None = None  # of the one that is, unless another is asked for
    pools_prompt: bool = True  # whether the prompt's tokens are pooled too

    @property
    def default_prompt(self) -> str:
        """What is put before each text unless another prompt is asked for."""
        return self.prompts.get(self.default_prompt_name or "", "")


# Reading.


def read_settings(folder: Path, hidden_size: int, *, lowercases: bool) -> SentenceSettings:
    """Returns how the folder makes vectors of texts; by the mean over all tokens where it has no modules.json.

    Args:
      folder: of a model, or of a run.
      hidden_size: of the model in the folder.
      lowercases: whether its tokenizer does.

    Raises:
      BertjaxError: there is a module or a setting that we cannot compute, or a file is damaged.
    """
    folder = folder / OF_RUN if (folder / OF_RUN / _MODULES).is_file() else folder
    path = folder / _MODULES
    if not path.is_file():
        return SentenceSettings()
    modules = _read_modules(path)
    kinds = [_kind(type_) for type_, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        began = " and ".join(type_ for type_, _ in modules[:2]) or "nothing"
        raise BertjaxError(f"{path} begins with {began}; only Transformer and then Pooling are supported{_INSTEAD}")
    if modules[0][1] != folder:
        raise BertjaxError(f"{path} has its Transformer in {modules[0][1]}; only one beside it can be read")
    max_length = _read_max_length(folder, lowercases)
    pooling, pools_prompt = _read_pooling(modules[1][1], hidden_size)
    layers: list[Layer] = []
    size = len(pooling) * hidden_size
    for number, (type_, place) in enumerate(modules[2:], 2):
        if (kind := _kind(type_)) not in _READERS:
            raise BertjaxError(
                f"{path}: module {number} is {type_}; after Pooling only {', '.join(_READERS)} are supported{_INSTEAD}"
            )
        if (layer := _READERS[kind](place, size)) is not None:
            layers.append(layer)
            size = vector_size([layer], size)
    prompts, default_prompt_name, truncate_dim = _read_prompts(folder / _SETTINGS)
    if truncate_dim is not None:
        layers.append(Truncate(truncate_dim))
    if normalize := bool(layers) and isinstance(layers[-1], Normalize):
        layers.pop()
    return SentenceSettings(pooling, tuple(layers), normalize, max_length, prompts, default_prompt_name, pools_prompt)


def _read_modules(path: Path) -> list[tuple[str, Path]]:
    """Returns the type and the folder of each module."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        modules = [(str(module["type"]), str(module["path"])) for module in content]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise BertjaxError(f"{path} does not tell its modules: {error!r}; fetch it again") from None
    for _, place in modules:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise BertjaxError(f"{path} has a module in {place!r}, outside the folder; fetch it again")
    return [(type_, path.parent / place) for type_, place in modules]


def _kind(type_: str) -> str:
    """Returns the last part of a type's name where it is one of sentence-transformers' own."""
    return type_.rpartition(".")[2] if type_.startswith("sentence_transformers.") else type_


def _read_max_length(folder: Path, lowercases: bool) -> int | None:
    path = folder / _TRANSFORMER
    fixed = _TRANSFORMER_FIXED | ({} if lowercases else {"do_lower_case": False})
    _check_fixed(path, read_json(path, needed=False), fixed)
    of_tokenizer = folder / "tokenizer_config.json"  # since version 6 only it has the number
    for file, key in ((path, "max_seq_length"), (of_tokenizer, "model_max_length")):
        if (found := read_json(file, needed=False).get(key)) is not None:
            if isinstance(found, bool) or not isinstance(found, int | float) or not found >= 3:
                raise BertjaxError(f"{file}: {key}={found!r} is no number of tokens, 3 or more; put it right")
            return int(min(found, 2**31 - 1))
    return None


def _read_pooling(place: Path, hidden_size: int) -> tuple[tuple[str, ...], bool]:
    path = place / "config.json"
    theirs = read_json(path)
    size = theirs.get("embedding_dimension", theirs.get("word_embedding_dimension"))
    if size != hidden_size:
        raise BertjaxError(
            f"{path} is for vectors of {size} numbers, and the model's have {hidden_size}; fetch it again"
        )
    if unknown := sorted(theirs.keys() - _POOLING_KEYS.keys() - set(_OTHER_POOLING_KEYS)):
        raise BertjaxError(f"{path}: {', '.join(unknown)} is not supported{_INSTEAD}")
    given = theirs.get("pooling_mode") or [kind for key, kind in _POOLING_KEYS.items() if theirs.get(key)] or "mean"
    kinds = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else (given,)
    for kind in kinds:
        if kind not in POOLINGS:
            raise BertjaxError(
                f"{path}: pooling_mode={kind!r} is not supported; only {', '.join(POOLINGS)} are{_INSTEAD}"
            )
    return kinds, bool(theirs.get("include_prompt", True))


def _read_dense(place: Path, size: int) -> Dense:
    path = place / "config.json"
    theirs = {"activation_function": "torch.nn.Tanh"} | read_json(path)
    _check_fixed(path, theirs, _LAYER_FIXED)
    if (given := theirs.get("in_features")) != size:
        raise BertjaxError(f"{path}: in_features={given!r} is not {size}, of which the vectors are; fetch it again")
    activation, out = theirs["activation_function"], theirs.get("out_features")
    name = activation.rpartition(".")[2] if str(activation).startswith("torch.nn.") else None
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise BertjaxError(f"{path}: activation_function={activation!r} is not supported; only {known} of torch.nn are")
    if type(out) is not int or out < 1:
        raise BertjaxError(f"{path}: out_features={out!r} is no size; fetch it again")
    biased, residual = bool(theirs.get("bias", True)), bool(theirs.get("use_residual", False))
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (out, size)}
    shapes |= {"linear.bias": (out,)} if biased else {}
    shapes |= {"residual.weight": (out, size)} if residual and out != size else {}
    arrays = {key: jnp.asarray(tensor.T) for key, tensor in _read_weights(place, shapes).items()}
    return Dense(arrays["linear.weight"], arrays.get("linear.bias"), arrays.get("residual.weight"), name, residual)


def _read_layer_norm(place: Path, size: int) -> LayerNorm:
    path = place / "config.json"
    if (given := read_json(path).get("dimension")) != size:
        raise BertjaxError(f"{path}: dimension={given!r} is not {size}, of which the vectors are; fetch it again")
    tensors = _read_weights(place, {"norm.weight": (size,), "norm.bias": (size,)})
    return LayerNorm(jnp.asarray(tensors["norm.weight"]), jnp.asarray(tensors["norm.bias"]))


def _read_normalize(place: Path, size: int) -> Normalize:
    path = place / "config.json"
    _check_fixed(path, read_json(path, needed=False), _LAYER_FIXED)
    return Normalize()


_READERS: dict[str, Callable[[Path, int], Layer | None]] = {  # of a module's folder, and the size of what it is given
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
    "Dropout": lambda place, size: None,  # which is for training
}


def _read_weights(place: Path, shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Returns a module's tensors in float32, as their names and shapes must be."""
    tensors = read_tensors(place)
    there = {name: tensor.shape for name, tensor in tensors.items()}
    if there != shapes:
        raise BertjaxError(f"{place} has tensors {there}, and {shapes} are needed; fetch it again")
    return {name: as_float32(place, name, tensor) for name, tensor in tensors.items()}


def _read_prompts(path: Path) -> tuple[dict[str, str], str | None, int | None]:
    """Returns prompts by name, the name of the default one, and the size that vectors are cut to."""
    theirs = read_json(path, needed=False)
    prompts, name, size = theirs.get("prompts") or {}, theirs.get("default_prompt_name"), theirs.get("truncate_dim")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise BertjaxError(f"{path}: prompts={prompts!r} are not texts by name; fetch it again")
    prompts = {"query": "", "document": ""} | {key: text or "" for key, text in prompts.items()}
    if name is not None and (not isinstance(name, str) or name not in prompts):
        raise BertjaxError(f"{path}: default_prompt_name={name!r} is none of {', '.join(prompts)}; put it right")
    if size is not None and (type(size) is not int or size < 1):
        raise BertjaxError(f"{path}: truncate_dim={size!r} is no size; put it right")
    return prompts, name, size


def _check_fixed(path: Path, theirs: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        if theirs.get(key) not in (None, value):
            raise BertjaxError(f"{path}: {key}={theirs[key]!r} is not supported; only {value!r} is{_INSTEAD}")


# Writing.


def settings_files(settings: SentenceSettings, hidden_size: int, max_position: int) -> dict[str, Any]:
    """Returns what sentence-transformers reads beside a model, by path: the content of JSON files, and `Tensors`.

    Args:
      hidden_size, max_position: of the model.
    """
    kinds: dict[str, Any] = {key: kind in settings.pooling for key, kind in _POOLING_KEYS.items()}
    if [kind for kind in POOLINGS if kind in settings.pooling] != list(settings.pooling):
        kinds = {"pooling_mode": list(settings.pooling)}  # in an order that only newer versions can tell
    pooling = {"word_embedding_dimension": hidden_size, **kinds}
    modules: list[tuple[str, dict[str, Any], Tensors]] = [
        ("Pooling", pooling if settings.pools_prompt else pooling | {"include_prompt": False}, {})
    ]
    layers = [layer for layer in settings.layers if not isinstance(layer, Truncate)]
    modules += [_written(layer) for layer in (*layers, *[Normalize()] * settings.normalize)]
    places = [("Transformer", ""), *((kind, f"{n}_{kind}") for n, (kind, _, _) in enumerate(modules, 1))]
    files: dict[str, Any] = {
        _MODULES: [
            {"idx": n, "name": str(n), "path": place, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, place) in enumerate(places)
        ],
        _TRANSFORMER: {
            "max_seq_length": min(settings.max_length or max_position, max_position),
            "do_lower_case": False,
        },
    }
    for (_, place), (_, content, tensors) in zip(places[1:], modules, strict=True):
        files[f"{place}/config.json"] = content
        if tensors:
            files[f"{place}/{WHOLE}"] = tensors
    more = {"prompts": dict(settings.prompts), "default_prompt_name": settings.default_prompt_name}
    sizes = [layer.size for layer in settings.layers if isinstance(layer, Truncate)]
    if sizes or any(settings.prompts.values()):
        files[_SETTINGS] = more | ({"truncate_dim": sizes[0]} if sizes else {})
    return files


def _written(layer: Layer) -> tuple[str, dict[str, Any], Tensors]:
    """Returns a module's name, the content of its config.json, and its tensors."""
    if isinstance(layer, LayerNorm):
        tensors = {"norm.weight": np.asarray(layer.scale_e), "norm.bias": np.asarray(layer.bias_e)}
        return "LayerNorm", {"dimension": len(layer.scale_e)}, tensors
    if not isinstance(layer, Dense):
        return "Normalize", {}, {}
    arrays = {"linear.weight": layer.kernel_ef, "linear.bias": layer.bias_f, "residual.weight": layer.residual_ef}
    tensors = {name: np.ascontiguousarray(np.transpose(array)) for name, array in arrays.items() if array is not None}
    (size, out), place = layer.kernel_ef.shape, "linear" if layer.activation == "Identity" else "activation"
    activation = f"torch.nn.modules.{place}.{layer.activation}"
    content: dict[str, Any] = {"in_features": size, "out_features": out, "bias": layer.bias_f is not None}
    content |= {"activation_function": activation} | ({"use_residual": True} if layer.residual else {})
    return "Dense", content, tensors
