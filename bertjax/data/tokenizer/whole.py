"""Tokenizers that their files tell whole: byte-level BPE, as RoBERTa's, and unigram pieces, as XLM-RoBERTa's.

Of a tokenizer of RoBERTa's class, or XLM-RoBERTa's or CamemBERT's, `transformers` 5 takes vocabulary, merges and the
map of characters from tokenizer.json, and all else as that class has it; of DeBERTa's the vocabulary alone; of others
tokenizer.json tells all.
"""

import json
from typing import Any

from tokenizers import models

from bertjax.data.tokenizer.marks import SPACE, Kind
from bertjax.data.tokenizer.settings import MOST_OF_VOCABULARY, Settings, read_text
from bertjax.errors import BertjaxError

_MODELS: dict[str, tuple[Kind, str]] = {"BPE": ("bpe", "ByteLevel"), "Unigram": ("unigram", "Metaspace")}
_UNIGRAMS = ("xlmroberta", "camembert")  # classes
_MOST = 1e9  # of a score


def read_parts(text: str) -> dict[str, Any] | None:
    """Returns the parts of a tokenizer.json; None where it is of another kind, or no tokenizer."""
    try:
        parts = {"normalizer": None, "pre_tokenizer": None, "decoder": None, "post_processor": None} | json.loads(text)
        model = parts["model"]
        if "type" not in model:  # in old files
            model["type"] = "BPE" if "merges" in model else "Unigram"
        if kind_of(parts) == "bpe" and isinstance(model["merges"], list):
            return parts
        # Whose pieces the engine never sees as they are written.
        scored = all(type(piece) is str and -_MOST < score < _MOST for piece, score in model["vocab"])
        return parts if kind_of(parts) == "unigram" and scored else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def kind_of(parts: dict[str, Any]) -> Kind | None:
    """Returns the kind of the tokenizer that the parts of a tokenizer.json make; None where it is none of these."""
    kind, space = _MODELS.get(parts["model"]["type"], (None, ""))
    return kind if any(step["type"] == space for step in _steps(parts["pre_tokenizer"], "pretokenizers")) else None


def vocabulary_of(parts: dict[str, Any]) -> dict[str, int]:
    """Returns the number of each token; of unigram pieces that are alike the last one counts."""
    vocabulary = parts["model"]["vocab"]
    return vocabulary if isinstance(vocabulary, dict) else {piece: at for at, (piece, _) in enumerate(vocabulary)}


def lowercases(parts: dict[str, Any]) -> bool:
    """Returns whether text is lower-cased."""
    return any(step["type"] == "Lowercase" for step in _steps(parts["normalizer"], "normalizers"))


def byte_level_of(parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the step that makes bytes of text, of a tokenizer of that kind."""
    return next(step for step in _steps(parts["pre_tokenizer"], "pretokenizers") if step["type"] == "ByteLevel")


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return part[name] if part["type"] == "Sequence" else [part]


def as_its_class_has_it(settings: Settings, parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts of a tokenizer.json that count, and in place of others those of the tokenizer's class.

    Raises:
      BertjaxError: of unigram pieces, no token stands for what the vocabulary lacks.
    """
    kind, model = kind_of(parts), parts["model"]
    if kind == "bpe" and settings.kind == "roberta":
        return parts | _byte_level(settings, model["vocab"], model["merges"])
    if kind != "unigram":
        return parts
    if settings.kind in _UNIGRAMS:
        steps = _steps(parts["normalizer"], "normalizers")
        scheme = "always" if _prefix_space(settings, True) else "never"
        space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
        parts = parts | {
            "normalizer": next((step for step in steps if step["type"] == "Precompiled"), None),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
            "decoder": space,
            "model": model | {"byte_fallback": False},
        }
    if settings.debertas:
        parts = parts | _debertas(settings)
    number = model.get("unk_id")
    if type(number) is not int or not 0 <= number < len(model["vocab"]):
        raise BertjaxError(
            f"{settings.file}: its model has no token for what its vocabulary lacks (unk_id={number}); fetch its "
            "tokenizer's files again"
        )
    return parts


def unknown_of(parts: dict[str, Any]) -> str | None:
    """Returns the token that stands for what the vocabulary lacks; None where the model needs none."""
    model = parts["model"]
    return model["vocab"][model["unk_id"]][0] if model["type"] == "Unigram" else model.get("unk_token")


def of_merges(settings: Settings) -> dict[str, Any]:
    """Returns the parts that a vocab.json and the merges.txt beside it make.

    Raises:
      BertjaxError: one cannot be read, or a class is named that splits text otherwise than RoBERTa's.
    """
    if settings.kind not in (None, "roberta"):
        name = settings.by_key.get("tokenizer_class") or settings.kind
        raise BertjaxError(
            f"{settings.folder}: tokenizer_class={name!r} may split text otherwise than RoBERTa does; give a folder "
            "with a tokenizer.json that tells how"
        )
    merges = settings.folder / "merges.txt"
    try:
        for file in (settings.file, merges):
            read_text(file, MOST_OF_VOCABULARY)
        return _byte_level(settings, *models.BPE.read_file(str(settings.file), str(merges)))
    except BertjaxError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())
        raise BertjaxError(
            f"{settings.file} and merges.txt cannot be read: {reason}; give a folder with both, or with tokenizer.json"
        ) from None


def _byte_level(settings: Settings, vocabulary: dict[str, int], merges: list[Any]) -> dict[str, Any]:
    bytes_of: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": _prefix_space(settings, False)}
    bytes_of |= {"trim_offsets": True, "use_regex": True}
    flags: dict[str, Any] = {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
    }
    flags |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {
        "version": "1.0",
        "normalizer": None,
        "pre_tokenizer": bytes_of,
        "decoder": bytes_of,
        "model": {"type": "BPE", **flags, "vocab": vocabulary, "merges": merges},
    }


def _prefix_space(settings: Settings, default: bool) -> bool:
    value = settings.by_key.get("add_prefix_space", default)
    if not isinstance(value, bool):
        raise BertjaxError(
            f"{settings.folder}: add_prefix_space={json.dumps(value)} is neither true nor false; say which"
        )
    return value


def _debertas(settings: Settings) -> dict[str, Any]:
    """Returns how the class of DeBERTa v2 and v3 normalises text and splits it."""
    by_key = settings.by_key
    scheme = "always" if _prefix_space(settings, True) else "first"
    space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
    lower = [{"type": "Lowercase"}] if by_key.get("do_lower_case") else []
    one_space = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
    ends = {"type": "Strip", "strip_left": False, "strip_right": True}
    marks = [{"type": "Punctuation", "behavior": "Isolated"}] if by_key.get("split_by_punct") else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*lower, one_space, {"type": "NFC"}, ends]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*marks, space]},
        "decoder": space,
    }
