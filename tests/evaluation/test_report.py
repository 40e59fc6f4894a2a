"""A run's report, with what its model makes of held-out text."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.cli.main import main
from bertjax.config import Config
from bertjax.data.prepare import Prepared
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.evaluation import report
from bertjax.evaluation.senses import words_of_several_senses
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert
from bertjax.objectives.guesses import Look, Place, hide_words, sentence_ids
from bertjax.parallel.sharding import by_name, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.pretrain import pretrain

OLD = Path(__file__).parents[1] / "reference" / "run"


def words_of(page: str) -> str:
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curve is drawn, which takes most of a page's time."""
    monkeypatch.setattr("bertjax.runs.report.draw_curves", lambda *_, **__: "<svg></svg>")


def with_report(tiny: Config) -> Config:
    optim, train = dataclasses.replace(tiny.optim, learning_rate=0.03), dataclasses.replace(tiny.train, steps=30)
    logging = dataclasses.replace(tiny.logging, report=True)
    return dataclasses.replace(tiny, optim=optim, train=train, logging=logging)


def test_a_run_ends_with_a_report(tiny: Config, undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(pretrain(with_report(tiny)))
    out = capsys.readouterr().out
    assert f"report in {run.report}, for a browser" in out
    page = words_of(run.report.read_text(encoding="utf-8"))
    (guessing,) = re.findall(r"where word frequencies alone give (\d\.\d+)", out)
    ((loss, of_page),) = re.findall(r"learned from context: .* \(its loss is (\S+), where .* alone give (\S+)\)", page)
    assert float(loss) == pytest.approx(run.metrics.newest_evaluation()["held_out_mlm_loss"], abs=5e-4)
    assert float(of_page) == pytest.approx(float(guessing), abs=0.006)
    assert "Of two sentences it tells in" in page and "a coin does in 50%" in page
    assert page.count("✓") > 5 and re.search(r"\w+ , \d+ uses compared", page)
    assert "Layer 1, head 2" in page and "Layer 2" not in page
    timings = run.metrics.read_timings()[-1]
    assert timings["step"] == 30 and timings["seconds"] > 0 and timings["host_bytes"] > 2**26
    assert timings["tokens_per_second"] > 10 * next(
        line["pairs_per_second"] for line in reversed(run.metrics.read_timings()) if "pairs_per_second" in line
    )
    assert f"{timings['operations_per_second'] / 2e9:.1%}" in page  # what the tests' own peak is

    before = run.report.stat().st_mtime_ns  # made again, of the folder alone
    assert main(["report", str(run.path)]) == 0
    again = words_of(run.report.read_text(encoding="utf-8"))
    assert run.report.stat().st_mtime_ns > before
    assert re.sub(r"\d+\.\d+", "", again) == re.sub(r"\d+\.\d+", "", page)


def test_a_report_that_fails_takes_nothing_with_it(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no room\nfor it")

    monkeypatch.setattr("bertjax.train.pretrain.show_learned", fail)
    monkeypatch.setattr(report, "render_report", fail)
    train = dataclasses.replace(with_report(tiny), train=tiny.train)
    run = RunFolder(pretrain(train))
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "warning: the report cannot show what was learned (ValueError: no room for it)",
        f"warning: {run.report} cannot be written (ValueError: no room for it); "
        f"'bertjax report {run.path}' tries again",
    ]
    assert "report in" not in out and "losses drawn in" in out and not run.report.exists()


def test_reports_of_older_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(shutil.copytree(OLD, tmp_path / "old"))
    shutil.copytree("at_step_3", "other")
    config = Path("other/config.yaml")
    config.write_text(config.read_text().replace("text.txt", "gone.txt").replace("held_out.txt", "gone.txt"))
    environment = json.loads(Path("other/environment.json").read_text())
    assert main(["report", "at_step_3"]) == 0 and Path("at_step_3/report.html").is_file()
    page = words_of(Path("at_step_3/report.html").read_text())
    assert environment["corpus"]["train"]["name"] in page and "Hidden words and the model’s guesses" in page
    capsys.readouterr()
    assert main(["report", "at_step_3", "other", "--out", "both.html"]) == 0
    out, err = capsys.readouterr()
    assert out == "written to both.html; a browser opens it\n"
    assert err.startswith("warning: what other has learned is not shown: ") and err.count("\n") == 1
    page = words_of(Path("both.html").read_text())
    assert "2 runs side by side" in page and "What it has learned cannot be shown on held-out text here" in page


@pytest.mark.parametrize(
    "argv, said",
    [
        (["run"], "run is not a run's folder: it has no config.yaml"),
        (["run", "./run"], "run is given twice; give each run once"),
        (["run", "--out", "page.pdf"], "--out page.pdf does not end in .html; give a name that does"),
        (["run", "--out", "there.html"], "--out there.html exists and is left as it is; give another name"),
        (["run", "--out", "none/page.html"], "there is no folder none; make it first"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_what_cannot_be_reported(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    assert main(["report", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and Path("there.html").read_text() == "mine"
    assert not Path("report.html").exists()


# What the model is asked.


def test_words_of_several_senses_have_uses_from_all_over(prepared: Prepared) -> None:
    corpus, tokenizer = prepared.held_out, prepared.tokenizer
    found = words_of_several_senses(corpus, tokenizer, counts_v=None, max_length=24)
    assert found and list(found) == list(words_of_several_senses(corpus, tokenizer, counts_v=None, max_length=24))
    for word, uses in found.items():
        assert 4 <= len(uses) <= 24 and {tokenizer.tokens(ids)[place] for ids, place in uses} == {word}
        assert len({ids.tobytes() for ids, _ in uses}) == len(uses)
    assert all(word.isalnum() for word in found)
    assert words_of_several_senses(corpus, tokenizer, counts_v=None, max_length=6) == {}


def test_ambiguous_words_come_first(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.evaluation.senses._AMBIGUOUS", frozenset({"near", "noun3"}))
    found = words_of_several_senses(prepared.held_out, prepared.tokenizer, counts_v=None, max_length=24)
    assert list(found)[:2] == ["near", "noun3"]


def test_vectors_and_attention_are_the_encoders_on_any_mesh(prepared: Prepared, two_devices: None) -> None:
    model, tokenizer = Bert(prepared.config.model), prepared.tokenizer
    params = drawn_params(model)
    ids = sentence_ids(prepared.held_out, 3)
    places = [Place(ids, 2), *hide_words(prepared.held_out, tokenizer, number=40, max_length=24)]  # two batches
    assert len(places) > 32
    found = []
    for mesh in (make_mesh(), make_mesh(1, 1, 2)):
        look = Look(model, jax.device_put(params, by_name(params, mesh)), mesh, tokenizer, max_length=24)
        found.append((look.vectors(places), look.attention(ids)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    vectors_nd, weights_lhtt = found[0]
    encoder = Encoder(prepared.config.model, params, tokenizer)
    for (ids, place), vector_d in zip(places, vectors_nd, strict=True):
        expected_1td = encoder.encode_tokens(tokenizer.tokens(ids))
        np.testing.assert_allclose(vector_d, expected_1td[0, place + 1], rtol=1e-4, atol=1e-5)
    t = len(places[0].ids) + 2
    assert weights_lhtt.shape == (1, 2, t, t)
    np.testing.assert_allclose(weights_lhtt.sum(-1), 1, rtol=1e-5)


def test_sentences_are_shown_in_words_not_in_their_pieces() -> None:
    pieces = Tokenizer.from_vocab(
        {token: n for n, token in enumerate([*BERTS_SPECIAL_TOKENS, "crane", "fly", "##ing", "##s", "over"])},
        Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    )
    assert report.in_words(Place(np.array([6, 7, 5, 9, 6, 8]), 2), pieces) == (["flying", "crane", "over", "flys"], 1)


def test_a_word_is_shown_where_its_senses_are_furthest_apart(prepared: Prepared) -> None:
    uses = [Place(np.array([5, 6, 7]), 1)] * 3 + [Place(np.array([8, 6, 9]), 1)]
    vectors_nd = np.array([[1, 0.1, 0], [1, 0, 0.1], [1, 0.05, 0], [-0.2, 1, 0]], np.float32)
    shown = report._word_uses("crane", uses, vectors_nd, prepared.tokenizer)
    assert shown.uses == 4 and shown.furthest.tokens == prepared.tokenizer.tokens([8, 6, 9])
    assert [near.cosine for near in shown.nearest] == sorted((near.cosine for near in shown.nearest), reverse=True)
    assert shown.furthest.cosine == pytest.approx(min(near.cosine for near in [*shown.nearest, shown.furthest]))
