"""Special tokens and other added ones, as the files of a folder name them.

`transformers` 5 finds all of these wherever a text has them, before it is split, and numbers those that the vocabulary
lacks after it, in this order: what is listed with a number, by that number; what is named by its role; and the rest.
"""

from collections.abc import Collection
from typing import Any

from bertjax.data.tokenizer.marks import Kind
from bertjax.data.tokenizer.rules import (
    BERTS_SPECIAL_TOKENS,
    MASK,
    PAD,
    ROBERTAS_SPECIAL_TOKENS,
    ROLES,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    Added,
)
from bertjax.data.tokenizer.settings import Settings
from bertjax.errors import BertjaxError

_THEIR_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def listed_tokens(settings: Settings, own: list[dict[str, Any]]) -> dict[int, Added]:
    """Returns the tokens that files list with their numbers, those of tokenizer_config.json or else of all others.

    Args:
      settings: what the folder's files say.
      own: the list of a tokenizer.json.

    Raises:
      BertjaxError: something there is no token, or no number.
    """
    special = {token.content for token in (*_by_role(settings).values(), *_without_role(settings))}
    pairs = [(number, {"content": token, "special": token in special}) for token, number in settings.numbers.items()]
    pairs += [(token["id"], token) for token in own]
    try:
        if "added_tokens_decoder" in settings.by_key:
            pairs = list(settings.by_key["added_tokens_decoder"].items())
        listed = {int(number): _token(settings, token) for number, token in pairs}
    except (AttributeError, TypeError, ValueError):
        raise BertjaxError(f"{settings.folder}: its added tokens have no numbers; fetch its files again") from None
    return dict(sorted(listed.items()))


def added_tokens(
    settings: Settings, own: list[dict[str, Any]], listed: dict[int, Added], vocabulary: Collection[str]
) -> dict[str, Added]:
    """Returns all added tokens by what they are, in their order.

    A padding token or a mask that the vocabulary lacks is left out where the model has no weights for it: nothing but
    masking needs it.

    Args:
      settings: what the folder's files say.
      own: the list of a tokenizer.json, where that is more than a vocabulary.
      listed: what `listed_tokens` returns.
      vocabulary: the tokens that there are without them.

    Raises:
      BertjaxError: something there is no token.
    """
    added = {token.content: token for token in (*(_token(settings, token) for token in own), *listed.values())}
    by_role = {token.content: token for token in _by_role(settings).values()}
    added |= {content: token._replace(special=True) for content, token in added.items() if content in by_role}
    more = by_role | {token.content: token for token in _without_role(settings)}
    more = {content: token for content, token in more.items() if content not in added}
    lacking = [content for content in more if content not in vocabulary]
    room = max(0, settings.num_rows - len(added.keys() | vocabulary))
    needless = {token.content for role, token in _by_role(settings).items() if role in (ROLES[PAD], ROLES[MASK])}
    while len(lacking) > room and lacking[-1] in needless:
        del more[lacking.pop()]
    return added | more


def special_tokens(settings: Settings, known: Collection[str], kind: Kind) -> tuple[str | None, ...]:
    """Returns the special tokens in the order of ROLES, whatever they are called.

    Args:
      settings: what the folder's files say; where they say nothing, the tokens have our names, or BERT's.
      known: all tokens that there are.
      kind: of the tokenizer; where spaces are parts of tokens, these may have RoBERTa's names too.

    Raises:
      BertjaxError: a token is not there that every text needs, or has two roles.
    """
    usual = [SPECIAL_TOKENS, *([ROBERTAS_SPECIAL_TOKENS] if kind in ("bpe", "unigram") else [])]
    complete = (names for names in usual if set(names[UNK : SEP + 1]) <= set(known))
    by_default = next(complete, BERTS_SPECIAL_TOKENS)
    found = [_content(settings, role) or default for role, default in zip(ROLES, by_default, strict=True)]
    special = [token if token in known else None for token in found]
    again = "fetch its tokenizer's files again"
    if lacks := [found[role] for role, token in enumerate(special) if token is None and role not in (PAD, MASK)]:
        raise BertjaxError(f"{settings.file} lacks the special tokens {' '.join(lacks)}; {again}")
    there = [token for token in special if token is not None]
    if len(set(there)) < len(there):
        raise BertjaxError(f"{settings.file}: of the special tokens {' '.join(there)} two are the same; {again}")
    return tuple(special)


def _by_role(settings: Settings) -> dict[str, Added]:
    by_default = {}
    if settings.berts or settings.robertas:
        names = BERTS_SPECIAL_TOKENS if settings.berts else ROBERTAS_SPECIAL_TOKENS
        by_default = dict(zip(ROLES, names, strict=True))
    named = {role: settings.by_key.get(role, by_default.get(role)) for role in _THEIR_ROLES}
    # Some give roles of their own.
    named |= {
        key: value
        for key, value in settings.by_key.items()
        if key.endswith("_token") and isinstance(value, str | dict) and key not in named
    }
    if isinstance(more := settings.by_key.get("extra_special_tokens"), dict):
        named |= more
    return {
        role: _token(settings, token, special=True)._replace(special=True) for role, token in named.items() if token
    }


def _without_role(settings: Settings) -> list[Added]:
    more = settings.by_key.get("extra_special_tokens") or settings.by_key.get("additional_special_tokens") or []
    if isinstance(more, dict):
        return []
    if not isinstance(more, list):
        raise BertjaxError(f"{settings.folder}: additional_special_tokens is no list; fetch its files again")
    return [_token(settings, token, special=True) for token in more]


def _content(settings: Settings, role: str) -> str | None:
    token = settings.by_key.get(role)
    return _token(settings, token).content if token else None


def _token(settings: Settings, token: Any, *, special: bool = False) -> Added:
    fields = {"content": token, "special": True} if isinstance(token, str) else token
    if not isinstance(fields, dict) or not isinstance(fields.get("content"), str) or not fields["content"]:
        raise BertjaxError(f"{settings.folder}: {token!r} is no token; fetch its tokenizer's files again")
    special = bool(fields.get("special", special))
    normalized = bool(fields.get("normalized", not special))
    others = (bool(fields.get(flag, False)) for flag in ("single_word", "lstrip", "rstrip"))
    return Added(fields["content"], special, normalized, *others)
