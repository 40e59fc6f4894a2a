"""What the `tokenizers` library is told of our rules, and what it says of text that is none."""

import contextlib
from collections.abc import Iterator

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizer.rules import UNK, Added, Rules
from bertjax.errors import BertjaxError


@contextlib.contextmanager
def only_unicode(*texts: str) -> Iterator[None]:
    """Complains of lone surrogates, which Python's strings may hold and no encoding can write."""
    try:
        try:
            yield
        except TypeError:  # which the engine raises at these too
            "".join(texts).encode()
            raise
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.start + 20]
        raise BertjaxError(f"text {text!r} holds half a character, a lone surrogate; give UTF-8") from error


def make_engine(vocabulary: dict[str, int], rules: Rules) -> Engine:
    """Returns the engine of a vocabulary of words or of BERT's pieces."""
    unk = rules.special[UNK]
    if rules.kind == "word":
        engine = Engine(models.WordLevel(vocabulary, unk_token=unk))
        if rules.lowercase:
            engine.normalizer = normalizers.Lowercase()
        engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return engine
    engine = Engine(models.WordPiece(vocabulary, unk_token=unk, max_input_chars_per_word=100))
    engine.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=rules.split_chinese,
        strip_accents=rules.strip_accents,
        lowercase=rules.lowercase,
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    engine.add_tokens([AddedToken(**token._asdict()) for token in rules.added or map(Added, rules.special_tokens)])
    return engine
