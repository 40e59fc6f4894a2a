"""Tokenizers read from files: a run's own, and those of Hugging Face folders.

Which file is believed is as in `transformers` 5. Where tokenizer_config.json, or else config.json, names BERT's
tokenizer, tokenizer.json only gives the vocabulary: the flags of tokenizer_config.json say how text is split, and
special tokens stand around it as BERT has them; `whole` says what of RoBERTa's counts. Otherwise tokenizer.json tells
all. Its padding, and the length to which it cuts, are for the batches of other tools and change nothing. Words and
WordPiece that would split text otherwise than we do are refused; BPE and unigram are the file's own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer as Engine
from tokenizers import models

from bertjax.data.tokenizer.added import added_tokens, listed_tokens, special_tokens
from bertjax.data.tokenizer.rules import UNK, Added, Rules
from bertjax.data.tokenizer.settings import MOST_OF_VOCABULARY, Settings, read_settings, read_text
from bertjax.data.tokenizer.template import Template, read_template, robertas_template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tokenizer.whole import (
    as_its_class_has_it,
    kind_of,
    lowercases,
    of_merges,
    read_parts,
    unknown_of,
    vocabulary_of,
)
from bertjax.errors import BertjaxError, warn
from bertjax.storage.paths import user_path

# For each setting of a tokenizer_config.json its name in a tokenizer.json.
_FLAGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# What a vocab.txt alone says nothing of, and the values with which text is split as BERT does.
_BERTS_WAY: dict[str, tuple[Any, ...]] = {"do_basic_tokenize": (None, True), "never_split": (None, [])}
_MOST = 1 << 24  # numbers of a vocabulary


class _Found(NamedTuple):
    """A vocabulary, and how its file says that text is split."""

    vocabulary: dict[str, int]  # without what is only added
    rules: Rules
    tree: dict[str, Any]  # a tokenizer.json, but a WordPiece's vocabulary; empty for a vocab.txt
    engine: Engine | None  # made of that tokenizer.json, where it is of words or WordPiece


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads the tokenizer of a folder, a run's or a Hugging Face one, of a tokenizer.json, vocab.txt or vocab.json.

    The roles of its special tokens are those that special_tokens_map.json and tokenizer_config.json beside it give;
    where they say nothing, the tokens have our names, RoBERTa's or BERT's.

    Raises:
      BertjaxError: a file is missing or damaged, or of a kind of tokenizer that is not known.
    """
    path = user_path(path)
    file = _file_of(path) if path.is_dir() else path
    settings = read_settings(file)
    found = _reader(file)(settings)
    vocabulary, own = found.vocabulary, found.tree.get("added_tokens", [])
    listed = listed_tokens(settings, own)
    believed = [] if settings.berts or (settings.robertas and not found.rules.tell_all) else own
    added = added_tokens(settings, believed, listed, vocabulary.keys())
    if found.rules.tell_all:  # white space is no part of a token
        added = {content: token._replace(lstrip=False, rstrip=False) for content, token in added.items()}
    special = special_tokens(settings, vocabulary.keys() | added.keys(), found.rules.kind)
    _check_vocabulary(settings, found, special)
    rules = found.rules._replace(special=special, added=_in_order(settings, found, special, added))
    tokenizer = Tokenizer.from_vocab(vocabulary, rules) if rules.tell_all else _whole(settings, found.tree, rules)
    for number, token in listed.items():
        if tokenizer.ids([token.content]) != [number]:
            raise BertjaxError(
                f"{settings.folder}: the added token {token.content!r} has the number {number}, but by its place after "
                f"the vocabulary {tokenizer.ids([token.content])[0]}; fetch its tokenizer's files again"
            )
    if rules.tell_all:
        _check_parts(settings, found, rules)
    return tokenizer.with_template(_template(settings, found, tokenizer))


def _reader(file: Path) -> Callable[[Settings], _Found]:
    if file.name == "vocab.json":
        return _of_merges
    return _of_text if file.suffix == ".txt" else _of_json


def _file_of(folder: Path) -> Path:
    """Returns the file that a folder's vocabulary is read from."""
    for name in ("tokenizer.json", "vocab.txt", "vocab.json"):
        if (folder / name).is_file():
            return folder / name
    if pieces := sorted(folder.glob("*.model")):
        raise BertjaxError(
            f"{folder} has its vocabulary as {pieces[0].name} alone, which is not read; give it a tokenizer.json, as "
            "AutoTokenizer of transformers writes one: load the folder there and save_pretrained"
        )
    return folder / "vocab.txt"


def _of_merges(settings: Settings) -> _Found:
    return _of_parts(settings, of_merges(settings))


