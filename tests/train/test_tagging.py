"""A whole run of tagging: it learns what can be learned, is killed and goes on, and says what is wrong."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet
import pytest
from labelled_texts import but, write_model
from tagged_sentences import sentences, write_columns

from bertjax import Classifier, Encoder, Tagger, finetune, load_config
from bertjax.cli.main import main
from bertjax.config import Config
from bertjax.data.tags import Tags
from bertjax.errors import BertjaxError
from bertjax.evaluation.task import evaluate_task
from bertjax.runs.folder import RunFolder


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def config(one_layer: Path, tmp_path: Path, one_device: None) -> Config:
    """Eighty sentences, in batches of 12: an epoch has six of them and one of eight. All tests train by one program."""
    train = write_columns(tmp_path / "train.conll", sentences(80, 1))
    valid = write_columns(tmp_path / "valid.conll", sentences(20, 2))
    typed = {"init_from": one_layer, "task.train": train, "task.eval": valid, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 12, "train.epochs": 2, "train.log_every": 1}
    typed |= {"checkpoint.every": 4, "eval.every": 5, "model.dropout": 0, "logging.report": "false"}
    typed |= {"optim.learning_rate": 0.01, "optim.schedule": "constant", "optim.warmup_share": "null"}
    return load_config("tag", [f"{key}={value}" for key, value in typed.items()])


def test_a_run_learns_what_the_rule_tells_and_tells_it_everywhere_alike(
    config: Config, tmp_path: Path, devices: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule's ceiling is reached: every entity is found, the same from the files, the folder and the calls."""
    run = finetune(but(config, train__epochs=20.0, eval__every=0, checkpoint__every=0))
    said = capsys.readouterr().out.splitlines()
    folder = RunFolder(run)
    names = ("B-blue", "B-green", "B-red", "I-blue", "I-green", "I-red", "O")
    assert folder.tags() == Tags(names, "IOB2") and folder.config().train.steps == 140
    assert any(line.startswith("tags:     B-blue (") and line.endswith("and 2 more; IOB2") for line in said)
    assert any("train.conll: 80 sentences, " in line for line in said)
    assert any("has no weights of classifier: the run starts with fresh ones" in line for line in said)
    assert any("sentences/s on" in line for line in said)
    (line,) = (line for line in said if line.startswith("held out: valid.conll, 20 examples"))
    assert "F1 1.0000 (1.0000 to 1.0000), precision 1.0000 (1.0000 to 1.0000), recall 1.0000 (" in line
    assert folder.metrics.read()[-2]["tag_loss"] < 0.05  # every batch is known by heart
    devices(1)
    judgement = evaluate_task(run)
    devices(2)
    assert judgement.figures["F1"] == judgement.figures["accuracy"] == (1, 1, 1)
    assert judgement.detail["of_type"].keys() == {"blue", "green", "red"}

    tagger, (words, tags) = Tagger.load(run), sentences(20, 2)[3]
    assert tagger.tags == list(names)
    predicted = tagger.predict([words for words, _ in sentences(20, 2)])
    assert [one.tags for one in predicted] == [tags for _, tags in sentences(20, 2)]
    assert all(0.3 < probability <= 1 for one in predicted for probability in one.probabilities)
    text = "  ".join(words).replace("word", "WORD")
    (plain,) = tagger.predict(text)
    assert (plain.words, plain.tags) == ([word.replace("word", "WORD") for word in words], tags)
    assert [text[start:end] for start, end in plain.spans] == plain.words
    first = plain.entities[0]
    assert text[first.start : first.end] == first.text and first.type in ("red", "green", "blue")
    assert first.score == pytest.approx(
        np.mean(plain.probabilities[: tags.index("O", tags.index(f"B-{first.type}"))][tags.index(f"B-{first.type}") :])
    )
    with pytest.warns(
        UserWarning, match="1 of 2 texts have words beyond 16 tokens, 3 in all, which are not read, as in"
    ):
        long, empty = tagger.predict([["word0"] * 17, ""])
    assert long.tags[14:] == ["O"] * 3 and long.probabilities[13:] == [long.probabilities[13], 0, 0, 0]
    assert empty == ([], [], [], [], [])
    assert Encoder.load(run).encode("word1 redish").shape == (1, 16)  # what came of it is an encoder too

    # By the command line.
    def told(source: Path, name: str) -> str:
        assert main(["predict", str(run), "--input", str(source), "--out", str(tmp_path / name)]) == 0
        return (tmp_path / name).read_text()

    valid = tmp_path / "valid.conll"
    lines = valid.read_text().splitlines()
    assert told(valid, "out.conll").splitlines() == [line and f"{line}\t{line.split()[1]}" for line in lines]
    assert "20 texts in " in capsys.readouterr().out
    records = [json.loads(line) for line in told(valid, "out.jsonl").splitlines()]
    assert [(one["words"], one["prediction"]) for one in records] == sentences(20, 2)
    assert main(["predict", str(run), "--input", str(valid), "--out", str(tmp_path / "out.parquet")]) == 0
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist() == records
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"n": 1, "words": one}) + "\n" for one in (words, text, [])))
    lists, texts, none = (json.loads(line) for line in told(file, "more.jsonl").splitlines())
    assert lists == {"n": 1, "words": words, "prediction": tags, "probability": lists["probability"]}
    assert none == {"n": 1, "words": [], "prediction": [], "probability": []}
    assert (texts["words"], texts["prediction"], texts["n"]) == (text, tags, 1)
    assert [text[start:end] for start, end in texts["spans"]] == plain.words
    assert texts["entities"][0] == first._replace(score=round(first.score, 6))._asdict()
    twice = tmp_path / "twice.conll"  # a sentence ends with its file
    assert main(["predict", str(run), "--input", f"{valid}:{tmp_path / 'train.conll'}", "--out", str(twice)]) == 0
    assert twice.read_text().split("\n\n")[19].splitlines()[-1] == f"{lines[-1]}\t{lines[-1].split()[1]}"
    assert (
        main(["evaluate", str(run), "--task.eval", str(tmp_path / "train.conll"), "--json", str(tmp_path / "j")]) == 0
    )
    assert "train.conll, 80 examples: F1 1.0000 (" in capsys.readouterr().out
    assert json.loads((tmp_path / "j").read_text())["figures"]["F1"]["value"] == 1
    exported = tmp_path / "exported"
    assert main(["export", str(run), str(exported)]) == 0
    again = Tagger.load(exported)
    assert "--input sentences.conll --out tagged.conll` does the same" in (exported / "README.md").read_text()
    assert again.tags == list(names) and again.max_length == 16
    for one, other in zip(again.predict([words, text]), tagger.predict([words, text]), strict=True):
        assert (one.tags, one.spans, len(one.entities)) == (other.tags, other.spans, len(other.entities))
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    assert main(["predict", str(exported), "--input", str(valid), "--out", str(tmp_path / "as.conll")]) == 0
    assert (tmp_path / "as.conll").read_text() == (tmp_path / "out.conll").read_text()
    with pytest.raises(BertjaxError, match="has a head for task.kind=tag; give one of classify"):
        Classifier.load(exported)
    with pytest.raises(BertjaxError, match="is a run of task.kind=tag; give one of classify"):
        Classifier.load(run)
    for arguments, reason in (
        (["predict", str(run), "--input", str(file), "--out", str(tmp_path / "x.conll")], "line 1 of"),
        (
            ["predict", str(run), "--input", str(valid), "--out", str(tmp_path / "x.csv")],
            "end in .jsonl, .parquet, .co",
        ),
        (["predict", str(run), "--input", str(tmp_path / "more.jsonl"), "--out", str(tmp_path / "x.jsonl")], "already"),
        (
            [
                "predict",
                str(run),
                "--input",
                str(write_columns(tmp_path / "0.txt", [])),
                "--out",
                str(tmp_path / "x.txt"),
            ],
            "0.txt has no sentences; give --input some",
        ),
        (
            ["evaluate", str(run), "--task.eval", str(write_columns(tmp_path / "1.txt", [("a", ("B-pink",))]))],
            "line 1 of",
        ),
    ):
        assert main(arguments) == 2 and reason in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    config: Config, tmp_path: Path, kill: Callable[[Config, int], None], states: list[Any]
) -> None:
    """Whatever the order of the sentences in their file, which changes nothing either."""
    finetune(config)
    lines = RunFolder(config.run_dir).metrics.read()
    assert [line["step"] for line in lines if "held_out_tag_loss" in line] == [5, 10, 14]
    some = random.Random(0).sample(sentences(80, 1), 80)
    shuffled = but(config, run_dir=str(tmp_path / "killed"), task__train=str(write_columns(tmp_path / "s.conll", some)))
    for step in (2, 7, 13):
        kill(shuffled, step)
    run = finetune(shuffled, resume=True)
    assert RunFolder(run).metrics.read() == lines
    jax.tree.map(np.testing.assert_array_equal, states[-1], states[0])
    write_columns(tmp_path / "s.conll", sentences(80, 3))
    with pytest.raises(BertjaxError, match="made with another text than the s.conll found now"):
        finetune(shuffled, resume=True)


