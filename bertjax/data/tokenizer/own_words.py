"""Words of a user's own, which a vocabulary that was read is to have as one token each."""

import logging
from pathlib import Path

from bertjax.data.tokenizer.settings import MOST_OF_VOCABULARY, read_text
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)


def with_words_of(tokenizer: Tokenizer, file: Path) -> Tokenizer:
    """Returns a tokenizer with a file's words, one a line, as tokens after its own; those that it has are left out.

    Raises:
      BertjaxError: the file cannot be read, has no words, or a line that is no single word.
    """
    try:
        lines = read_text(file, MOST_OF_VOCABULARY).removeprefix("\ufeff").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BertjaxError(f"tokenizer.add={file} cannot be read: {reason}; give a file with one word a line") from None
    found = {line.strip(): number for number, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise BertjaxError(f"tokenizer.add={file} has no words; give a file with one word a line")
    for word, number in found.items():
        if len(word.split()) > 1:
            raise BertjaxError(f"tokenizer.add={file}, line {number}: {word!r} is no single word; give one a line")
    there = [word for word in found if _is_one_token(tokenizer, word)]
    words = list(dict.fromkeys(tokenizer.normal(word) for word in found if word not in there))
    more = tokenizer.with_words(words)
    for word, number in found.items():
        if not _is_one_token(more, word):
            raise BertjaxError(
                f"tokenizer.add={file}, line {number}: {word!r} is read as {' '.join(more.split(word)) or 'nothing'} "
                "by this tokenizer whatever it has; leave it out"
            )
    lacking = "" if not there else f"; {len(there):,} of {file} were tokens already"
    _logger.info(f"words:    {len(words):,} added to the vocabulary{lacking}")
    return more


def _is_one_token(tokenizer: Tokenizer, word: str) -> bool:
    ids = tokenizer.ids(tokenizer.split(tokenizer.in_text(word)))
    return len(ids) == 1 and ids != [tokenizer.vocabulary.unk]
