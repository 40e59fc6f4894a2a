"""Which source it is: the one asked for, its fallback, or one of somebody's own."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertjax.config import Config, DataConfig, Split
from bertjax.data.document import Document
from bertjax.data.prepare import prepare
from bertjax.data.sources import wikitext
from bertjax.data.sources.files import UserFiles
from bertjax.data.sources.open_source import open_source
from bertjax.errors import BertjaxError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikitext, "download", functools.partial(wikitext.download, mirrors=()))
    monkeypatch.delenv("BERTJAX_DATA", raising=False)


def test_an_error_tells_the_places_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BertjaxError) as caught:
        open_source(DataConfig(path=str(tmp_path)), ["train"], tmp_path / "cache")
    message = str(caught.value)
    for part in (str(tmp_path), str(tmp_path / "cache" / "wikitext-2"), "data.path", "data.fallback: python-docs"):
        assert part in message
    assert "\n" not in message


def test_fallback_is_taken_for_all_splits_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "wikitext-2").mkdir()
    (tmp_path / "wikitext-2" / "wiki.valid.tokens").write_text("a . b")
    source, instead_of = open_source(DataConfig(fallback="python-docs"), ["train", "valid"], tmp_path)
    assert source.name == "python-docs"
    assert instead_of and "(train) cannot be downloaded" in instead_of and str(tmp_path / "wikitext-2") in instead_of
    source, instead_of = open_source(DataConfig(fallback="python-docs"), ["valid"], tmp_path)
    assert (source.name, instead_of) == ("wikitext-2", None)
    assert open_source(DataConfig("python-docs"), ["valid"], tmp_path).instead_of is None


@pytest.mark.parametrize("fallback", [None, "python-docs"])
def test_bad_settings_have_no_fallback(tmp_path: Path, fallback: str | None) -> None:
    for given, cache, complaint in (
        ("/nowhere", tmp_path, "data.path=/nowhere is not a folder"),
        (__file__, tmp_path, "is not a folder"),
        (None, Path(__file__), "data.cache"),
    ):
        with pytest.raises(BertjaxError, match=complaint):
            open_source(DataConfig(path=given, fallback=fallback), ["valid"], cache)  # type: ignore[arg-type]


class Toy:
    """A source of one's own: a crane counts."""

    name = "toy"

    def fingerprint(self, split: Split) -> str:
        return "1"

    def documents(self, split: Split) -> Iterator[Document]:
        for number in range(40 if split == "train" else 10):
            yield [[f"crane {number % 7} flies .", "it counts to itself .", f"then it lands at {number % 5} ."]]

    def user_files(self, split: Split) -> UserFiles | None:
        return None


def test_a_source_of_ones_own(tiny: Config) -> None:
    prepared = prepare(tiny, source=Toy())
    assert (prepared.train.name, prepared.held_out.name) == ("toy/train", "toy/valid")
    assert (len(prepared.train.paragraphs) - 1, len(prepared.held_out.sentences) - 1) == (40, 30)
    assert "crane" in prepared.tokenizer.tokens(prepared.train_batches.batch_at(0).tokens_bt.ravel())
    assert prepared.config.data == tiny.data and prepared.instead_of is None
    again = prepare(dataclasses.replace(tiny, seed=1), prepared.tokenizer, source=Toy())
    assert again.train.digest == prepared.train.digest
