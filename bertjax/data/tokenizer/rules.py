"""The rules by which text becomes tokens, and the numbers of a vocabulary."""

from typing import NamedTuple

from bertjax.data.tokenizer.marks import Kind

# Special tokens have the first ids in every vocabulary that is made here; one that is read may have them elsewhere.
SPECIAL_TOKENS = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
BERTS_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTAS_SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")  # as other tools call them
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
NUM_SPECIAL = len(SPECIAL_TOKENS)


class Vocabulary(NamedTuple):
    """The numbers of a vocabulary: 0 up to its size, and those of its special tokens, and of other roles."""

    size: int
    pad: int | None = PAD
    unk: int = UNK
    cls: int = CLS
    sep: int = SEP
    mask: int | None = MASK
    continuing: frozenset[int] = frozenset()  # tokens that go on with the word of the token before
    markers: frozenset[int] = frozenset()  # special tokens without a role

    @property
    def special(self) -> frozenset[int]:
        """All special tokens."""
        roles = (self.pad, self.unk, self.cls, self.sep, self.mask)
        return self.markers.union(number for number in roles if number is not None)


class Added(NamedTuple):
    """A token that is found wherever it is written, before the text around it is split."""

    content: str
    special: bool = True
    normalized: bool = False  # found in the text as it is lower-cased and so on, not as it is written
    single_word: bool = False  # found only between what is not part of a word
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False  # takes the white space after it


class Rules(NamedTuple):
    """Rules by which text becomes tokens.

    "word": white space ends a word, and what the vocabulary lacks is unknown. "wordpiece" (Wu et al. 2016,
    arXiv:1609.08144): words and punctuation as BERT tells them apart, the longest pieces that the vocabulary has.
    "bpe": bytes joined by learned merges, a space one with the word after it (Radford et al. 2019, "GPT-2"); "unigram":
    the likeliest pieces, a space likewise (Kudo 2018, arXiv:1804.10959). These two are read from files that tell all.
    """

    kind: Kind = "word"
    lowercase: bool = True
    strip_accents: bool = True  # wordpiece only
    split_chinese: bool = True  # wordpiece only: every CJK character is a word
    # For padding, unknown, beginning, end and mask; None where there is none for padding or mask.
    special: tuple[str | None, ...] = SPECIAL_TOKENS
    # Not of words: those that are found before text is split, special ones too, by number. The default of wordpiece is
    # the special ones alone; bpe and unigram name them all.
    added: tuple[Added, ...] = ()

    @property
    def tell_all(self) -> bool:
        """Whether these and the vocabulary are the whole tokenizer, but its template."""
        return self.kind in ("word", "wordpiece")

    @property
    def special_tokens(self) -> list[str]:
        """Those that there are of the special tokens."""
        return [token for token in self.special if token is not None]


WORDS = Rules()
