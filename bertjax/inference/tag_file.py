"""A file of sentences to one with a tag beside each word."""

import json
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bertjax.config import TaskConfig
from bertjax.data.sources.columns import Block
from bertjax.data.sources.records import in_field
from bertjax.data.tagged import Sentence, read_sentences
from bertjax.errors import BertjaxError
from bertjax.inference.tagger import Tagged, Tagger

FORMATS = (".jsonl", ".conll", ".txt", ".tsv")
_AT_ONCE = 4096  # sentences that are computed together
_DIGITS = 6


def tag_file(tagger: Tagger, task: TaskConfig, source: str, file: IO[str], out: Path) -> int:
    """Writes sentences again, with the tags of their words; returns how many there were.

    As JSON lines a record has its columns, and `prediction` and `probability` with one for each word; where it has a
    text in place of words, `spans` of the words and `entities` too, in characters. Of a file in columns the same lines
    are written, with a column more, unless JSON lines are asked for.

    Args:
      task: names the column of the words.
      source: files of sentences or texts, as `read_sentences` takes them.
      file: what is written to.
      out: its name, whose ending tells its format.

    Raises:
      BertjaxError: a sentence cannot be read, has a column of those that are added, or cannot be written so.
    """
    number, blank, before = 0, True, ""
    read = read_sentences(task, source, "--input", labelled=False)
    while some := list(islice(read, _AT_ONCE)):
        for sentence, tagged in zip(some, tagger.tag([_given(task, one) for one in some]), strict=True):
            number += bool(sentence.words) or not isinstance(sentence.source, Block)
            if out.suffix == ".jsonl":
                if sentence.words or not isinstance(sentence.source, Block):
                    print(json.dumps(_record(task, sentence, tagged), ensure_ascii=False, default=str), file=file)
                continue
            if not isinstance(sentence.source, Block):
                raise BertjaxError(
                    f"{sentence.place} is a record, and {out} is in columns, as its name has it; give --out a name in "
                    ".jsonl"
                )
            if before not in ("", sentence.place.part.file) and not blank:  # a sentence ends with its file
                print(file=file)
            before = sentence.place.part.file
            for line in sentence.source.beside(tagged.tags):
                print(line, file=file)
                blank = not line.strip()
    if not number:
        raise BertjaxError(f"{source} has no sentences; give --input some")
    return number


def _given(task: TaskConfig, sentence: Sentence) -> str | tuple[str, ...]:
    if not isinstance(sentence.source, Block) and isinstance(in_field(sentence.source, task.text), str):
        return sentence.words[0]
    return sentence.words


def _record(task: TaskConfig, sentence: Sentence, tagged: Tagged) -> dict[str, Any]:
    added: dict[str, Any] = {
        "prediction": tagged.tags,
        "probability": [round(probability, _DIGITS) for probability in tagged.probabilities],
    }
    if isinstance(sentence.source, Block):
        return {"words": list(sentence.words), **added}
    if isinstance(_given(task, sentence), str):
        entities = [one._replace(score=round(one.score, _DIGITS))._asdict() for one in tagged.entities]
        added |= {"spans": tagged.spans, "entities": entities}
    if there := [column for column in added if column in sentence.source]:
        raise BertjaxError(f"{sentence.place} has a column {there[0]} already; name it otherwise, or leave it out")
    return sentence.source | added
