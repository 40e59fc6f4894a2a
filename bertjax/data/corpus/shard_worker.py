"""Tokenises shards of the user's files, in the process that asks for them or in one of its own."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from bertjax.config import Split
from bertjax.data.corpus.corpus import write_shard
from bertjax.data.document import Document
from bertjax.data.sources.files import Shard, Skipped, documents
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.lines import Part
from bertjax.data.tokenizer.rules import Added, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.storage.cache import read_or_build, read_whole, writing_in
from bertjax.storage.locks import locked_beside


class Task(NamedTuple):
    """The work on every shard."""

    layout: Layout
    split: Split | None  # of all documents; None where the text of each decides
    tokenizer: Tokenizer

    def to_json(self) -> str:
        """Returns a line that `of_json` reads in another process."""
        return json.dumps([self.layout, self.split, self.tokenizer.to_json(), self.tokenizer.rules])

    @classmethod
    def of_json(cls, text: str) -> "Task":
        """Reads what `to_json` returned."""
        layout, split, tokenizer, (*rules, special, added) = json.loads(text)
        how = Rules._make([*rules, tuple(special), tuple(Added(*token) for token in added)])
        return cls(Layout(*layout), split, Tokenizer.from_json(tokenizer, how))


class Done(NamedTuple):
    """The report on a shard."""

    was_there: bool
    skipped: dict[str, int]  # files and records that could not be read, by reason
    such_as: list[str]  # the first of them


def build_shard(folder: Path, shard: Shard, task: Task) -> Done:
    """Tokenises a shard into a folder, unless that was done before; what another process is at is waited for.

    Args:
      folder: the shard's own; it is written whole or not at all.

    Raises:
      BertjaxError: a file cannot be read, or the folder not be written.
    """
    if (there := read_whole(folder, _read)) is not None:
        return Done(True, *there)

    def build(built: Path) -> None:
        skipped = Skipped()
        write_shard(built, _by_split(shard, task, skipped), task.tokenizer)
        (built / "skipped.json").write_text(json.dumps([skipped.counts, skipped.such_as]), encoding="utf-8")

    with writing_in(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked_beside(folder):
            if (there := read_whole(folder, _read)) is not None:
                return Done(True, *there)
            return Done(False, *read_or_build(folder, _read, build))


def _by_split(shard: Shard, task: Task, skipped: Skipped) -> Iterator[tuple[str, Document]]:
    for split, document in documents(shard, task.layout, skipped):
        yield task.split or split, document


def _read(folder: Path) -> tuple[dict[str, int], list[str]] | None:
    try:
        skipped, such_as = json.loads((folder / "skipped.json").read_text(encoding="utf-8"))
        return dict(skipped), list(such_as)
    except (OSError, ValueError, TypeError):
        return None


def answered(folder: str, shard: list[list[Any]], task: Task) -> dict[str, Any]:
    """Returns what `build_shard` did, as JSON has it, or under "error" why it could not.

    Args:
      folder, shard: as JSON has them.
    """
    try:
        return build_shard(Path(folder), [Part(*part) for part in shard], task)._asdict()
    except BertjaxError as error:
        return {"error": str(error)}


def main() -> None:
    """Reads lines: the task, then a folder and a shard each. Answers each with a line: what was done, or why not."""
    lines: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # whoever asked is gone, and perhaps was killed

    threading.Thread(target=listen, daemon=True).start()
    task = Task.of_json(lines.get())
    while True:
        folder, shard = json.loads(lines.get())
        try:
            sys.stdout.write(json.dumps(answered(folder, shard, task)) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # as above
            os._exit(0)


if __name__ == "__main__":
    main()
