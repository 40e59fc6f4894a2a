"""Tokenizers read from files: a run's own, and those of Hugging Face folders that split text as ours do.

Special tokens are known by their roles. Whatever would split a text otherwise than we do is refused.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizer.tokenizer import BERTS_SPECIAL_TOKENS, ROLES, SPECIAL_TOKENS, Rules, Tokenizer
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path

ROLES_FILE = "special_tokens_map.json"
# For each setting of a tokenizer_config.json its name in a tokenizer.json.
_FLAGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# What a vocab.txt alone says nothing of. Japanese BERTs, for one, look like any other there, and split words by MeCab.
_BERTS_WAY: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": (None, "BertTokenizer", "BertTokenizerFast"),
    "do_basic_tokenize": (None, True),
    "never_split": (None, []),
}


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads the tokenizer of a folder, a run's or a Hugging Face one, or of a tokenizer.json.

    The roles of its special tokens are those that special_tokens_map.json and tokenizer_config.json beside it give;
    where they say nothing, the tokens have our names, or BERT's.

    Raises:
      BertjaxError: a file is missing or damaged, or would split text otherwise than BERT, or than white space, does.
    """
    path = user_path(path)
    folder, file = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
    settings = {"tokenizer_class": read_json(folder / "config.json", needed=False).get("tokenizer_class")}
    settings |= read_json(folder / "tokenizer_config.json", needed=False)
    settings |= read_json(folder / ROLES_FILE, needed=False)
    if path.is_dir() and not file.is_file():
        return _of_text(path / "vocab.txt", settings)
    return _of_json(file, settings)


def read_json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    """Returns the keys in a file of JSON; none where it is neither there nor needed.

    Raises:
      BertjaxError: it is needed and not there, cannot be read, or has no keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if needed:
            raise BertjaxError(f"there is no {path}; give a folder that has it") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BertjaxError(f"{path} cannot be read: {' '.join(str(error).split())}; fetch it again") from None
    if not isinstance(content, dict):
        raise BertjaxError(f"{path} holds no keys; fetch it again")
    return content


def _of_json(file: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        # As the library understands it, with its defaults filled in.
        tree = json.loads(Engine.from_str(file.read_text(encoding="utf-8")).to_str())
    except OSError as error:
        raise BertjaxError(f"{file} cannot be read: {error.strerror}; give a folder that has it") from None
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())
        raise BertjaxError(f"{file} is not a tokenizer that can be read: {reason}; fetch it again") from None
    parts = {part: tree[part] or {"type": None} for part in ("model", "normalizer", "pre_tokenizer")}
    model, normalizer, splitter = parts.values()
    kinds = (model["type"], normalizer["type"], splitter["type"])
    pieces = kinds == ("WordPiece", "BertNormalizer", "BertPreTokenizer")
    if not pieces and kinds not in (("WordLevel", kind, "WhitespaceSplit") for kind in ("Lowercase", None)):
        raise BertjaxError(
            f"{file} is a tokenizer of another kind ({', '.join(map(str, kinds))}); only BERT's can be read"
        )
    vocabulary = model.pop("vocab") | {token["content"]: token["id"] for token in tree["added_tokens"]}
    special = _special(settings, vocabulary)
    rules = Rules("word", normalizer["type"] == "Lowercase", special=special)
    if pieces:
        _check_flags(file, normalizer, settings)
        rules = _piece_rules(normalizer, "lowercase", "handle_chinese_chars", special)
        normalizer["strip_accents"] = rules.strip_accents
    tokenizer = _made(file, vocabulary, rules)
    ours = json.loads(tokenizer.to_json())
    for part, theirs in parts.items():
        for key, value in theirs.items():
            if ours[part] and value != ours[part][key]:
                raise BertjaxError(
                    f"{file}: {key}={value!r} of its {part} would split text otherwise than BERT does; "
                    f"only {ours[part][key]!r} can be read"
                )
    for token in tree["added_tokens"]:
        if token["content"] not in special or token["normalized"] or token["single_word"]:
            raise BertjaxError(
                f"{file}: the added token {token['content']!r} is looked for before text is split; only special tokens "
                "that are found as they are written can be read"
            )
    return tokenizer


def _of_text(file: Path, settings: dict[str, Any]) -> Tokenizer:
    for key, supported in _BERTS_WAY.items():
        if (value := settings.get(key)) not in supported:
            raise BertjaxError(
                f"{file.parent}: {key}={value!r} splits text otherwise than BERT does; give a folder with a "
                "tokenizer.json that tells how"
            )
    try:
        tokens = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BertjaxError(f"{file} cannot be read: {error}; give a folder with tokenizer.json or vocab.txt") from None
    vocabulary = {
        token.rstrip("\r"): number for number, token in enumerate(tokens[:-1] if tokens[-1] == "" else tokens)
    }
    special = _special(settings, vocabulary)
    return _made(file, vocabulary, _piece_rules(settings, "do_lower_case", "tokenize_chinese_chars", special))


def _special(settings: dict[str, Any], vocabulary: dict[str, int]) -> tuple[str, ...]:
    """Returns the special tokens in the order of ROLES, whatever their names."""
    by_default = SPECIAL_TOKENS if vocabulary.keys() >= set(SPECIAL_TOKENS) else BERTS_SPECIAL_TOKENS
    found = []
    for role, default in zip(ROLES, by_default, strict=True):
        token = settings.get(role) or default
        found.append(token["content"] if isinstance(token, dict) and "content" in token else token)
    return tuple(map(str, found))


def _check_flags(file: Path, normalizer: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses two files that disagree: tools differ in which of them they believe."""
    for name, key in _FLAGS.items():
        said = settings.get(name)
        if said is not None and bool(said) != bool(normalizer["lowercase" if normalizer[key] is None else key]):
            raise BertjaxError(
                f"{file} has {key}={normalizer[key]} where tokenizer_config.json has {name}={said}; make them agree"
            )


def _piece_rules(flags: dict[str, Any], lowercase: str, chinese: str, special: tuple[str, ...]) -> Rules:
    lower = bool(flags.get(lowercase, True))
    accents = flags.get("strip_accents")
    return Rules(
        "wordpiece", lower, lower if accents is None else bool(accents), bool(flags.get(chinese, True)), special
    )


def _made(file: Path, vocabulary: dict[str, int], rules: Rules) -> Tokenizer:
    again = "fetch its tokenizer's files again"
    if missing := [token for token in rules.special if token not in vocabulary]:
        raise BertjaxError(f"{file} lacks the special tokens {' '.join(missing)}; {again}")
    if len(set(rules.special)) < len(ROLES):
        raise BertjaxError(
            f"{file}: the special tokens {' '.join(rules.special)} are not {len(ROLES)} different ones; {again}"
        )
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise BertjaxError(f"{file}: its {len(vocabulary)} tokens are not numbered from 0 on; {again}")
    return Tokenizer.from_vocab(vocabulary, rules)
