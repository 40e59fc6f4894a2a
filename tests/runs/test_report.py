"""The report page, made of plain data: no model is run here."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from reports import NASTY, learned, made, reported

from bertjax.config.recipes import load_config, save_config
from bertjax.errors import BertjaxError
from bertjax.runs.folder import RunFolder
from bertjax.runs.report import (
    Attention,
    check_runs,
    commands_of,
    render_report,
)

FIGURES = [(head, figure) for head in ("mlm", "nsp") for figure in ("loss", "accuracy")]
VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Tags as a browser finds them, each closed, and the text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", list[str]()
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open += [tag] * (tag not in VOID)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " " * (tag in ("td", "th", "dt", "dd", "p", "small", "summary", "h3", "figcaption"))

    def handle_data(self, data: str) -> None:
        self.text += data * ("style" not in self._open)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curve is drawn, which takes most of a page's time."""
    monkeypatch.setattr("bertjax.runs.report.draw_curves", lambda *_, **__: "<svg></svg>")


def test_a_page_of_one_run(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", **{"train.steps": 50, "model.num_layers": 3})
    page = render_report([reported(folder, learned(["the", "crane", "is", "flying"]))])
    text = Page(page).words
    assert "A BERT of 3 layers, with 5,600,000 parameters, was trained from scratch on" in text
    assert "50 steps of 512 pairs, in 1 min 9 s, on 1 × cpu" in text  # of both processes that made it
    assert "4.500 nats; by word frequencies alone 5.620" in text and "Share of that peak 50.0%" in text
    assert "Most memory of the process 1.23 GB" in text and "Most memory of a device not measured" in text
    assert "textbook is the nearest; what differs from it:" in text and "model.num_layers 3 2" in text
    assert text.count("✓ crane 50%") == 1 and "✓ the" not in text and "the 25%" in text
    assert "near 0.987" in text and "is looks most at flying (90%)" in text and "4 heads" in text
    assert "training, step 20: 3" in text and "held out, step 50: 4.5" in text  # to the mouse
    assert "training 10 6 training 20 3 training 50 1.2 held out 50 4.5" in text  # and to everyone
    assert len(page) < 2e6


def test_no_script_and_no_request(tmp_path: Path) -> None:
    page = render_report([reported(made(tmp_path / "run"), learned(["a", "b", "c", "d"]))])
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "base", "form"}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in page and not re.findall(r"url\((?!#)", page)
    (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_whatever_a_text_or_a_name_holds_is_text(tmp_path: Path, undrawn: None) -> None:
    folder = made(tmp_path / "<img src=x onerror=alert(2)>")
    page = render_report([reported(folder, learned(NASTY), why_not="<u>")])
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "img", "u"}
    for word in [*NASTY, folder.path.name, f"cat {NASTY[1]}"]:
        assert word in parsed.text and (word == "שלום" or html.escape(word, quote=False) in page or '"' in word)
    assert "49" not in parsed.text.split("What it has learned")[1].split("Speed and memory")[0]  # nothing is computed
    places = [a for tag, a in parsed.tags if tag in ("span", "h1", "bdi")]
    assert any(a.get("dir") == "auto" for a in places)


def test_runs_side_by_side(tmp_path: Path, undrawn: None) -> None:
    one = made(tmp_path / "one")
    two = made(tmp_path / "two", **{"optim.learning_rate": 0.003, "model.num_layers": 4})
    page = render_report([reported(one, learned(["a", "b", "c", "d"])), reported(two, why_not="its text is <gone>")])
    parsed = Page(page)
    text = parsed.words
    assert "2 runs side by side" in text and "optim.learning_rate 0.01 0.003 " in text
    assert "model.num_layers 2 4" in text and "its text is <gone>" in text
    assert "one, training 50 1.2" in text and "two, held out 50 4.5" in text
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for tag, a in parsed.tags if tag == "a"}
    assert {target.removeprefix("#") for target in targets if target} <= set(ids)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, undrawn: None) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    runs = [made(tmp_path / "a" / "run"), made(tmp_path / "b" / "run"), made(tmp_path / "other")]
    text = Page(render_report([reported(run) for run in runs])).words
    assert f"{tmp_path}/a/run, training 50" in text and f"{tmp_path}/b/run, training 50" in text
    assert " other, training 50" in text


