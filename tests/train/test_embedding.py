"""A whole run that learns embeddings: it finds what belongs together, is killed and goes on, and can be used."""

import csv
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_texts import WORDS, but, write_model

from bertjax import Encoder, finetune, load_config
from bertjax.cli.main import main
from bertjax.config import Config
from bertjax.data.batching.tuples import TupleBatch, TupleBatches
from bertjax.errors import BertjaxError
from bertjax.hub.folder import read_folder, write_folder
from bertjax.hub.sentence_transformers import SentenceSettings, read_settings
from bertjax.models.sentence import Dense
from bertjax.runs.folder import RunFolder
from bertjax.train.tasks.embedding import prepare_embedding


def pairs(count: int, seed: int) -> list[list[str]]:
    """Words, the same ones in another order with one that says nothing, and others; and a score."""
    choose, rows = random.Random(seed), []
    for number in range(count):
        words = choose.sample(WORDS, choose.randint(2, 5))
        pair = [*choose.sample(words, len(words)), choose.choice(["redish", "blueish"])]
        other = choose.sample(WORDS, 3)
        rows.append([" ".join(words), " ".join(pair), " ".join(other) if number % 3 else "", f"{number % 5 / 4}"])
    return rows


def write(file: Path, rows: list[list[str]]) -> Path:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["text", "pair", "other", "label"], *rows])
    return file


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def config(base: Path, tmp_path: Path, one_device: None) -> Config:
    """Twenty examples, in batches of eight: an epoch has two of them and one of four."""
    train, valid = write(tmp_path / "train.csv", pairs(20, 1)), write(tmp_path / "valid.csv", pairs(15, 2))
    typed = {"init_from": base, "task.train": train, "task.eval": valid, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 8, "train.epochs": 2, "train.log_every": 1}
    typed |= {"train.gradient_accumulation_steps": 2, "task.negatives": "other"}
    typed |= {"checkpoint.every": 4, "optim.learning_rate": 0.01, "logging.report": False}
    return load_config("embed", [f"{key}={value}" for key, value in typed.items()])


def lines_of(run: Path) -> list[dict[str, Any]]:
    return RunFolder(run).metrics.read()


def test_a_run_learns_and_its_vectors_are_those_it_was_judged_by(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"train__epochs": 40.0, "model__dropout": 0.0, "checkpoint__every": 0, "task__matryoshka": [16, 8]}
    run = finetune(but(config, **settings))
    said = capsys.readouterr().out
    assert "train:    train.csv: 20 examples of" in said and "vectors:  mean of the tokens', also cut to 16, 8" in said
    last = [line for line in lines_of(run) if "contrastive_loss" in line][-1]
    assert last["contrastive_loss"] < 0.1 and last["contrastive_accuracy"] == 1.0  # every batch is known by heart

    # Evaluated again, it tells the same, which is what its vectors come to.
    assert main(["evaluate", str(run), "--json", str(tmp_path / "told.json")]) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[0].partition(" examples: ")[2] in said and "valid.csv, 15 examples: MRR@10" in again
    told, rows = json.loads((tmp_path / "told.json").read_text()), pairs(15, 2)
    encoder = Encoder.load(run)
    assert told["loss"] == pytest.approx(
        RunFolder(run).metrics.newest_evaluation()["held_out_contrastive_loss"], rel=1e-4
    )
    for size in (16, 8):
        anchors, found = (encoder.encode([row[column] for row in rows])[:, :size] for column in (0, 1))
        anchors, found = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (anchors, found))
        right = (anchors @ found.T).argmax(-1) == np.arange(15)
        assert told["sizes"][str(size)]["accuracy@1"]["value"] == pytest.approx(right.mean()) and right.mean() > 0.3
    assert main(["evaluate", str(run), "--task.eval", str(tmp_path / "train.csv")]) == 0
    assert "train.csv, 20 examples: MRR@10 1.0000" in capsys.readouterr().out

    # Exported, it is the same to others and to ourselves, and another run may start from either.
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    texts = [row[1] for row in rows]
    np.testing.assert_array_equal(Encoder.load(tmp_path / "out").encode(texts), encoder.encode(texts))
    assert "pipeline_tag: sentence-similarity" in (tmp_path / "out" / "README.md").read_text()
    for words, reason in (
        (["predict", str(run), "--input", "a.csv", "--out", str(tmp_path / "o.csv")], "'bertjax encode'"),
        (["evaluate", str(run), "--split", "test"], "--split is of runs that pretrain"),
        (["fill-mask", str(run), "a <mask>"], "no head that predicts words"),
    ):
        assert main(words) == 2 and reason in capsys.readouterr().err


class Killed(Exception):
    """Stands for kill -9: nothing is written after it."""


