"""Texts with masks in them, and the words that a model predicts there."""

import re
from typing import NamedTuple

import numpy as np

from bertjax.data.reader import Reader, TokenIds
from bertjax.data.tokenizer.rules import MASK
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_MASKS = ("<mask>", "[MASK]")


class Guess(NamedTuple):
    """A token of the vocabulary in the place of a mask, without the space before it that it may have."""

    word: str
    probability: float


def read_masks(text: str, tokenizer: Tokenizer, reader: Reader) -> tuple[TokenIds, list[int]]:
    """Returns the token ids of a text with masks in it, and the masks' positions.

    Args:
      text: a mask in it is `<mask>` or `[MASK]`, whatever the vocabulary has.
      tokenizer: the model's.
      reader: counts the words that the vocabulary lacks.

    Raises:
      BertjaxError: there is no mask in the text or in the vocabulary, or the text is too long.
    """
    mask = tokenizer.rules.special[MASK]
    if mask is None:
        raise BertjaxError("this model's vocabulary has no mask, so it can guess no words; give one that has")
    pieces = re.split("|".join(map(re.escape, {mask, *_MASKS})), text)
    if len(pieces) == 1:
        raise BertjaxError(f"there is no {mask} in {text!r}; put one where a word is to be guessed")
    if tokenizer.rules.tell_all:
        words = tokenizer.split(pieces[0])
        for piece in pieces[1:]:  # apart, so that no rule of the tokenizer can split or change a mask
            words += [mask, *tokenizer.split(piece)]
    else:  # a mask may take the space before it
        words = tokenizer.split(mask.join(pieces))
    read = reader.read(words, None, lambda: "the text")
    return read, [place for place, token in enumerate(read.ids) if token == tokenizer.vocabulary.mask]


def likeliest(probabilities_pv: np.ndarray, tokenizer: Tokenizer, top: int) -> list[list[Guess]]:
    """Returns the likeliest words for each mask, best first.

    Args:
      probabilities_pv: of each token of the vocabulary at each mask.
      tokenizer: the model's.
      top: how many words for each mask.
    """
    # A model may have more rows than the vocabulary has tokens; those have no name.
    probabilities_pv = probabilities_pv[:, : tokenizer.vocab_size]
    best_pn = np.argsort(-probabilities_pv, axis=-1, kind="stable")[:, :top]
    return [
        [Guess(*guess) for guess in zip(tokenizer.words(best_n), of_v[best_n].tolist(), strict=True)]
        for best_n, of_v in zip(best_pn, probabilities_pv, strict=True)
    ]