def test_an_objective_of_another_kind(tmp_path: Path, undrawn: None) -> None:
    folder = made(tmp_path / "run")
    folder.metrics.append({"step": 60, "toy_loss": 0.5, "held_out_toy_loss": None, "held_out_toy_accuracy": 0.5})
    text = Page(render_report([reported(folder, toy="Toy")])).words
    assert "Toy loss, held out –" in text and "Toy accuracy, share" in text and "MLM" not in text


def test_a_run_of_which_little_is_known(tmp_path: Path, undrawn: None) -> None:
    folder = made(tmp_path / "run")
    for file in (folder.metrics.file, folder.metrics.timings_file):
        file.unlink()
    folder.environment_file.write_text("{}")
    text = Page(render_report([reported(folder)])).words
    assert "0 steps of 512 pairs." in text and "It is not done: it was to make 50 steps" in text
    assert "No step has been written yet" in text and "Share of that peak not measured" in text


def test_what_to_do_with_a_run() -> None:
    folder = RunFolder("runs/my run")
    lines = {what: line for what, line in commands_of(folder, constant=True, exports=True)}
    assert lines["Train further"].endswith("--run_dir 'runs/my run' --resume --train.steps N")
    assert lines["Export for other tools"] == "bertjax export 'runs/my run' 'runs/my run-exported'"
    lines = {what: line for what, line in commands_of(folder, constant=False, exports=False)}
    assert "--init_from 'runs/my run' --run_dir 'runs/my run-further'" in lines["Train further"]
    assert lines["Export for JAX alone"].endswith("--format stablehlo")
    there = RunFolder("cache/runs/1", url="s3://bucket/1")  # from which all may be done on any machine
    lines = {what: line for what, line in commands_of(there, constant=False, exports=True)}
    assert lines["Export for other tools"] == "bertjax export s3://bucket/1 s3://bucket/1-exported"
    assert "cache" not in " ".join(lines.values())
    lines = {what: line for what, line in commands_of(there, constant=True, exports=False)}
    assert lines["Export for JAX alone"] == "bertjax export s3://bucket/1 1.stablehlo --format stablehlo"


def test_runs_are_told_apart(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    with pytest.raises(BertjaxError, match="run is given twice; give each run once"):
        check_runs([folder, RunFolder(tmp_path / "." / "run")])


def test_what_a_run_found_does_not_differ_from_its_recipe(tmp_path: Path, undrawn: None) -> None:
    path = tmp_path / "run"
    folder = made(path)
    for recipe in ("textbook", "wikitext2"):
        save_config(load_config(recipe, ["model.vocab_size=999", "data.source=python-docs"]), path / "config.yaml")
        assert f"{recipe} is the nearest; nothing differs from it." in Page(render_report([reported(folder)])).words


def test_a_page_stays_small_whatever_was_trained(tmp_path: Path) -> None:
    """A thousand evaluations of a model with 384 heads, and eight runs of a hundred with 144."""
    shown = learned([f"token{number}" for number in range(18)])
    rng = np.random.default_rng(0)
    runs = []
    for number, (steps, layers, heads) in enumerate([(1000, 24, 16), *[(100, 12, 12)] * 8]):
        folder = made(tmp_path / str(number))
        figures = [f"{kind}{head}_{figure}" for kind in ("", "held_out_") for head, figure in FIGURES]
        lines = [{"step": step} | {name: rng.normal() for name in figures} for step in range(steps)]
        folder.metrics.file.write_text("\n".join(map(json.dumps, lines)) + "\n")
        weights_lhts = rng.dirichlet(np.full(18, 0.3), (layers, heads, 18))
        runs.append(reported(folder, shown._replace(attention=Attention(shown.sentences[0].tokens, weights_lhts))))
    large, *several = runs
    page = render_report([large])
    assert len(page.encode()) < 2e6 and "384 heads" in page and "Layer 24, head 16" in page
    page = render_report(several)
    assert len(page.encode()) < 2e6 and "50 of 144 heads" in page