def test_it_is_the_same_on_two_devices_and_on_four(
    config: Config, tmp_path: Path, devices: Callable[[int], None]
) -> None:
    """With sentences shared out by rows, and with parameters and computation split too."""
    losses = []
    for number, mesh in ((2, {}), (4, {"mesh__fsdp": 2, "mesh__tensor": 2})):
        devices(number)
        run = finetune(but(config, run_dir=str(tmp_path / f"on{number}"), **mesh))
        losses.append([line["tag_loss"] for line in RunFolder(run).metrics.read() if "tag_loss" in line])
    assert len(losses[0]) == 14 and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_all_pieces_balanced_tags_and_a_share_that_is_held_out(config: Config, tmp_path: Path) -> None:
    rows = [{"w": words, "t": tags, "doc": number // 4} for number, (words, tags) in enumerate(sentences(80, 1))]
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"text": "w", "label": "t", "group": "doc", "class_weights": "balanced", "label_smoothing": 0.1}
    keys |= {"label_pieces": "all", "eval": None, "eval_share": 0.1, "train": str(file)}
    run = finetune(but(config, train__epochs=1.0, **{f"task__{key}": value for key, value in keys.items()}))
    told = RunFolder(run).environment()["corpus"]
    assert (told["train"]["examples"], told["held_out"]["examples"]) == (72, 8)
    judgement = evaluate_task(run)
    assert judgement.num_examples == 8 and judgement.name == "held-out share of s.jsonl"
    last = RunFolder(run).metrics.newest_evaluation()
    assert judgement.figures["accuracy"].value == pytest.approx(last["held_out_tag_accuracy"], abs=1e-6)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"init_from": None}, "no model to fine-tune; give --init_from"),
    ({"task__train": None}, "no examples to learn from; give --task.train"),
    ({"task__label": "1"}, "line 1 of "),
    ({"task__eval": "none.conll"}, "no file at 'none.conll'"),
    (
        {"task__eval": None, "task__eval_share": 0.001},
        "of 80 sentences task.eval_share=0.001 holds 0 out",
    ),
    ({"data__max_length": 32}, "above model.max_position=16"),
]


