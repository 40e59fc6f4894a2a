"""Tiny tokenizers whose files tell all, as RoBERTa's and XLM-RoBERTa's are, and folders of them."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizer.template import A, B
from bertjax.data.tokenizer.tokenizer import Tokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ROLES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
LINES = ["a crane is flying over it .", "he just left", "Cranes , cranes and un\u00e9 under a crane !"]
LINES += ["( the crane's understanding )"]


def bpe(lines: list[str] = LINES, size: int = 300, *, prefix_space: bool = False) -> Engine:
    """RoBERTa's."""
    made = Engine(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    how: Any = {"vocab_size": size, "show_progress": False, "initial_alphabet": alphabet}
    made.train_from_iterator(lines, trainers.BpeTrainer(special_tokens=SPECIAL, **how))
    return _framed(made)


def unigram(lines: list[str] = LINES, size: int = 60, *, split: bool = True) -> Engine:
    """XLM-RoBERTa's, or without `split` one that has a piece for each of two spaces."""
    made = Engine(models.Unigram())
    space = pre_tokenizers.Metaspace()
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space]) if split else space
    made.decoder = decoders.Metaspace()
    how: Any = {"vocab_size": size, "show_progress": False, "unk_token": "<unk>"}
    made.train_from_iterator(lines, trainers.UnigramTrainer(special_tokens=SPECIAL, **how))
    return _framed(made)


def pieces(lines: list[str] = LINES, size: int = 60) -> Engine:
    """MPNet's."""
    made = Engine(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        lines, trainers.WordPieceTrainer(special_tokens=SPECIAL, vocab_size=size, show_progress=False)
    )
    return _framed(made)


def write(folder: Path, engine: Engine, **settings: Any) -> Path:
    """A folder's files; with no settings nothing but tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(engine.to_str(), encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def framed(tokenizer: Tokenizer, *texts: str) -> list[int]:
    """What a model reads of a text or a pair."""
    frame = tokenizer.template.pair if len(texts) > 1 else tokenizer.template.single
    of_text = {A: tokenizer.split(texts[0]), B: tokenizer.split(texts[-1])}
    return [number for place in frame.places for number in (tokenizer.ids(of_text[place]) if place < 0 else [place])]


def _framed(made: Engine) -> Engine:
    made.add_special_tokens([AddedToken(token, lstrip=token == "<mask>") for token in SPECIAL])
    ends = [(token, made.token_to_id(token)) for token in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    return made
