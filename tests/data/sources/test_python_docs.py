"""Python's own docs: cleaned, split, and read without running anything."""

import typing

import pytest

from bertjax.config import Split
from bertjax.data.sources import python_docs
from bertjax.errors import BertjaxError

MODULE = '''"""Birds that fly, from near and far.

They don't ask ``why``; see :func:`os.path.join` (e.g. *this* well-made one).  Do they land?  Yes.

>>> secret_code()
Secret output of the doctest.  It is not prose at all.

.. note:: Secret directive of the markup.  It is not prose.

    secret = indented(code) + more.
"""
import sys
sys.exit("a module of the library was run")

class Bird:
    """Base class of all the birds.  It is never used directly."""

    def fly(self):
        """Base class of all the birds.  It is never used directly."""
'''


@pytest.fixture
def stdlib(tmp_path):
    for name in ["birds.py", "test/inner.py", "site-packages/other.py", "broken.py", "pydoc_data/topics.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(MODULE)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "raises.py").write_text('"""One more is here. It is short."""\nraise RuntimeError')
    topics = {"flying": 'The "fly" statement\n***\n\nIt makes a bird fly. Some cannot do it.\n\n   fly ::= x\n'}
    (tmp_path / "pydoc_data" / "topics.py").write_text(f"topics = {topics!r}\n")
    return tmp_path


def test_docs_are_cleaned_and_nothing_is_run(stdlib):
    documents = [document for split in typing.get_args(Split) for document in python_docs.documents(split, stdlib)]
    assert sorted(documents) == [
        [
            [
                "Birds that fly , from near and far",
                "They don 't ask why ; see os.path.join ( e.g. this well @-@ made one )",
                "Do they land ?",
            ],
            ["Base class of all the birds", "It is never used directly"],
        ],
        [["It makes a bird fly", "Some cannot do it"]],
        [["One more is here", "It is short"]],
    ]


def test_docs_without_a_library(tmp_path):
    with pytest.raises(BertjaxError, match="has no source files: set data.source"):
        list(python_docs.documents("train", tmp_path))


def test_docs_fingerprint_follows_the_files(stdlib):
    before = python_docs.fingerprint(stdlib)
    assert python_docs.fingerprint(stdlib) == before
    (stdlib / "more.py").write_text("")
    assert python_docs.fingerprint(stdlib) != before


def test_docs_are_the_same_in_every_build():
    some = python_docs.STDLIB / "asyncio"
    first = list(python_docs.documents("train", some))
    python_docs._corpus.cache_clear()
    assert first == list(python_docs.documents("train", some)) != []


def test_docs_of_this_interpreter():
    splits = {split: list(python_docs.documents(split)) for split in typing.get_args(Split)}
    paragraphs = {split: [tuple(p) for document in splits[split] for p in document] for split in splits}
    every = [paragraph for split in splits for paragraph in paragraphs[split]]
    assert len(set(every)) == len(every) > 4000
    assert len(paragraphs["train"]) > 10 * len(paragraphs["valid"]) > 1000
    sentences = [sentence for paragraph in every for sentence in paragraph]
    assert all(len(paragraph) >= 2 for paragraph in every)
    assert not any(" . " in sentence or ">>>" in sentence or "\n" in sentence for sentence in sentences)
