"""A whole run of fine-tuning: it learns, is killed and goes on, and says what is wrong."""

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import jax
import numpy as np
import pyarrow.parquet
import pytest
from labelled_texts import WORDS, but, examples
from labelled_texts import write_table as write
from scipy.special import expit, logit

from bertjax import Classifier, Encoder, Matcher, finetune, load_config
from bertjax.cli.main import main
from bertjax.config import Config, MeshConfig
from bertjax.data.batching.labelled import LabelledBatch, LabelledBatches
from bertjax.data.prepare_task import prepare_task
from bertjax.data.targets import Labels
from bertjax.errors import BertjaxError
from bertjax.evaluation.task import evaluate_task
from bertjax.parallel.sharding import by_name, make_mesh, with_sharding
from bertjax.runs.folder import RunFolder
from bertjax.runs.remote_run import fetched_run
from bertjax.serving.models import Origin, ServedHead, load
from bertjax.storage.fetch import here
from bertjax.train.open_run import with_model_of_init
from bertjax.train.programs import make_programs
from bertjax.train.state import saved_trees
from bertjax.train.tasks.course import task_of
from bertjax.train.tasks.labelled import LABELLED


@pytest.fixture
def config(one_layer: Path, tmp_path: Path, one_device: None) -> Config:
    """Forty examples, in batches of 12: an epoch has three of them and one of four."""
    train, valid = (
        write(tmp_path / "train.csv", examples(40, 1)),
        write(tmp_path / "valid.csv", examples(20, 2)),
    )
    typed = {"init_from": one_layer, "task.train": train, "task.eval": valid, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 12, "train.epochs": 3, "train.log_every": 1}
    typed |= {"checkpoint.every": 4, "eval.every": 5, "optim.learning_rate": 0.01, "logging.report": False}
    return load_config("classify", [f"{key}={value}" for key, value in typed.items()])


def state_of(run: Path) -> dict[str, Any]:
    """All that the newest checkpoint holds."""
    folder, mesh = RunFolder(run), make_mesh()
    task = task_of(LABELLED, prepare_task(folder.config(), folder.tokenizer()), mesh)
    template = make_programs(task.config, task.objective, mesh).template
    with folder.checkpoints() as checkpoints:
        templates = saved_trees(with_sharding(template, by_name(template, mesh)))
        return checkpoints.restore(checkpoints.newest_step(), templates)