def _of_parts(settings: Settings, parts: dict[str, Any]) -> _Found:
    kind = kind_of(parts)
    assert kind is not None
    parts, vocabulary = as_its_class_has_it(settings, parts), vocabulary_of(parts)
    if kind == "bpe":
        _check_numbers(settings, vocabulary)
    return _Found(vocabulary, Rules(kind, lowercases(parts)), parts, None)


def _whole(settings: Settings, parts: dict[str, Any], rules: Rules) -> Tokenizer:
    try:
        return Tokenizer.from_parts(parts, rules, exact=settings.kind is None or settings.robertas)
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())
        raise BertjaxError(f"{settings.file} is not a tokenizer that can be read: {reason}; fetch it again") from None


def _of_text(settings: Settings) -> _Found:
    wrong = {key: settings.by_key.get(key) for key, fine in _BERTS_WAY.items() if settings.by_key.get(key) not in fine}
    if settings.kind and not settings.berts:
        wrong = {"tokenizer_class": settings.by_key.get("tokenizer_class") or settings.kind}
    for key, value in wrong.items():
        raise BertjaxError(
            f"{settings.folder}: {key}={value!r} splits text otherwise than BERT does; give a folder with a "
            "tokenizer.json that tells how"
        )
    try:
        read_text(settings.file, MOST_OF_VOCABULARY)
        vocabulary = models.WordPiece.read_file(str(settings.file))  # of lines that are alike the last one counts
    except BertjaxError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise BertjaxError(
            f"{settings.file} cannot be read: {error}; give a folder with tokenizer.json or vocab.txt"
        ) from None
    return _Found(vocabulary, _rules_by_flags(settings), {}, None)


def _of_json(settings: Settings) -> _Found:
    try:
        text = read_text(settings.file, MOST_OF_VOCABULARY)
        if not settings.berts and (parts := read_parts(text)):
            return _of_parts(settings, parts)
        _check_numbers(settings, _numbered(text))
        engine = Engine.from_str(text)
    except BertjaxError:
        raise
    except OSError as error:
        raise BertjaxError(f"{settings.file} cannot be read: {error.strerror}; give a folder that has it") from None
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())
        raise BertjaxError(f"{settings.file} is not a tokenizer that can be read: {reason}; fetch it again") from None
    tree = json.loads(engine.to_str())  # as the library understands it, with its defaults filled in
    normalizer = tree["normalizer"] or {"type": None}
    kinds = (tree["model"]["type"], normalizer["type"], (tree["pre_tokenizer"] or {"type": None})["type"])
    pieces = kinds == ("WordPiece", "BertNormalizer", "BertPreTokenizer")
    words = kinds in (("WordLevel", kind, "WhitespaceSplit") for kind in ("Lowercase", None))
    if not (kinds[0] == "WordPiece" if settings.berts else pieces or words):
        raise BertjaxError(
            f"{settings.file} is a tokenizer of another kind ({', '.join(map(str, kinds))}); only BERT's, byte-level "
            "BPE and unigram pieces with Metaspace can be read"
        )
    del tree["model"]["vocab"]  # which lacks a token where two have one number
    vocabulary = engine.get_vocab(with_added_tokens=False)
    if settings.berts or (settings.mpnets and pieces):
        rules = _rules_by_flags(settings)
    elif pieces:
        rules = _piece_rules(*(normalizer[key] for key in _FLAGS.values()))
    else:
        rules = Rules("word", normalizer["type"] == "Lowercase")
        vocabulary |= {token["content"]: token["id"] for token in tree["added_tokens"]}
    return _Found(vocabulary, rules, tree, engine)


def _numbered(text: str) -> dict[str, Any]:
    """Returns a file's numbers of tokens; none where it is no such file, which the library tells in its own words."""
    try:
        return dict(json.loads(text)["model"]["vocab"].items())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _check_numbers(settings: Settings, vocabulary: dict[str, Any]) -> None:
    """Raises BertjaxError where two tokens have one number, of which the library keeps either, or one is too large."""
    numbers = list(vocabulary.values())
    fine = all(type(number) is int and 0 <= number < _MOST for number in numbers)
    if not fine or len(set(numbers)) < len(numbers):
        raise BertjaxError(
            f"{settings.file}: its {len(numbers)} tokens have not each a number of its own below 2**24; fetch its "
            "tokenizer's files again"
        )


def _rules_by_flags(settings: Settings) -> Rules:
    flags = {key: settings.by_key.get(key, None if key == "strip_accents" else True) for key in _FLAGS}
    for key, value in flags.items():
        if not isinstance(value, bool) and (key, value) != ("strip_accents", None):
            raise BertjaxError(f"{settings.folder}: {key}={json.dumps(value)} is neither true nor false; say which")
    return _piece_rules(*flags.values())


def _piece_rules(lowercase: Any, strip_accents: Any, split_chinese: Any) -> Rules:
    return Rules("wordpiece", lowercase, lowercase if strip_accents is None else strip_accents, split_chinese)


