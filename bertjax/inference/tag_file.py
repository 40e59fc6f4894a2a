"""A file of sentences to one with a tag beside each word."""

import contextlib
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bertjax.config import TaskConfig
from bertjax.data.sources.columns import Block
from bertjax.data.sources.records import in_field
from bertjax.data.tagged import Sentence, read_sentences
from bertjax.errors import BertjaxError
from bertjax.inference.record_files import RECORDS, record_writer
from bertjax.inference.tagger import Tagged, Tagger

FORMATS = (*RECORDS, ".conll", ".txt", ".tsv")
_AT_ONCE = 4096  # sentences that are computed together
_DIGITS = 6


def tag_file(tagger: Tagger, task: TaskConfig, source: str, file: IO[Any], out: Path) -> int:
    """Writes sentences again, with the tags of their words; returns how many there were.

    As JSON lines, or in Parquet, a record has its columns, and `prediction` and `probability` with one for each word;
    where it has a text in place of words, `spans` of the words and `entities` too, in characters. Of a file in columns
    the same lines are written, with a column more, unless such records are asked for.

    Args:
      task: names the column of the words.
      source: files of sentences or texts, as `read_sentences` takes them.
      file: what is written to, bytes where the format is binary.
      out: its name, whose ending tells its format.

    Raises:
      BertjaxError: a sentence cannot be read, has a column of those that are added, or cannot be written so.
    """
    number, read = 0, read_sentences(task, source, "--input", labelled=False)
    with record_writer(file, out) if out.suffix in RECORDS else contextlib.nullcontext() as write:
        lines = _Lines(file)
        while some := list(islice(read, _AT_ONCE)):
            for sentence, tagged in zip(some, tagger.tag([_given(task, one) for one in some]), strict=True):
                is_block = isinstance(sentence.source, Block)
                number += bool(sentence.words) or not is_block
                if write is None:
                    lines.write(sentence, tagged, out)
                elif sentence.words or not is_block:
                    write(sentence.place, _record(task, sentence, tagged))
    if not number:
        raise BertjaxError(f"{source} has no sentences; give --input some")
    return number


class _Lines:
    """Writes sentences of files in columns as they stand there, with a column more."""

    def __init__(self, file: IO[str]):
        self._file, self._blank, self._before = file, True, ""

    def write(self, sentence: Sentence, tagged: Tagged, out: Path) -> None:
        if not isinstance(sentence.source, Block):
            raise BertjaxError(
                f"{sentence.place} is a record, and {out} is in columns, as its name has it; give --out a name in "
                ".jsonl or .parquet"
            )
        if self._before not in ("", sentence.place.part.file) and not self._blank:  # a sentence ends with its file
            print(file=self._file)
        self._before = sentence.place.part.file
        for line in sentence.source.beside(tagged.tags):
            print(line, file=self._file)
            self._blank = not line.strip()


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
