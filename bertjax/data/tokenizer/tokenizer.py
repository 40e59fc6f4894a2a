"""Text to ids and back, on the `tokenizers` library, whose `tokenizer.json` other tools read too."""

import copy
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Encoding, models
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizer.engine import make_engine, only_unicode
from bertjax.data.tokenizer.marks import goes_on, joined, marked, plain
from bertjax.data.tokenizer.rules import ROLES, UNK, WORDS, Added, Rules, Vocabulary
from bertjax.data.tokenizer.template import Template, berts_template, post_processor, read_template
from bertjax.data.tokenizer.training import train_vocabulary
from bertjax.data.tokenizer.whole import byte_level_of
from bertjax.data.tokenizer.words import Pieces, words_of
from bertjax.errors import BertjaxError

# What is not white space in Unicode, as for the engine's pre-tokenizer, which took 180 bytes and 3 microseconds a word.
_WORD = re.compile("[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")

_BARE: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
_BARE |= {"pre_tokenizer": None, "decoder": None, "post_processor": None}


class Tokenizer:
    """Numbers the tokens of a text. Make one with `Tokenizer.train`, or read one with `load_tokenizer`."""

    def __init__(self, engine: Engine, rules: Rules):
        self._engine, self.rules = engine, rules
        self._ids = engine.get_vocab()
        self._tokens = {number: token for token, number in self._ids.items()}
        # Beside numbers that are left out, the engine may give an added token the number of another.
        self._tokens |= {self._ids[token.content]: token.content for token in rules.added}
        pad, unk, cls, sep, mask = (None if token is None else self._ids[token] for token in rules.special)
        self.unk = rules.special[UNK] or ""  # what unknown words are read as
        assert self.unk and unk is not None and cls is not None and sep is not None
        added = {self._ids[token.content] for token in rules.added}
        continuing = frozenset(
            number for token, number in self._ids.items() if number not in added and goes_on(token, rules.kind)
        )
        markers = {self._ids[token.content] for token in rules.added if token.special} - {pad, unk, cls, sep, mask}
        # A file may have left out numbers: of words that it lists twice, only the last one is the word's.
        size = max(self._ids.values()) + 1
        self.vocabulary = Vocabulary(size, pad, unk, cls, sep, mask, continuing, frozenset(markers))
        self.template = berts_template(cls, sep)
        # Words that take the space before them, as other tokens would have it.
        spaced = [token.content for token in rules.added if token.lstrip and not token.special]
        self._marked = {} if rules.tell_all else {word: marked(f" {word}", rules.kind) for word in spaced}

    @classmethod
    def train(
        cls, sentences: Iterable[str], *, min_frequency: int, rules: Rules = WORDS, vocab_size: int | None = None
    ) -> "Tokenizer":
        """Makes a vocabulary of the words, or pieces of words, seen at least that often, after the special tokens.

        Args:
          sentences: read two or three times for pieces, so no iterator then.
          vocab_size: at most, special tokens included; by default BERT's 30,522 for pieces, and no limit for words, the
            most frequent of which come first. The engine takes memory for as many pieces, whether or not it finds them.

        Raises:
          BertjaxError: a sentence is not Unicode.
        """
        return cls.from_vocab(train_vocabulary(sentences, rules, min_frequency, vocab_size), rules)

    @classmethod
    def from_vocab(cls, vocabulary: dict[str, int], rules: Rules) -> "Tokenizer":
        """Makes a tokenizer, with BERT's template, from the number of every token.

        Args:
          vocabulary: the numbers, special tokens included; added ones that it lacks get those after it.
          rules: how text becomes tokens.
        """
        return cls(make_engine(vocabulary, rules), rules)

    @classmethod
    def from_json(cls, text: str, rules: Rules) -> "Tokenizer":
        """Makes a tokenizer, with BERT's template, of what `to_json` returned of one with these rules."""
        engine = Engine.from_str(text)
        if rules.tell_all:
            return cls.from_vocab(engine.get_vocab(with_added_tokens=False), rules)
        return cls(engine, rules)

    @classmethod
    def from_parts(cls, parts: dict[str, Any], rules: Rules, *, exact: bool = True) -> "Tokenizer":
        """Makes a tokenizer, with BERT's template, of the parts of a tokenizer.json that split text.

        Args:
          parts: model, normalizer, pre_tokenizer and decoder; all else counts for nothing.
          rules: those of "bpe" or "unigram".
          exact: take scores as they are written, not as the engine reads them, whose last digit may be another: where
            pieces in another order are as likely, it decides.
        """
        parts = _BARE | {part: parts[part] for part in ("model", "normalizer", "pre_tokenizer", "decoder")}
        model = parts["model"]
        if exact := exact and rules.kind == "unigram":
            parts["model"] = {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": 0}
        engine = Engine.from_str(json.dumps(parts))
        if exact:
            scored = [(piece, score) for piece, score in model["vocab"]]
            engine.model = models.Unigram(scored, model["unk_id"], model.get("byte_fallback", False))
        engine.add_tokens([AddedToken(**token._asdict()) for token in rules.added])
        return cls(engine, rules)

    def with_words(self, words: Sequence[str]) -> "Tokenizer":
        """Returns a tokenizer that has more words, each one token, numbered after all others.

        Text around them is split as it was: they are found where they are no part of a longer word.

        Raises:
          BertjaxError: the vocabulary leaves out numbers.
        """
        if self.rules.kind == "word":
            numbers = {word: self.vocab_size + number for number, word in enumerate(words)}
            return self.from_vocab(self.token_ids | numbers, self.rules).with_template(self.template)
        spaces = not self.rules.tell_all  # of which one is part of a token
        own = [Added(word, special=False, normalized=True, single_word=True, lstrip=spaces) for word in words]
        there = self.rules.added or tuple(map(Added, self.rules.special_tokens))
        rules = self.rules._replace(added=(*there, *own))
        parts = json.loads(self.to_json())
        more = self.from_parts(parts, rules) if spaces else self.from_vocab(self.token_ids, rules)
        lacking = [word for word in words if word not in self._ids]
        if more.ids(lacking) != list(range(self.vocab_size, self.vocab_size + len(lacking))):
            raise BertjaxError("the vocabulary leaves out numbers, and takes no more words; leave out tokenizer.add")
        return more.with_template(self.template)

    def normal(self, word: str) -> str:
        """Returns a word in lower case where all text is."""
        return word.lower() if self.rules.lowercase else word

    def in_text(self, word: str) -> str:
        """Returns a word as it is within a text: after a space, where that is part of a token."""
        return word if self.rules.tell_all else f" {word}"

    def with_template(self, template: Template | None) -> "Tokenizer":
        """Returns the same tokenizer with another template; None is BERT's."""
        other = copy.copy(self)
        other.template = template or berts_template(self.vocabulary.cls, self.vocabulary.sep)
        return other

    def template_of(self, processor: dict[str, Any] | None) -> Template:
        """Returns the template that the post-processor of a tokenizer.json makes, as `read_template` finds it."""
        model = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
        try:
            self._engine.post_processor = Engine.from_str(
                json.dumps(_BARE | {"post_processor": processor, "model": model})
            ).post_processor
            return read_template(self._engine)
        except BertjaxError:
            raise
        except Exception as error:  # the library raises bare Exceptions
            reason = " ".join(str(error).split())
            raise BertjaxError(f"its post-processor cannot be read: {reason}; fetch it again") from None
        finally:
            self._engine.post_processor = None

    def to_hub_json(self) -> str:
        """Returns the `tokenizer.json` of a Hugging Face folder, which sets special tokens around a text by itself."""
        engine = Engine.from_str(self.to_json())
        if not self.rules.added:
            engine.add_special_tokens(self.rules.special_tokens)
        parts, processor = json.loads(engine.to_str()), post_processor(self.template, self._tokens)
        if self.rules.kind == "bpe":  # in other tools too a word does not begin with the space before it
            trimmed = byte_level_of(parts) | {"trim_offsets": True}
            processor = {"type": "Sequence", "processors": [trimmed, processor]}
        return Engine.from_str(json.dumps(parts | {"post_processor": processor})).to_str(pretty=True)

    def to_run_json(self) -> str:
        """Returns the `tokenizer.json` of a run's folder, which is without a template where that is BERT's."""
        berts = self.template == self.with_template(None).template
        return self.to_json() if berts else self.to_hub_json()

    def to_vocab_txt(self) -> str:
        """Returns the text of `vocab.txt`, a line for each token but added ones."""
        by_number = {number: token for token, number in self.token_ids.items()}
        last = max(by_number)
        # A number that no token has gets the last one's line once more: of lines that are alike the last one counts.
        return "".join(f"{by_number.get(number, by_number[last])}\n" for number in range(last + 1))

    def hub_settings(self) -> dict[str, Any]:
        """Returns what the `tokenizer_config.json` of a Hugging Face folder says of the tokenizer."""
        pieces = self.rules.kind == "wordpiece"
        berts = pieces and self.template == self.with_template(None).template
        flags = {
            "do_lower_case": self.rules.lowercase,
            "strip_accents": pieces and self.rules.strip_accents,
            "tokenize_chinese_chars": pieces and self.rules.split_chinese,
        }
        settings: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer" if berts else "PreTrainedTokenizerFast",
            **(flags if self.rules.tell_all else {}),
            **self.roles,
        }
        if self.template.keep_end:
            settings["truncation_side"] = "left"
        if self.rules.added:
            added = json.loads(self.to_json())["added_tokens"]
            settings["added_tokens_decoder"] = {str(token.pop("id")): token for token in added}
            settings["additional_special_tokens"] = self.tokens(sorted(self.vocabulary.markers))
        return settings

    def to_json(self) -> str:
        """Returns the text of `tokenizer.json`; it says nothing of the template."""
        return self._engine.to_str(pretty=True)

    @property
    def token_ids(self) -> dict[str, int]:
        """The number of every token but added ones; with the rules they are the whole tokenizer, but its template."""
        return self._engine.get_vocab(with_added_tokens=False)

    @property
    def roles(self) -> dict[str, str]:
        """The special tokens by their roles, as special_tokens_map.json has them."""
        by_role = zip(ROLES, self.rules.special, strict=True)
        return {role: token for role, token in by_role if token is not None}

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.vocabulary.size

    def split(self, text: str) -> list[str]:
        """Returns the tokens of a text as in training, words that the vocabulary lacks among them.

        Raises:
          BertjaxError: the text is not Unicode.
        """
        with only_unicode(text):
            if self.rules.kind != "word":
                return self._pieces(self._engine.encode(text))
            normal = self._engine.normalizer.normalize_str(text) if self.rules.lowercase else _valid(text)
        return _WORD.findall(normal)

    def split_all(self, texts: list[str]) -> list[list[str]]:
        """Splits each text; pieces are found on all cores. Raises BertjaxError where one is not Unicode."""
        if self.rules.kind != "word" and len(texts) > 1:  # else other cores are woken for nothing
            with only_unicode(*texts):
                return list(map(self._pieces, self._engine.encode_batch(texts)))
        return [self.split(text) for text in texts]

    def _pieces(self, encoding: Encoding) -> list[str]:
        # An added token is called there what the text has, which need not be what the vocabulary has.
        return self.tokens(encoding.ids) if self.rules.added else encoding.tokens

    def ids(self, words: Sequence[str]) -> list[int]:
        """Returns the id of each token; the unknown one's for what is outside the vocabulary."""
        return [self._ids.get(word, self.vocabulary.unk) for word in words]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the token of each id; `<unk>` for an id outside the vocabulary."""
        return [self._tokens.get(number, self.unk) for number in map(int, ids)]

    def words(self, ids: Iterable[int]) -> list[str]:
        """Returns the token of each id as a reader sees it: without marks for spaces."""
        tokens = self.tokens(ids)
        if self.rules.tell_all:
            return tokens
        return [plain(self._marked.get(token, token), self.rules.kind).strip() or token for token in tokens]

    def text(self, ids: Iterable[int]) -> str:
        """Returns tokens as a text, as far as they tell it."""
        return joined((self._marked.get(token, token) for token in self.tokens(ids)), self.rules.kind)

    def encode_words(self, texts: list[list[str]]) -> list[Pieces]:
        """Returns the pieces of each text's words, each word by itself; one of no characters that count has none.

        Raises:
          BertjaxError: a word is not Unicode.
        """
        # As they are in a text: where spaces are parts of tokens, a word has other ones than it would have alone.
        spaced = [[*words[:1], *(word and f" {word}" for word in words[1:])] for words in texts]
        with only_unicode(*itertools.chain.from_iterable(texts)):
            read = self._engine.encode_batch(spaced, is_pretokenized=True)
        # No special tokens are added, so that each token is of a word.
        return [Pieces(one.ids, [word for word in one.word_ids if word is not None]) for one in read]

    def words_of(self, texts: list[str]) -> list[tuple[list[tuple[int, int]], Pieces]]:
        """Returns where the words of each text begin and end, in characters, and their pieces.

        They are told apart as before any is split, and where spaces are parts of tokens, from punctuation too.

        Raises:
          BertjaxError: a text is not Unicode.
        """
        with only_unicode(*texts):
            read = self._engine.encode_batch(texts)
        return [words_of(*one, parted=not self.rules.tell_all) for one in zip(texts, read, strict=True)]

    def token_spans(self, text: str) -> list[tuple[int, int | None, int | None]]:
        """Returns the id of each token of a text, and where it begins and ends, in characters; words tell no places.

        Raises:
          BertjaxError: the text is not Unicode.
        """
        if self.rules.kind == "word":
            return [(number, None, None) for number in self.ids(self.split(text))]
        with only_unicode(text):
            read = self._engine.encode(text)
        return [(number, *span) for number, span in zip(read.ids, read.offsets, strict=True)]

    def encode_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text's tokens, and where they begin and end, in characters; found on all cores.

        Raises:
          BertjaxError: a text is not Unicode.
        """
        with only_unicode(*texts):
            return [(read.ids, read.offsets) for read in self._engine.encode_batch(texts)]

    def encode_sentences(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence, found on all cores. Raises BertjaxError where one is not Unicode."""
        with only_unicode(*sentences):
            return [encoding.ids for encoding in self._engine.encode_batch_fast(sentences)]


def _valid(text: str) -> str:
    text.encode()
    return text
