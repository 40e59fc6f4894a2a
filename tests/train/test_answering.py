"""A whole run of answering: it learns what can be learned, is killed and goes on, and tells it everywhere alike."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from asked_questions import questions, write_squad
from labelled_texts import but

from bertjax import Answerer, Classifier, Tagger, finetune, load_config
from bertjax.cli.main import main
from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.evaluation.task import evaluate_task
from bertjax.hub.export import export_run
from bertjax.inference.answer_file import answer_file
from bertjax.inference.predict_file import check_format
from bertjax.runs.folder import RunFolder

DEV = questions(60, 2)


@pytest.fixture
def config(one_layer: Path, tmp_path: Path, devices: Callable[[int], None]) -> Config:
    """Questions in batches of 16, on one device; all tests train by one program."""
    devices(1)
    train, dev = write_squad(tmp_path / "train.json", questions(240, 1)), write_squad(tmp_path / "dev.json", DEV)
    typed = {"init_from": one_layer, "task.train": train, "task.eval": dev, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 16, "train.epochs": 12, "train.log_every": 1}
    typed |= {"model.dropout": 0, "logging.report": "false", "optim.learning_rate": 0.01}
    typed |= {"optim.schedule": "constant", "optim.warmup_share": "null"}
    return load_config("answer", [f"{key}={value}" for key, value in typed.items()])


def test_a_run_learns_what_the_rule_tells_and_tells_it_everywhere_alike(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule's ceiling is reached: each answer is found, and that there is none, from the files and the calls."""
    run = finetune(config)
    said = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("train:    train.json: 240 questions, 54 of them without an answer, 240") for line in said
    )
    assert any("windows/s on" in line for line in said)
    (line,) = (line for line in said if line.startswith("held out: dev.json, 60 examples"))
    assert "F1 1.0000 (1.0000 to 1.0000), exact match 1.0000 (" in line and "no answer to any has F1 0.2833" in line
    folder = RunFolder(run)
    assert folder.metrics.read()[-2]["answer_loss"] < 0.1  # a batch is known by heart
    judgement = evaluate_task(run)
    assert judgement.figures["F1"] == judgement.figures["exact match"] == (1, 1, 1)
    assert judgement.detail["threshold"] == folder.fitted("threshold")

    answerer, first = Answerer.load(run), next(number for number, one in enumerate(DEV) if one["answers"]["text"])
    odd = [(DEV[first]["question"].upper(), f"  {DEV[first]['context']}"), ("redish", "")]
    odd += [("greenish", "word0 " * 3 + "word4 word6 " + "word1 " * 30)]  # of which a window has but some words
    asked = [*[(one["question"], one["context"]) for one in DEV], *odd]
    told = answerer.predict(*zip(*asked, strict=True))
    found, (moved, empty, long) = told[: len(DEV)], told[len(DEV) :]
    right = [(one["answers"]["text"] or [""])[0] for one in DEV]
    starts = [(one["answers"]["answer_start"] or [None])[0] for one in DEV]
    assert [one.text for one in found] == right and [one.start for one in found] == starts
    assert all(0.3 < one.probability <= 1 for one in found)
    assert moved[:3] == (right[first], starts[first] + 2, starts[first] + 2 + len(right[first]))
    assert empty[:3] == ("", None, None) and long[:3] == ("word4 word6", 18, 29)
    with pytest.warns(UserWarning, match="1 of 1 questions are not read to their end, as they take up half of the 16"):
        alone = answerer.answer(f"{DEV[first]['question']} " * 9, DEV[first]["context"])
    assert alone._replace(probability=0) == found[first]._replace(probability=0)
    with pytest.raises(BertjaxError, match="2 questions and 1 contexts; give one context for each question"):
        answerer.predict(["a", "b"], "c")
    with pytest.raises(BertjaxError, match="is a run of task.kind=answer; give one of tag"):
        Tagger.load(run)

    assert main(["predict", str(run), "--input", config.task.eval, "--out", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {
        one["id"]: text for one, text in zip(DEV, right, strict=True)
    }

    export_run(folder, tmp_path / "exported")
    again = Answerer.load(tmp_path / "exported")
    assert (again.spans, again.max_length) == (answerer.spans, 16) == (folder.spans(), 16)
    for one, other in zip(again.predict(*zip(*asked, strict=True)), told, strict=True):
        assert one[:3] == other[:3] and one.probability == pytest.approx(other.probability, abs=1e-5)
    assert "questions.json --out answers.json` does the same" in (tmp_path / "exported" / "README.md").read_text()
    with pytest.raises(BertjaxError, match="has a head for task.kind=answer; give one of classify"):
        Classifier.load(tmp_path / "exported")

    def beside(name: str, source: str) -> str:
        with open(tmp_path / name, "w", encoding="utf-8") as file:
            answer_file(answerer, config.task, str(tmp_path / source), file, tmp_path / name)
        return (tmp_path / name).read_text()

    records = [json.loads(line) for line in beside("out.jsonl", "dev.json").splitlines()]
    assert [(one["prediction"], one["answer_start"]) for one in records] == list(zip(right, starts, strict=True))
    assert [one["context"] for one in records] == [one["context"] for one in DEV]
    assert [row["prediction"] for row in csv.DictReader(beside("out.csv", "dev.json").splitlines())] == right
    (tmp_path / "flat.jsonl").write_text('{"question": "redish", "context": "word1"}\n')
    for name, source, reason in (
        ("x.json", "flat.jsonl", "line 1 of .* has no id, and by these answers stand in .*x.json; give --out a name"),
        ("x.jsonl", "out.jsonl", "line 1 of .* has a column prediction already; name it otherwise"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            beside(name, source)
    with pytest.raises(BertjaxError, match="x.conll does not end in .json, .csv, .tsv, .jsonl, .parquet; give"):
        check_format(tmp_path / "x.conll", "answer")


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    config: Config, tmp_path: Path, kill: Callable[[Config, int], None], states: list[Any]
) -> None:
    """With windows that a long context has, and a share of the questions held out."""
    short = but(config, train__epochs=0.5, task__eval=None, task__stride=1, data__max_length=6, checkpoint__every=2)
    whole, killed = (but(short, run_dir=str(tmp_path / name)) for name in ("whole", "killed"))
    finetune(whole)
    kill(killed, 5)
    finetune(killed, resume=True)
    assert RunFolder(whole.run_dir).metrics.read() == RunFolder(killed.run_dir).metrics.read()
    jax.tree.map(np.testing.assert_array_equal, *states)
    told = RunFolder(whole.run_dir).environment()["corpus"]
    assert told["train"]["examples"] + told["held_out"]["examples"] == 240 and told["held_out"]["examples"] == 24
    assert told["train"]["windows"] > told["train"]["examples"] + 10


def test_what_is_wrong_is_said_before_a_folder_is_made(config: Config) -> None:
    for keys, reason in (
        ({"init_from": None}, "no model to fine-tune; give --init_from"),
        ({"task__label": "label"}, "question 1 of .* has nothing in the column 'label' .task.label., but in id, title"),
        ({"task__eval": None, "task__eval_share": 0.001}, "of 240 questions task.eval_share=0.001 holds 0 out"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            finetune(but(config, **keys), typed=[key.replace("__", ".") for key in keys])
    assert not Path(config.run_dir).exists()
    for key, reason in (
        ("task.pair=null", "task.kind=answer reads a question .task.text. and a context; give task.pair the column"),
        ("task.stride=0", "task.stride=0"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            load_config("answer", key)
    with pytest.raises(
        BertjaxError, match="task.max_answer=5 is of task.kind=answer, and it is classify; leave it out"
    ):
        load_config("classify", "task.max_answer=5")
