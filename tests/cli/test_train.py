"""`bertjax prepare` and `pretrain`: what they print, write, refuse and leave alone."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from command_line import assert_refused, options, snapshot

pytestmark = pytest.mark.usefixtures("one_device")


def test_prepare_prints_the_counts_and_writes_no_run(cli, tiny):
    code, out, err = cli("prepare", *options(tiny))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "train:    wikitext-2/train: 60 paragraphs, 240 sentences, 1,740 tokens, 180 pairs that fit",
        "held out: wikitext-2/valid: 12 paragraphs, 48 sentences, 348 tokens, 36 pairs that fit",
        "words:    17 in the vocabulary, special tokens included",
    ]
    assert not Path(tiny.run_dir).exists() and Path(tiny.data.cache).is_dir()


def test_pretrain(trained):
    run, (_, out, err) = trained
    assert err == "" and "model:" in out and "devices:  1 x cpu" in out
    assert [f"step {step}/4 " in out for step in (1, 2, 3, 4)] == [True] * 4
    assert re.search(r"\nheld out at step 4: MLM loss \d\.\d{3}, accuracy \d+\.\d%; NSP loss", out)
    assert re.search(r"\nMLM loss \d\.\d{3}, NSP loss \d\.\d{3} \(mean over steps 1 to 4\)\n", out)
    assert re.search(r"\n[\d,]+\.\d sentence pairs/s on 1 x cpu", out)
    assert f"bertjax encode {run} " in out and str(run / "loss.png") in out
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "lock",
        "loss.png",
        "metrics.jsonl",
        "special_tokens_map.json",
        "timings.jsonl",
        "tokenizer.json",
        "word_counts.npy",
    ]


def test_second_pretrain_leaves_the_run_alone(trained, cli, tiny):
    run, _ = trained
    before = snapshot(run)
    again = options(dataclasses.replace(tiny, run_dir=str(run)))
    assert_refused(cli("pretrain", *again), str(run), "--resume", "--run_dir")
    assert_refused(cli("pretrain", *again, "--resume", "--seed=1"), "seed=1 (the run has 0)")
    assert snapshot(run) == before


def test_resume_of_a_finished_run_draws_what_is_missing(trained, cli, tiny, tmp_path, pictures):
    run = shutil.copytree(trained[0], tmp_path / "copy")
    with open(run / "metrics.jsonl", "a") as file:  # it had gone on for a step when it was killed
        file.write('{"step": 5, "mlm_loss": 2.5}\n')
    (run / "loss.png").unlink()
    code, out, err = cli("pretrain", *options(dataclasses.replace(tiny, run_dir=str(run))), "--resume")
    assert (code, err) == (0, "") and "has made its 4 steps; give a greater --train.steps to go further" in out
    for name in ("metrics.jsonl", "timings.jsonl"):
        assert (run / name).read_bytes() == (trained[0] / name).read_bytes()
    assert {path.name for path in run.iterdir()} == {path.name for path in trained[0].iterdir()}


@pytest.mark.parametrize(
    "change, parts",
    [
        ("--train.batch_size=800", ["180 pairs", "train.batch_size=800"]),
        ("--model.vocab_size=9", ["model.vocab_size=9", "17 tokens"]),
        ("--data.path=/none", ["data.path=/none is not a folder"]),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(cli, tiny, change, parts):
    assert_refused(cli("pretrain", *options(tiny), change), *parts)
    assert not Path(tiny.run_dir).exists()


def test_a_run_of_an_older_version_is_resumed_by_its_own_recipe(cli, tmp_path, monkeypatch):
    """Its config.yaml has keys that have other names now; nothing is said of them."""
    older = Path(__file__).parents[1] / "reference" / "run"
    shutil.copytree(older / "at_step_3", tmp_path / "run")
    for name in ("text.txt", "held_out.txt"):
        shutil.copy(older / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(
        "pretrain",
        "--config",
        "run/config.yaml",
        "--run_dir",
        "run",
        "--train.steps",
        "5",
        "--resume",
        "--logging.report",
        "false",
    )
    assert (code, err) == (0, "") and "step 5/5" in out and "is now" not in out