def until(self: TupleBatches, last: int, batch_at: Callable, step: int, rows: range | None = None) -> TupleBatch:
    if step == last:
        raise Killed
    return batch_at(self, step, rows)


def test_killed_and_resumed_it_ends_as_if_it_had_not_been_whatever_the_order_of_the_rows(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(config)
    shuffled = but(
        config, run_dir=str(tmp_path / "killed"), task__train=str(write(tmp_path / "s.csv", pairs(20, 1)[::-1]))
    )
    batch_at: Callable = TupleBatches.batch_at
    for kill in (1, 5):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(TupleBatches, "batch_at", functools.partialmethod(until, kill, batch_at))
            finetune(shuffled, resume=True)
    run = finetune(shuffled, resume=True)
    assert len(lines_of(whole)) == 7 and lines_of(run) == lines_of(whole)
    np.testing.assert_array_equal(Encoder.load(run).encode("word1 word2"), Encoder.load(whole).encode("word1 word2"))
    write(tmp_path / "s.csv", pairs(20, 3))
    with pytest.raises(BertjaxError, match="made with another text than the s.csv found now"):
        finetune(shuffled, resume=True)


def test_scores_texts_alone_and_another_pooling(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = but(config, task__negatives=None, task__loss="cosent", train__epochs=None, train__steps=1)
    scored = but(scored, train__gradient_accumulation_steps=1)
    finetune(scored)
    assert "15 examples: Spearman" in capsys.readouterr().out
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{row[0]} greenish\n" for row in pairs(30, 5)))
    alone = but(scored, task__loss="in_batch", task__train=str(lines), task__eval=None, task__pooling="cls")
    run = finetune(but(alone, run_dir=str(tmp_path / "alone"), task__eval_share=0.2))
    said = capsys.readouterr().out
    assert "examples: uniformity -" in said and "vectors:  cls of the tokens'" in said
    np.testing.assert_allclose(
        Encoder.load(run).encode("word1 word2"), Encoder.load(run).encode("word1 word2", pooling="cls")
    )


def with_sentence(folder: Path, base: Path, **settings: Any) -> str:
    """Writes the model anew with another way to make vectors."""
    write_folder(*read_folder(base), folder, card="", sentence=SentenceSettings(**settings))
    return str(folder)


def test_vectors_are_made_as_the_folder_says_and_the_run_keeps_it(config: Config, base: Path, tmp_path: Path) -> None:
    config = but(config, model=read_folder(base).config)
    prompt = {"prompts": {"query": "word9 word8 "}, "default_prompt_name": "query"}
    there = with_sentence(tmp_path / "there", base, pooling=("cls", "max"), normalize=True, max_length=8, **prompt)
    prepared = prepare_embedding(but(config, init_from=there))
    assert prepared.sentence.pooling == ("cls", "max") and prepared.sentence.normalize
    assert prepared.sentence.max_length == 16  # as long as texts are in training
    first = prepared.tokenizer.ids(["word9", "word8"])
    assert all(prepared.train.ids[start + 1 : start + 3].tolist() == first for start in prepared.train.starts_m[:-1])
    for name, content in prepared.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    kept = read_settings(tmp_path, 16, lowercases=True)
    assert kept == prepared.sentence._replace(prompts=kept.prompts) and kept.default_prompt == "word9 word8 "
    again = prepare_embedding(but(config, init_from=there, run_dir=str(tmp_path)), prepared.tokenizer)
    assert again.sentence == kept

    # A model alone makes them by the mean, of length 1; what cannot be trained is refused.
    (Path(there) / "modules.json").unlink()
    alone = prepare_embedding(but(config, init_from=there)).sentence
    assert alone == SentenceSettings(normalize=True)
    dense = Dense(np.eye(16, dtype=np.float32), None, None, "Tanh", residual=False)  # type: ignore[arg-type]
    for name, settings, reason in (
        ("dense", {"layers": (dense,)}, "makes vectors by Dense after pooling, which cannot be trained yet"),
        ("prompt", prompt | {"pools_prompt": False}, "leaves its prompt out of pooling"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            prepare_embedding(but(config, init_from=with_sentence(tmp_path / name, base, **settings)))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"init_from": None}, "no model to fine-tune; give --init_from"),
    ({"task__train": None}, "no examples to learn from; give --task.train"),
    ({"task__pair": "twin"}, "nothing in the column 'twin' (task.pair)"),
    ({"task__eval": None, "task__eval_share": 0.001}, "holds 0 out, as those that belong together stay together"),
    ({"task__matryoshka": [32]}, "has sizes above the 16 numbers of a vector"),
]


@pytest.mark.parametrize("keys, reason", WRONG)
def test_what_is_wrong_is_said_before_a_folder_is_made(config: Config, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(BertjaxError) as error:
        finetune(but(config, **keys))
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not Path(config.run_dir).exists()