@pytest.mark.parametrize("keys, reason", WRONG)
def test_what_is_wrong_is_said_before_a_folder_is_made(config: Config, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(BertjaxError) as error:
        finetune(but(config, **keys), typed=[key.replace("__", ".") for key in keys])
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not Path(config.run_dir).exists()


def test_other_sentences_that_will_not_do(config: Config, tmp_path: Path) -> None:
    for name, keys, reason in (
        (
            "unknown",
            {"task__eval": [(["a", "b"], ["O", "B-pink"])]},
            "line 2 of .* has the tag 'B-pink', which no sente",
        ),
        ("one", {"task__train": [(["a", "b"], ["O", "O"])]}, "every word of 1 sentences has the tag 'O'; give two"),
        (
            "few",
            {"task__train": [(["a", "b"], ["O", "B-red"])], "task__eval": None},
            "of 1 sentences .* holds 0 out",
        ),
    ):
        files = {key: made and str(write_columns(tmp_path / f"{name}-{key}.conll", made)) for key, made in keys.items()}
        with pytest.raises(BertjaxError, match=reason):
            finetune(but(config, **files))
    for key, reason in (
        ("task.pair=other", "task.pair=other is of pairs of texts, and task.kind=tag reads sentences; leave it out"),
        ("task.label_pieces=last", "first, all|first|all"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            load_config("tag", key)
    with pytest.raises(BertjaxError, match="task.label_pieces=all is of task.kind=tag, and it is classify"):
        load_config("classify", "task.label_pieces=all")