def test_a_run_learns_and_tells_what_it_has_learned(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same from the files, the folder and each of the calls."""
    run = finetune(
        but(config, train__epochs=40.0, model__dropout=0.0, eval__every=0, checkpoint__every=0, logging__report=True)
    )
    said = capsys.readouterr().out.splitlines()
    folder = RunFolder(run)
    assert folder.targets() == Labels(("blue", "green", "red")) and folder.config().train.steps == 160
    assert "labels:   blue (" in "\n".join(said)
    assert any("has no weights of classifier: the run starts with fresh ones" in line for line in said)
    line = [line for line in said if line.startswith("held out: ")][-1]
    assert "valid.csv, 20 examples: accuracy 1.0000 (1.0000 to 1.0000), macro F1 1.0000 (" in line
    assert any("examples/s on" in line for line in said)
    assert folder.metrics.read()[-2]["label_loss"] < 0.05  # every batch is known by heart

    evaluation = evaluate_task(run)
    assert evaluation.figures["accuracy"] == (1, 1, 1) and np.trace(evaluation.detail["confusion"]) == 20
    classifier = Classifier.load(run)
    rows = examples(20, 2)
    predicted = classifier.predict([text for text, _ in rows])
    assert [prediction.label for prediction in predicted] == [label for _, label in rows]
    probabilities_nc = classifier.probabilities([text for text, _ in rows])
    np.testing.assert_allclose(probabilities_nc.sum(-1), 1, rtol=1e-5)
    assert predicted[3].probability == pytest.approx(probabilities_nc[3].max())
    loss = -np.log(probabilities_nc[range(20), [classifier.labels.index(label) for _, label in rows]]).mean()
    assert loss == pytest.approx(folder.metrics.newest_evaluation()["held_out_label_loss"], rel=1e-3)
    with pytest.warns(UserWarning, match="1 of 1 texts are shortened to 16 tokens"):
        classifier.predict(" ".join(WORDS * 3))

    page = (run / "report.html").read_text()
    assert main(["report", str(run)]) == 0 and "report.html" in capsys.readouterr().out
    for text in (page, (run / "report.html").read_text()):
        parts = ("Figures</h3>", "By label</h3>", "Confusions</h3>", "Calibration</h3>", "Hardest examples</h3>")
        assert [part for part in parts if part not in text] == []
        assert "The commonest label alone has 0.4" in text and f"bertjax predict {run}" in text
        assert f">{rows[0][0]}</td>" in text

    # Other tools get the same, and so does what reads their folders here.
    folder = exported(run)
    np.testing.assert_allclose(
        Classifier.load(folder).probabilities([text for text, _ in rows]), probabilities_nc, rtol=0, atol=1e-5
    )
    card = (folder / "README.md").read_text()
    assert "tells one of 3 labels of a text. The labels: blue, green, red." in card and "valid.csv at step 160" in card

    # What came of it is an encoder too, and another run may start from it, with labels of its own.
    assert Encoder.load(run).encode("word1 redish").shape == (1, 16)
    with pytest.raises(BertjaxError, match="no head that predicts words"):
        Encoder.load(run).fill_mask("word1 <mask>")
    on = but(config, init_from=str(run), run_dir=str(tmp_path / "on"), train__epochs=1.0, optim__learning_rate=1e-9)
    kept, fresh = (state_of(path)["params"] for path in (run, finetune(on)))
    np.testing.assert_allclose(fresh["token_embedding"], kept["token_embedding"], rtol=0, atol=1e-6)
    assert np.abs(fresh["classifier"]["kernel"] - kept["classifier"]["kernel"]).max() > 0.01

    # By the command line: all columns, and two more, whole or not at all.
    out = tmp_path / "out.csv"
    assert main(["predict", str(run), "--input", str(tmp_path / "valid.csv"), "--out", str(out)]) == 0
    with open(out, newline="", encoding="utf-8") as opened:
        written = list(csv.DictReader(opened))
    assert [(row["text"], row["label"], row["prediction"]) for row in written] == [(*row, row[1]) for row in rows]
    assert all(0.3 < float(row["probability"]) <= 1 for row in written)
    assert main(["evaluate", str(run), "--task.eval", str(tmp_path / "train.csv"), "--json", str(tmp_path / "j")]) == 0
    assert "train.csv, 40 examples: accuracy 1.0000 (" in capsys.readouterr().out
    assert np.trace(json.loads((tmp_path / "j").read_text())["confusion"]) == 40
    bad = write(tmp_path / "bad.csv", [("word1", "x"), *[("word2", "y", "z")]])  # type: ignore[list-item]
    for input, name, reason in (
        (tmp_path / "valid.csv", "out.csv", "out.csv exists and is left as it is"),
        (tmp_path / "valid.csv", "out.npy", "does not end in .csv, .tsv, .jsonl, .parquet"),
        (out, "more.csv", "has a column prediction already"),
        (bad, "bad-out.csv", "line 3 of"),
        (write(tmp_path / "none.csv", []), "none-out.csv", "none.csv has no rows"),
    ):
        assert main(["predict", str(run), "--input", str(input), "--out", str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "bad-out.csv").exists() and not list(tmp_path.glob(".*unfinished"))
    for words, reason in (
        (["evaluate", str(run), "--split", "test"], "--split is of runs that pretrain"),
        (
            ["evaluate", str(run), "--task.eval", str(write(tmp_path / "o.csv", [("a", "pink")]))],
            "the label 'pink'",
        ),
    ):
        assert main(words) == 2 and reason in capsys.readouterr().err


def exported(run: Path) -> Path:
    """The folder that a run is exported to, by the command line."""
    folder = run.parent / f"{run.name}-exported"
    assert main(["export", str(run), str(folder)]) == 0
    return folder


class Killed(Exception):
    """Stands for kill -9: nothing is written after it."""


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order of the rows in its file, which changes nothing either."""
    whole = state_of(finetune(config))
    lines = RunFolder(config.run_dir).metrics.read()
    assert [line["step"] for line in lines if "held_out_label_loss" in line] == [5, 10, 12]
    shuffled = but(
        config,
        run_dir=str(tmp_path / "killed"),
        task__train=str(write(tmp_path / "s.csv", examples(40, 1)[::-1])),
    )
    batch_at: Callable = LabelledBatches.batch_at
    for kill in (2, 7, 11):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(LabelledBatches, "batch_at", functools.partialmethod(until, kill, batch_at))
            finetune(shuffled, resume=True)
    run = finetune(shuffled, resume=True)
    assert RunFolder(run).metrics.read() == lines
    jax.tree.map(np.testing.assert_array_equal, state_of(run), whole)

    write(tmp_path / "s.csv", examples(40, 3))
    with pytest.raises(BertjaxError, match="made with another text than the s.csv found now"):
        finetune(shuffled, resume=True)
    with pytest.raises(BertjaxError, match=r"train.steps=16 \(the run has 12\)"):
        finetune(but(config, train__epochs=4.0), resume=True)


def until(self: LabelledBatches, last: int, batch_at: Callable, step: int, rows: range | None = None) -> LabelledBatch:
    if step == last:
        raise Killed
    return batch_at(self, step, rows)


def test_it_is_the_same_on_two_devices_and_on_four(
    config: Config, tmp_path: Path, devices: Callable[[int], None]
) -> None:
    """With examples shared out by rows, and with parameters and computation split too."""
    losses = []
    for number, mesh in ((2, {}), (4, {"mesh__fsdp": 2, "mesh__tensor": 2})):
        devices(number)
        run = finetune(but(config, run_dir=str(tmp_path / f"on{number}"), **mesh))
        losses.append([line["label_loss"] for line in RunFolder(run).metrics.read() if "label_loss" in line])
    assert len(losses[0]) == 12
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_pairs_balanced_labels_and_a_share_that_is_held_out(config: Config, tmp_path: Path) -> None:
    rows = [{"a": text, "b": f"word{n % 3}", "y": n % 4 == 0} for n, (text, _) in enumerate(examples(40, 1))]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = but(config, task__train=str(file), task__eval=None, task__text="a", task__pair="b", task__label="y")
    run = finetune(but(pairs, task__class_weights="balanced", task__label_smoothing=0.1, task__eval_share=0.2))
    told = RunFolder(run).environment()["corpus"]
    assert told["train"]["labels"] == {"false": 24, "true": 8} and told["held_out"]["labels"] == {"false": 6, "true": 2}
    assert evaluate_task(run).num_examples == 8
    classifier = Classifier.load(run)
    assert classifier.predict([("word1", "word2")]) == classifier.predict(["word1"], ["word2"])
    assert classifier.probabilities([("word1", "word2")])[0] != pytest.approx(classifier.probabilities("word1")[0])


def test_several_labels_numbers_and_answers_to_queries(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is learned by heart, and what is told is the same from the files and from each of the calls."""
    texts = [text for text, _ in examples(24, 1)]
    learning = but(
        config, model__dropout=0.0, train__epochs=150.0, train__log_every=50, eval__every=0, checkpoint__every=0
    )

    def learn(name: str, rows: list[dict[str, Any]], **keys: Any) -> tuple[Path, Path]:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        learned = {"task__train": str(file), "task__eval": str(file)}
        return file, finetune(but(learning, **learned, run_dir=str(tmp_path / name), **keys))

    def told(file: Path, run: Path, *options: str) -> list[dict[str, Any]]:
        out = tmp_path / f"{run.name}-out{len(options)}.parquet"
        assert main(["predict", str(run), "--input", str(file), "--out", str(out), *options]) == 0
        return pyarrow.parquet.read_table(out).to_pylist()

    rows: list[dict[str, Any]] = [
        {"text": text, "label": [word for word in ("redish", "word1") if word in text.split()]} for text in texts
    ]
    file, run = learn("several", rows, task__label_separator="+", task__class_weights="balanced")
    as_it_is = told(file, run)
    assert [row["prediction"] for row in as_it_is] == ["+".join(sorted(row["label"])) for row in rows]
    temperature = RunFolder(run).fitted("temperature")
    calibrated_nc = Classifier.load(run, calibrated=True).probabilities(texts)
    assert temperature is not None and temperature < 1  # all is known by heart
    np.testing.assert_allclose(
        calibrated_nc, expit(logit(Classifier.load(run).probabilities(texts).astype(float)) / temperature), atol=1e-4
    )
    more = told(file, run, "--calibrated")
    assert [row["prediction"] for row in more] == [row["prediction"] for row in as_it_is] and more != as_it_is
    classifier = Classifier.load(run)
    several = [sorted(label for label, _ in of_text) for of_text in classifier.predict_several(texts)]
    assert classifier.several and several == [sorted(row["label"]) for row in rows]
    assert list(evaluate_task(run).figures) == ["micro F1", "macro F1", "all right", "macro AUC"]

    rows = [{"text": text, "label": 1000 + 50 * len(text.split())} for text in texts]
    file, run = learn("numbers", rows, task__kind="score")
    numbers_n = Matcher.load(run).predict(texts)
    assert numbers_n == pytest.approx([row["label"] for row in rows], abs=100)
    assert [row["prediction"] for row in told(file, run)] == pytest.approx(numbers_n.tolist(), abs=1e-5)
    folder = exported(run)  # with numbers themselves, whose mean and deviation are in its weights
    assert Matcher.load(folder).predict(texts) == pytest.approx(numbers_n, rel=1e-5)
    assert [row["prediction"] for row in told(file, folder)] == pytest.approx(numbers_n.tolist(), rel=1e-5)
    assert "held out: numbers.jsonl, 24 examples: Spearman " in capsys.readouterr().out

    rows = [{"text": f"word{n % 3}", "pair": text, "label": int("redish" in text)} for n, text in enumerate(texts)]
    file, run = learn("answers", rows, task__pair="pair", task__kind="rerank")
    matcher = Matcher.load(run)
    numbers_n = matcher.predict([(row["text"], row["pair"]) for row in rows])
    assert [row["prediction"] for row in told(file, run)] == pytest.approx(numbers_n.tolist(), abs=1e-5)
    assert ((numbers_n > 0.5) == [row["label"] for row in rows]).all() and 0 < numbers_n.min() < numbers_n.max() < 1
    ranked = matcher.rank("word1", texts[:6])
    assert [one.score for one in ranked] == sorted(matcher.predict(["word1"] * 6, texts[:6]), reverse=True)
    with pytest.raises(BertjaxError, match="no list of texts"):
        matcher.rank("word1", [])
    with pytest.raises(BertjaxError, match="task.kind=rerank; give one of classify"):
        Classifier.load(run)
    with pytest.raises(BertjaxError, match="exported has no temperature .* give a run"):
        Classifier.load(exported(tmp_path / "several"), calibrated=True)
    words = ["predict", str(run), "--input", str(file), "--out", str(tmp_path / "o.csv"), "--calibrated"]
    assert main(words) == 2 and "calibrated probabilities are of task.kind=classify" in capsys.readouterr().err


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"init_from": None}, "no model to fine-tune; give --init_from"),
    ({"task__train": None}, "no examples to learn from; give --task.train"),
    ({"train__epochs": None, "task__kind": "pretrain"}, "what 'bertjax pretrain' does"),
    ({"task__label": "colour"}, "nothing in the column 'colour' (task.label), but in text, label"),
    ({"task__eval": "none.csv"}, "no file at 'none.csv'"),
    ({"task__eval": None, "task__eval_share": 0.001}, "holds 0 out"),
    ({"data__max_length": 32}, "above model.max_position=16"),
    ({"init_from": "none"}, "none is not a run's folder nor a Hugging Face one"),
]


@pytest.mark.parametrize("keys, reason", WRONG)
def test_what_is_wrong_is_said_before_a_folder_is_made(config: Config, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(BertjaxError) as error:
        finetune(but(config, **keys), typed=[key.replace("__", ".") for key in keys])
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not Path(config.run_dir).exists()


def test_one_label_alone_is_said_whatever_is_held_out(config: Config, tmp_path: Path) -> None:
    same = str(write(tmp_path / "same.csv", [("word1", "a"), ("word2", "a")]))
    with pytest.raises(BertjaxError, match="every one of 2 rows has the label 'a'; give rows of two labels or more"):
        finetune(but(config, task__train=same, task__eval=None))


def test_no_more_is_read_than_the_model_has_positions(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe's length gives way; one that is typed does not, as above."""
    folder, long = RunFolder(config.run_dir), but(config, data__max_length=32)
    assert with_model_of_init(long, folder, resume=False).data.max_length == 16
    assert "NOTICE:   data.max_length=16, as " in capsys.readouterr().out
    assert with_model_of_init(config, folder, resume=False).data.max_length == 16 and not capsys.readouterr().out


def test_a_head_may_be_another_than_the_folders_where_it_is_typed(config: Config) -> None:
    asked = but(config, model__pooler_act="relu")
    for typed, act in (([], "tanh"), (["model.pooler_act"], "relu")):
        found = with_model_of_init(asked, RunFolder(config.run_dir), resume=False, typed=typed)
        assert found.model.pooler_act == act


def test_keys_that_do_not_go_together() -> None:
    for key, reason in (
        ("task.eval_share=1", "is not a share"),
        ("task.label_smoothing=1", "is not a share"),
        ("task.pair=text", "not columns of their own"),
        ("task.kind=score task.class_weights=balanced", "balanced is of task.kind=classify or tag, and it is score"),
        ("task.kind=rerank", "give task.pair the column of the passage"),
        ("task.label_separator=", "task.label_separator is empty"),
        ("train.epochs=0", "impossible"),
        ("optim.warmup_steps=3", "not both"),
        ("task.kind=pretrain", "give train.steps to pretrain"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            load_config("classify", key.split())


def test_all_of_it_may_be_at_urls(
    small: Config, tmp_path: Path, store: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, examples, run, questions, answers and export, and who serves them fetches them."""
    for name, file in (("base", small.init_from), ("train.csv", small.task.train), ("v.csv", small.task.eval)):
        fsspec.filesystem("memory").put(file, f"/there/{name}", recursive=True)
    monkeypatch.setattr("bertjax.storage.lease.SETTLE", 0.0)
    at = "memory://there"
    there = but(small, init_from=f"{at}/base", run_dir=f"{at}/run", task__train=f"{at}/train.csv")
    finetune(but(there, task__eval=f"{at}/v.csv"))
    assert finetune(small) == tmp_path / "run"

    def answers(*arguments: str) -> bytes:
        assert main(["predict", *arguments]) == 0
        return Path(here(arguments[-1])).read_bytes()

    expected = answers(small.run_dir, "--input", str(small.task.eval), "--out", str(tmp_path / "out.csv"))
    assert answers(f"{at}/run", "--input", f"{at}/v.csv", "--out", f"{at}/out.csv") == expected
    assert evaluate_task(fetched_run(f"{at}/run")).figures == evaluate_task(tmp_path / "run").figures
    assert main(["export", f"{at}/run", f"{at}/exported"]) == 0
    served = [load(Origin("it", f"{at}/{name}", mesh=MeshConfig())) for name in ("run", "exported")]
    assert [head.labels for head in served if isinstance(head, ServedHead)] == [["blue", "green", "red"]] * 2
