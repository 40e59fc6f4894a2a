"""`bertjax encode` and `search`: what they print, write, refuse and leave alone."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, snapshot

pytestmark = pytest.mark.usefixtures("one_device")


def labels(out: str) -> list[str]:
    """The tokens that the printed vectors are said to be of."""
    return [line.split()[0] for line in out.splitlines() if line.startswith("  ")]


def test_encode_prints_tokens_and_shapes(trained, cli):
    run, _ = trained
    before = snapshot(run)
    code, out, err = cli("encode", run, "The noun1 SEES a")
    assert (code, err) == (0, "")
    assert "6 tokens: <cls> the noun1 sees a <sep>\n" in out
    assert "[1, 6, 16]" in out and "[1, 16]" in out
    assert labels(out) == ["<cls>", "the", "noun1", "sees", "a", "<sep>"]
    assert snapshot(run) == before


def test_encode_over_a_mesh(trained, cli, two_devices):
    out = [line.split() for line in cli("encode", trained[0], "the noun1 sees").out.splitlines()]
    code, split, err = cli("encode", trained[0], "the noun1 sees", "--mesh.tensor", "2")
    assert (code, err) == (0, "")
    for line, same in zip(split.splitlines(), out, strict=True):
        assert line.split() == same or np.allclose(
            np.array(line.split()[1:], float), np.array(same[1:], float), atol=2e-6
        )
    outcome = cli("fill-mask", trained[0], "the <mask> sees", "--mesh.fsdp", "3")
    assert_refused(outcome, "mesh.fsdp=3", "is a mesh of 3 devices, and there are 2")


def test_encode_a_pair(trained, cli):
    code, out, err = cli("encode", trained[0], "the noun1 sees", "a noun2")
    assert (code, err) == (0, "") and "[1, 8, 16]" in out
    assert labels(out) == ["<cls>", "the", "noun1", "sees", "<sep>", "a", "noun2", "<sep>"]


def test_encode_saves_what_it_prints(trained, cli, tmp_path):
    file = tmp_path / "v.npy"
    code, out, err = cli("encode", trained[0], "the noun1 sees a", "--out", file)
    assert (code, err) == (0, "") and str(file) in out
    vectors = np.load(file)
    assert vectors.dtype == np.float32 and vectors.shape == (1, 6, 16)
    rows = [line.split()[1:] for line in out.splitlines() if line.startswith("  ")]
    np.testing.assert_allclose(np.array(rows, float), vectors[0, :, :3], atol=1e-4)


def test_encode_leaves_other_files_alone(trained, cli, tmp_path):
    file = tmp_path / "v.npy"
    file.write_bytes(b"mine")
    assert_refused(cli("encode", trained[0], "the noun1", "--out", file), str(file), "another name")
    assert_refused(cli("encode", trained[0], "the noun1", "--out", tmp_path / "v"), "does not end in .npy")
    outcome = cli("encode", trained[0], "the noun1", "--out", tmp_path / "none" / "v.npy")
    assert_refused(outcome, "there is no folder", "make it first")
    assert file.read_bytes() == b"mine" and list(tmp_path.rglob("*.npy")) == [file]


def test_encode_leaves_a_link_to_nowhere_alone(trained, cli, tmp_path):
    link = tmp_path / "v.npy"
    link.symlink_to(tmp_path / "not there yet.npy")
    assert_refused(cli("encode", trained[0], "the noun1", "--out", link), str(link))
    assert link.is_symlink()


@pytest.mark.filterwarnings("default")
def test_encode_warns_of_unknown_words_in_one_line(trained, cli):
    code, out, err = cli("encode", trained[0], "the zebra sees a gnu")
    assert code == 0 and "7 tokens" in out
    assert "2 of 5 words" in err and err.startswith("warning: ") and "zebra, gnu" in err and err.count("\n") == 1


def test_encode_a_file(trained, cli, tmp_path):
    texts, out = tmp_path / "texts.txt", tmp_path / "v.npy"
    texts.write_text("the noun1 sees\ta noun2\n\na noun2\n")
    outcome = cli("encode", trained[0], "--input", texts, "--out", out, "--pooling", "cls", "--normalize")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.fullmatch(
        r"3 texts in \d+\.\d s, [\d,]+ texts/s \(compilation took \d+\.\d s more\); .*v\.npy: float32 \[3, 16\]\n",
        outcome.out,
    )
    np.testing.assert_allclose(np.linalg.norm(np.load(out), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "argv, parts",
    [
        ([], ["there is no text", "--input FILES"]),
        (["a", "--input", "FILE", "--out", "v.npy"], ["both a text and --input"]),
        (["--input", "FILE"], ["--input needs --out", ".safetensors"]),
        (["--input", "FILE", "--out", "v.npy", "--pooling", "tokens"], ["v.npy", ".safetensors or .parquet"]),
        (["--input", "none.txt", "--out", "v.npy"], ["none.txt is not there", "- for standard input"]),
        (["--input", "FILE", "--out", "v.txt"], [".npy, .parquet, .safetensors, .index;"]),
        (["a", "--pooling", "max"], ["--pooling has no effect", "--input"]),
        (["a", "--normalize"], ["--normalize has no effect"]),
        (["a", "--prompt", "b"], ["--prompt has no effect"]),
        (["a", "--split", "1/2"], ["--split has no effect"]),
        (["a", "--column", "b"], ["--column has no effect"]),
        (["--input", "FILE", "--out", "v.npy", "--split", "3/2"], ["--split 3/2 is no part", "i/n"]),
        (["--input", "FILE", "--out", "v.npy", "--keep", "line"], ["v.npy has vectors alone", ".parquet or .index"]),
        (["--input", "FILE", "--out", "v.npy", *["--column", "a"] * 3], ["--column is given 3 times"]),
        (["--input", "FILE", "--out", "v.npy", "--pooling", "least"], ["least", "mean", "max", "cls", "tokens"]),
    ],
)
def test_what_encode_does_not_take_together(cli, tmp_path, monkeypatch, argv, parts):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("a\n")
    assert_refused(cli("encode", "no run", *argv), *parts)  # before the run is looked at
    assert os.listdir() == ["FILE"]


def test_search_in_an_index(trained, cli, tmp_path):
    pytest.importorskip("usearch")
    texts, out, run = tmp_path / "texts.jsonl", tmp_path / "a.index", trained[0]
    words = [f"the noun{a} sees noun{b}" for a in range(5) for b in range(5)]
    texts.write_text("".join(json.dumps({"id": word[::-1], "text": word}) + "\n" for word in words))
    outcome = cli("encode", run, "--input", texts, "--out", out)
    assert (outcome.code, outcome.err) == (0, "") and outcome.out.startswith("indexed 25 vectors in ")
    for options in ([], ["--exact"], ["--exact", "--model", run]):
        code, found, _ = cli("search", out, words[7], "--top", 3, *options)
        lines = found.splitlines()
        assert code == 0 and len(lines) == 3 and lines[0] == f"  1.0000  {words[7]}", found
    code, found, _ = cli("search", out, *words[:2], "--column", "id", "--column", "text", "--top", 1)
    assert found.splitlines() == [words[0], f"  1.0000  {words[0][::-1]}  {words[0]}", words[1], found.splitlines()[3]]
    assert re.match(r"recall@5 [01]\.\d{4} of 25 vectors of .*a.index", cli("search", out, "--recall", "--top", 5).out)
    assert_refused(cli("search", out, "a", "--column", "no"), "a.index has no column 'no', but id, text")
    assert_refused(cli("search", out), "nothing is given")
    assert_refused(cli("search", out, "a", "--recall"), "a query and --recall are given")
    assert_refused(cli("search", texts, "a"), "texts.jsonl is no index")
    for old, new, told in (
        (str(run), str(tmp_path / "no"), "is not there; give --model"),
        ('print": "', 'print": "0', ""),
    ):
        about = (out / "index.json").read_text()
        (out / "index.json").write_text(about.replace(old, new))
        assert_refused(cli("search", out, "a"), "a.index", told or "was made by another model than")
        (out / "index.json").write_text(about)


def test_encode_of_a_long_text(trained, cli):
    words = [f"noun{number % 5}" for number in range(40)]
    assert_refused(cli("encode", trained[0], " ".join(words)), "40 words", "30 fit", "truncate")
    code, out, _ = cli("encode", trained[0], " ".join(words), "--truncate")
    assert code == 0 and "[1, 32, 16]" in out
    assert labels(out) == ["<cls>", *words[:30], "<sep>"]
    assert "32 tokens: " in out


def test_encode_of_a_long_pair(trained, cli):
    code, out, _ = cli("encode", trained[0], "noun1 " * 20, "noun2 " * 20, "--truncate")
    assert code == 0 and "[1, 32, 16]" in out
    kept = labels(out)
    assert len(kept) == 32 and kept[-1] == "<sep>" and kept.count("<sep>") == 2


def test_encode_of_bytes_that_are_no_text(trained, cli):
    assert_refused(cli("encode", trained[0], "caf\udce9"))  # how Python passes on a byte that is not UTF-8


def test_run_without_a_checkpoint(trained, cli, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run, ignore=shutil.ignore_patterns("checkpoints"))
    before = snapshot(run)
    for argv in (["encode", run, "the noun1"], ["evaluate", run]):
        assert_refused(cli(*argv), f"{run} has no checkpoint")
    assert snapshot(run) == before


def test_folder_that_is_no_run(cli, tmp_path):
    for argv in (["encode", tmp_path, "the noun1"], ["evaluate", tmp_path]):
        assert_refused(cli(*argv), f"{tmp_path} is not a run's folder", "config.yaml")
    assert list(tmp_path.iterdir()) == []
