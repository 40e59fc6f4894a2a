"""The trial of a large corpus, on a small one."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.stress import corpus
from benchmarks.stress.corpus import Sample, draw, summary, write_text
from bertjax.errors import BertjaxError


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which are drawn in no time."""
    for name in ("_WORDS", "_SENTENCES"):
        monkeypatch.setattr(corpus, name, 3000)


def test_the_text_is_always_the_same(tmp_path: Path) -> None:
    counts = {write_text(tmp_path / name, 100_000) for name in ("a", "b")}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    records = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert counts == {len(records)} and all(record["text"].endswith(".") for record in records)
    assert (tmp_path / "a").stat().st_size >= 100_000


def test_the_summary_tells_a_leak() -> None:
    samples = [Sample(n / 10, 0, 0, 2**30) for n in range(10)]
    samples += [Sample(1 + n / 10, 1, n, 2**20 + 1000 * n) for n in range(100)]
    report = summary(samples)
    assert report["most_memory_bytes_of_halves"] == [2**20 + 49_000, 2**20 + 99_000]
    assert report["stages"]["vocabulary"] == {"seconds": pytest.approx(0.9), "most_memory_bytes": 2**30}
    assert report["stages"]["shards"]["seconds"] == pytest.approx(10)
    assert "joining" not in report["stages"]


def test_a_small_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    files = [f"--{option}={tmp_path / name}" for option, name in (("json", "report.json"), ("plot", "plot.png"))]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{data: {max_length: 64}, train: {batch_size: 32}, tokenizer: {kind: wordpiece, vocab_size: 500}}"
    )
    code = main(["corpus", "--gigabytes", "0.002", "--kills", "0", "--config", str(recipe), *files])
    said = capsys.readouterr()
    assert code == 0, said.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["drawing"]["pairs"] > 1000 and report["drawing"]["pairs_per_second"] > 0
    assert "pieces:   " in said.out and "after the" not in said.err
    assert draw(report) and (tmp_path / "plot.png").stat().st_size > 5000
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "options", [["--gigabytes", "0"], ["--gigabytes", "nan"], ["--kills", "-1"], ["--plot", "x.pdf"]]
)
def test_what_cannot_be(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bertjax.config import Config

    monkeypatch.setattr(corpus.Path, "exists", lambda _: False)
    with pytest.raises(BertjaxError, match="no /proc"):
        corpus.build_and_draw(Config(), tmp_path, {}, print, gigabytes=1, kills=0)
