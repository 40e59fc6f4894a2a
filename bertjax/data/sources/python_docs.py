"""The corpus that needs no download: the English that every Python ships, its help topics and docstrings.

Nothing of the library is imported or run, its source is only parsed. Punctuation is set apart as in WikiText.
"""

import ast
import functools
import hashlib
import inspect
import os
import re
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

from bertjax.config import Split
from bertjax.data.document import Document
from bertjax.data.sources.files import UserFiles
from bertjax.errors import BertjaxError

RULES = 1  # raise it with every change of what comes out: it is part of the fingerprint
STDLIB = Path(sysconfig.get_path("stdlib"))
TOPICS = Path("pydoc_data", "topics.py")
# Installed packages, code that is no library, and tables whose docstrings are all alike.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}

# What makes a block of lines no prose: doctests, grammar, links; directives, fields, comments; tables; lists.
_NO_PROSE = re.compile(r">>>|::=|://|^\s*(?:\.\. |[:@#|+\\])|[=~^-]{4}|  \S.*  \S.*  |\n\s*(?:[-*]|\d+[.)])\s", re.M)
_BULLET = re.compile(r"\A\s*(?:[-*]|\(?\w[.)])\s+")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(?: *->.*)?:?\n")
_MARKUP = [
    (re.compile("[“”]"), '"'),
    (re.compile("[‘’]"), "'"),
    (re.compile(r"\s*\[[#\d]\w*\]_?"), ""),  # footnotes
    (re.compile(r"(?::\w+)*:`~?([^`]+)`"), r"\1"),  # :role:`name`
    (re.compile(r"`([^`<]+) <[^`>]+>`_+"), r"\1"),  # `text <target>`_
    (re.compile(r"`+([^`]+)`+_*"), r"\1"),
    (re.compile(r"(?<!\w)\*\*?(\w[^*]*)\*\*?(?!\w)"), r"\1"),
    (re.compile(r"""(?<!\w)(["'])([^"'\s]+)\1(?!\w)"""), r"\2"),  # the topics write code so
    (re.compile(r"\(\)"), ""),
    (re.compile(r"""([.!?])(["')\]]+)(?=\s|$)"""), r"\2\1"),  # so that a full stop ends its sentence
]
_TOKEN = re.compile(
    r"(?:e\.g|i\.e|ie|cf|vs|etc|Dr|Mr|St)\.(?!\s+[A-Z]|$)|(?<![\w-])(?:[A-Z]\.)+(?=\s[A-Z])"
    r"|(?<=\w)'\w+|(?<=\w)-(?=\w)|(?<!\w)(?:\.|--?)?\w+(?:\.\w+)*|\.{2,}|--|->|[<>=!]=|[^\w\s]"
)
_SENTENCE_END = re.compile(r" \.(?: |$)|(?<= [!?]) (?=[A-Z\"'(])")


class PythonDocs:
    """All splits of this interpreter's documentation."""

    name = "python-docs"

    def __init__(self) -> None:
        self._fingerprint = fingerprint()

    def fingerprint(self, split: Split) -> str:
        """Returns the corpus's, with the split."""
        return f"{self._fingerprint}/{split}"

    def documents(self, split: Split) -> Iterator[Document]:
        """Streams the split's topics and modules."""
        return documents(split)

    def user_files(self, split: Split) -> UserFiles | None:
        """Returns None: the text is small."""
        return None


def documents(split: str, stdlib: Path = STDLIB) -> Iterator[Document]:
    """Streams a split's topics and modules.

    A document's name decides its split: about 90 of 100 are train, 5 valid, 5 test. No paragraph comes twice.

    Args:
      split: "train", "valid" or "test".
      stdlib: the folder of the library.

    Raises:
      BertjaxError: the interpreter came without its library's source.
    """
    for name, paragraphs in _corpus(stdlib):
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
        if split == ("train" if share < 0.9 else "valid" if share < 0.95 else "test"):
            yield [list(paragraph) for paragraph in paragraphs]


def fingerprint(stdlib: Path = STDLIB) -> str:
    """Returns what changes with our rules, the interpreter's build, and the files' names and sizes; opens none."""
    files = [(str(name), (stdlib / name).stat().st_size) for name in _files(stdlib)]
    return hashlib.sha256(repr((RULES, sys.version, files)).encode()).hexdigest()


def _files(stdlib: Path) -> list[Path]:
    """Returns the files relative to `stdlib`, in an order that is the same everywhere, the topics first."""
    found = []
    for folder, folders, names in os.walk(stdlib):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    found = sorted(path.relative_to(stdlib) for path in found if path.is_file())
    return [TOPICS, *found] if (stdlib / TOPICS).is_file() else found


@functools.cache  # 1 MB, and the build asks for it twice a split
def _corpus(stdlib: Path) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Returns (name, paragraphs) of every document that has any, none of which repeats a paragraph of an earlier one.

    Else inherited docstrings would put the train split's text into the others.
    """
    seen: set[tuple[str, ...]] = set()
    corpus = []
    for name, texts in _texts(stdlib):
        fresh = []
        for paragraph in (found for text in texts for found in _paragraphs(text)):
            if paragraph not in seen:
                seen.add(paragraph)
                fresh.append(paragraph)
        if fresh:
            corpus.append((name, fresh))
    if not corpus:
        raise BertjaxError(f"python-docs: {stdlib} has no source files: set data.source: wikitext-2")
    return corpus


def _texts(stdlib: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields (name, texts) of every topic and module, as they stand in the source."""
    for file in _files(stdlib):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in the library is not our user's affair
                tree = ast.parse((stdlib / file).read_bytes())
            if file == TOPICS:
                [table] = [node.value for node in tree.body if isinstance(node, ast.Assign)]
                for name, text in sorted(ast.literal_eval(table).items()):
                    yield f"topic {name}", [text]
            else:
                yield f"module {file.as_posix()}", list(_docstrings(tree))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node, clean=False) or ""
    for field in ("body", "orelse", "handlers", "finalbody"):
        inner = getattr(node, field, ())
        for child in inner if isinstance(inner, list) else ():
            yield from _docstrings(child)


def _paragraphs(text: str) -> Iterator[tuple[str, ...]]:
    """Yields the text's prose; a single sentence, such as a summary line, is joined to what follows it."""
    paragraph: tuple[str, ...] = ()
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        sentences = tuple(_sentences(_prose(block)))
        paragraph = paragraph + sentences if len(paragraph) < 2 else sentences
        if len(paragraph) >= 2:
            yield paragraph


def _prose(block: str) -> str:
    """Returns a block's text without its markup, or nothing if it is code, a table, a heading or another layout."""
    lines = textwrap.dedent(_BULLET.sub(lambda mark: " " * len(mark[0]), block, count=1))
    lines = _SIGNATURE.sub("", lines, count=1) if _SIGNATURE.match(lines) else lines
    if _NO_PROSE.search(lines) or re.search(r"^\s", lines, re.M) or not re.search(r"[.!?:][\"')\]]*$", lines):
        return ""
    text = " ".join(lines.split())
    for pattern, plain in _MARKUP:
        text = pattern.sub(plain, text)
    return text


def _sentences(text: str) -> Iterator[str]:
    """Yields the sentences that are not mostly code: words and marks set apart by spaces, no final full stop."""
    tokens = " ".join("@-@" if token == "-" else token for token in _TOKEN.findall(text))
    for sentence in _SENTENCE_END.split(tokens):
        words = sum(word.isalpha() for word in sentence.split())
        if words >= 3 and words >= 0.55 * len(sentence.split()):
            yield sentence.strip()