def _check_vocabulary(settings: Settings, found: _Found, special: tuple[str | None, ...]) -> None:
    again, vocabulary = "fetch its tokenizer's files again", found.vocabulary
    if not found.rules.tell_all:
        if (unknown := unknown_of(found.tree)) not in (None, special[UNK]):
            raise BertjaxError(
                f"{settings.file}: its model reads unknown pieces as {unknown}, but its unk_token is {special[UNK]}; "
                f"{again}"
            )
    elif special[UNK] not in vocabulary:
        raise BertjaxError(
            f"{settings.file}: its vocabulary lacks {special[UNK]}, what unknown words are read as; {again}"
        )
    if len(set(vocabulary.values())) < len(vocabulary) or max(vocabulary.values(), default=0) >= _MOST:
        raise BertjaxError(
            f"{settings.file}: its {len(vocabulary)} tokens have not each a number of its own below 2**24; {again}"
        )


def _in_order(
    settings: Settings, found: _Found, special: tuple[str | None, ...], added: dict[str, Added]
) -> tuple[Added, ...]:
    """Returns the added tokens by number; none where they are the special ones, found as they are written."""
    plain = {token: Added(token) for token in special if token is not None}
    added = added | {token: plain[token] for token in plain if token not in added}
    if found.rules.tell_all and added == plain and found.vocabulary.keys() >= plain.keys():
        return ()
    if found.rules.kind == "word":
        odd = " ".join(content for content, token in added.items() if plain.get(content) != token)
        raise BertjaxError(
            f"{settings.file}: the added tokens {odd} are looked for before text is split; where white space ends "
            "words, only special tokens that are found as they are written can be read"
        )
    return tuple(sorted(added.values(), key=lambda token: found.vocabulary.get(token.content, _MOST)))


def _check_parts(settings: Settings, found: _Found, rules: Rules) -> None:
    """Refuses a tokenizer.json that would split text otherwise than the rules; warns where that counts for nothing."""
    if not found.tree:
        return
    smallest = {token: number for number, token in enumerate(rules.special_tokens)}
    ours = json.loads(Tokenizer.from_vocab(smallest, rules._replace(added=())).to_json())
    differences = []
    for part in ("model", "normalizer", "pre_tokenizer"):
        theirs = found.tree[part] or {}
        if "strip_accents" in theirs and theirs["strip_accents"] is None:
            theirs["strip_accents"] = theirs.get("lowercase")
        for key, value in theirs.items():
            if not ours[part] or value == (used := ours[part].get(key)):
                continue
            if not settings.berts:
                raise BertjaxError(
                    f"{settings.file}: {key}={value!r} of its {part} would split text otherwise than BERT does; "
                    f"only {used!r} can be read"
                )
            differences.append(f"{key}={value!r} of its {part}")
    if differences:
        _warn(settings, ", ".join(differences), "the flags of tokenizer_config.json")


def _template(settings: Settings, found: _Found, tokenizer: Tokenizer) -> Template:
    """Returns what stands around texts, and which end of them is cut off."""
    template = berts = tokenizer.template
    as_robertas = settings.robertas or settings.file.name == "vocab.json"
    if settings.mpnets or (not found.rules.tell_all and as_robertas):
        template = robertas_template(tokenizer.vocabulary.cls, tokenizer.vocabulary.sep)
    elif (
        not settings.debertas
        and found.tree
        and (found.tree["post_processor"] or (settings.kind and not settings.berts))
    ):
        try:
            template = _template_of(found, tokenizer)
        except BertjaxError as error:
            if not settings.berts:
                raise BertjaxError(f"{settings.file}: {error}") from None
        if settings.berts and template != berts:
            _warn(settings, "its post-processor", "[CLS] and [SEP] as BERT has them")
            template = berts
    segments = settings.kind is None or settings.debertas or (settings.berts and settings.kind != "distilbert")
    inputs = settings.by_key.get("model_input_names")
    if isinstance(inputs, list):
        segments = "token_type_ids" in inputs
    if not segments:  # none are given to the model, which takes them for 0
        single, pair = (frame._replace(num_first=len(frame.places)) for frame in template[:2])
        template = template._replace(single=single, pair=pair)
    cut = (found.tree.get("truncation") or {}).get("direction", "Right").lower()
    return template._replace(keep_end=settings.by_key.get("truncation_side", cut) == "left")


def _template_of(found: _Found, tokenizer: Tokenizer) -> Template:
    if found.engine is None:
        return tokenizer.template_of(found.tree["post_processor"])
    found.engine.no_truncation()
    found.engine.no_padding()
    return read_template(found.engine)


def _warn(settings: Settings, what: str, instead: str) -> None:
    warn(
        f"{settings.file}: {what} counts for nothing, as in transformers 5: its class is BERT's, so {instead} are used",
        stacklevel=4,
    )
