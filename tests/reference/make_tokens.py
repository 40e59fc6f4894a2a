"""Makes tests/reference/tokens.json: tokenizers' files as people have them, and the ids that `transformers` reads.

python tests/reference/make_tokens.py    # with transformers; not part of the suite
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import BertProcessing, RobertaProcessing, TemplateProcessing

FILE = Path(__file__).parent / "tokens.json"
LENGTH = 8  # to which texts are shortened
WORDS = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK] a b crane cranes é e été ete Crane x ##s ##ane cr".split()
WORDS += "中 文 中文 [ ] < >".split()
SIZE = len(WORDS)
TEXTS: list[tuple[str, ...]] = [("a Crane",), ("Été cranes 中文 x",), ("",), ("a b", "x"), ("a " * 9, "b " * 9)]
TEXTS += [("a b e x " * 2, "x crane"), ("b", "a b x e cranes crane a")]
ADDED_TEXTS = [("Neu neuron NEU, aneu <boat> x",), ("a <Boat> <boat>b[SEP]x", "neu")]
WHOLE = dict(lstrip=False, rstrip=False)


def added(content: str, **flags: bool) -> dict[str, Any]:
    return {"content": content, "single_word": False, "normalized": False, "special": False} | WHOLE | flags


def lines(words: list[str], end: str = "\n") -> dict[str, str]:
    return {"vocab.txt": "".join(f"{word}{end}" for word in words)}


def config(**settings: Any) -> dict[str, Any]:
    return {"tokenizer_config.json": settings}


def engine(words: list[str] = WORDS) -> Tokenizer:
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens([word for word in words if word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")])
    return made


def whole(single: str, pair: str, change: Callable[[Tokenizer], Any] = id, **settings: Any) -> dict[str, Any]:
    """A tokenizer.json that tells all, with a template."""
    made, names = engine(), ("[CLS]", "[SEP]", "[unused1]")
    if single:
        made.post_processor = TemplateProcessing(single, pair, [(name, WORDS.index(name)) for name in names])
    change(made)
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "pad", "cls", "sep", "mask")}
    inputs = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **roles, **inputs, **settings}
    settings = {key: value for key, value in settings.items() if value is not None}
    return {"tokenizer.json": json.loads(made.to_str()), **config(**settings)}


BERTS = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
NO_MASK = [word for word in WORDS if word != "[MASK]"]


def processed(processor: Any) -> dict[str, Any]:
    return whole("", "", lambda made: setattr(made, "post_processor", processor))


def cut_left(made: Tokenizer) -> None:
    made.enable_truncation(5, stride=1, strategy="only_first", direction="left")
    made.enable_padding(direction="left", length=30, pad_id=0, pad_token="[PAD]")


# Each: files beside config.json, and how many tokens the model has weights for.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "a blank line": (lines([*WORDS[:9], "", *WORDS[9:]]), SIZE + 1),
    "a word twice": (lines([*WORDS[:9], "x", *WORDS[9:], "a"]), SIZE + 2),
    "lines of Windows": (lines(WORDS, "\r\n"), SIZE),
    "spaces at the ends of lines": (lines(WORDS, " \u3000\n"), SIZE),
    "blank lines at the end": (lines([*WORDS, "", ""]), SIZE + 2),
    "no [MASK]": (lines(NO_MASK), SIZE - 1),
    "no [MASK], named": (lines(NO_MASK) | config(mask_token="[MASK]"), SIZE - 1),
    "no [MASK] and no [PAD], but weights": (lines(WORDS[1:5] + WORDS[6:]), SIZE),
    "no [MASK], and a marker": (lines(NO_MASK) | config(additional_special_tokens=["<boat>"]), SIZE + 1),
    "no [SEP], but weights": (lines(WORDS[:4] + WORDS[5:]), SIZE),
    "added_tokens.json": (lines(WORDS) | {"added_tokens.json": {"<boat>": SIZE + 1, "Neu": SIZE}}, SIZE + 2),
    "added_tokens_decoder": (
        lines(WORDS)
        | config(added_tokens_decoder={f"{SIZE}": added("neu", single_word=True), f"{SIZE + 1}": added("<Boat>")}),
        SIZE + 2,
    ),
    "added_tokens_decoder alone counts": (
        lines(WORDS)
        | {"added_tokens.json": {"Neu": SIZE}, "special_tokens_map.json": {"additional_special_tokens": ["neu"]}}
        | config(added_tokens_decoder={f"{SIZE}": added("<boat>", special=True)}),
        SIZE + 1,
    ),
    "words of the vocabulary": (lines(WORDS) | {"added_tokens.json": {"cr": WORDS.index("cr")}}, SIZE),
    "additional_special_tokens": (lines(WORDS) | config(additional_special_tokens=["<boat>", "neu"]), SIZE + 2),
    "a map of special tokens": (
        lines(WORDS) | {"special_tokens_map.json": {"mask_token": "x", "additional_special_tokens": ["neu"]}},
        SIZE + 1,
    ),
    "other roles": (
        lines(WORDS) | config(bos_token="<boat>", boat_token="neu", extra_special_tokens={"what_token": "<Boat>"}),
        SIZE + 3,
    ),
    "special tokens with settings": (
        lines(WORDS) | config(cls_token=added("crane", normalized=True) | {"__type": "AddedToken"}),
        SIZE,
    ),
    "added in tokenizer.json": (
        whole(
            *BERTS,
            lambda made: made.add_tokens([AddedToken("Neu", normalized=True), AddedToken("<boat>", special=True)]),
        ),
        SIZE + 2,
    ),
    "added in both": (
        whole(
            *BERTS,
            lambda made: made.add_tokens(["Neu"]),
            added_tokens_decoder={f"{SIZE}": added("Neu", normalized=True, single_word=True)},
            additional_special_tokens=["<boat>"],
        ),
        SIZE + 2,
    ),
    "tokenizer.json of a BertTokenizer": (
        whole(
            "[CLS] [unused1] $A",
            "[CLS] $A [SEP] $B [SEP]",
            lambda made: made.add_tokens(["<boat>"]),
            tokenizer_class="BertTokenizerFast",
            strip_accents=False,
        ),
        SIZE + 1,
    ),
    "a template without segments": (whole(BERTS[0], "[CLS] $A [SEP] $B [SEP]"), SIZE),
    "a template with more tokens": (whole("[CLS] [unused1] $A [SEP]", "[CLS] [unused1] $A [SEP] $B:1 [SEP]:1"), SIZE),
    "a template without [SEP]": (whole("[CLS] $A", "[CLS] $A $B:1"), SIZE),
    "a template with the second text first": (whole("$A [SEP]", "$B [SEP] [CLS]:1 $A:1"), SIZE),
    "a template of segment 1": (whole("[CLS]:1 $A:1 [SEP]:1", "[CLS]:1 $A:1 [SEP]:1 $B:1 [SEP]:1"), SIZE),
    "a BertProcessing": (processed(BertProcessing(("[SEP]", 4), ("[CLS]", 3))), SIZE),
    "a RobertaProcessing": (processed(RobertaProcessing(("[SEP]", 4), ("[CLS]", 3))), SIZE),
    "no post-processor": (whole("", ""), SIZE),
    "no segments for the model": (whole(*BERTS, model_input_names=None), SIZE),
    "truncation and padding": (whole(*BERTS, cut_left), SIZE),
    "truncation by the settings": (lines(WORDS) | config(truncation_side="left"), SIZE),
}


def main() -> None:
    cases = []
    for name, (files, size) in CASES.items():
        files = {"config.json": {"model_type": "bert", "vocab_size": size}, **files}
        with tempfile.TemporaryDirectory() as folder:
            for file, content in files.items():
                text = content if isinstance(content, str) else json.dumps(content)
                Path(folder, file).write_text(text, encoding="utf-8", newline="")
            read = transformers.AutoTokenizer.from_pretrained(folder)
        texts = [text for text in [*TEXTS, *ADDED_TEXTS] if any(text) or name != "no post-processor"]
        long, short = ([read(*text, **how) for text in texts] for how in ({}, dict(truncation=True, max_length=LENGTH)))
        assert all(max(batch["input_ids"]) < size for batch in long), name
        answers = {
            "ids": [batch["input_ids"] for batch in long],
            "segments": [batch.get("token_type_ids", [0] * len(batch["input_ids"])) for batch in long],
            "short": [batch["input_ids"] for batch in short],
        }
        cases.append({"name": name, "files": files, "texts": texts, **answers})
    FILE.write_text(
        "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "\n]\n",
        encoding="utf-8",
    )
    print(f"{len(cases)} cases by transformers {transformers.__version__}; {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
