"""The command line, from its help to vectors in a file: what it prints, writes, refuses and leaves alone."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from odd_bert import write_odd_bert

from bertjax.cli.environment import tuned_environment
from bertjax.cli.main import main, program
from bertjax.config import Config, DistributedConfig
from bertjax.config.recipes import flat, recipe_names
from bertjax.errors import ExitCode

pytestmark = pytest.mark.usefixtures("one_device")

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "pretrain",
    "encode",
    "search",
    "fill-mask",
    "neighbours",
    "export",
    "evaluate",
    "prepare",
    "launch",
)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the program in this process."""

    def call(*argv: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as error:  # how argparse ends a --help
            code = int(error.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


def options(config: Config) -> list[str]:
    """A configuration as it is typed: a recipe, and every key."""
    return ["--config=tiny"] + [
        f"--{key}={'null' if value is None else str(value)}" for key, value in flat(config).items()
    ]


@pytest.fixture(scope="module")
def memory() -> dict[str, tuple[Path, Outcome]]:
    return {}


@pytest.fixture
def trained(memory: dict[str, tuple[Path, Outcome]], tiny: Config, cli: Cli) -> tuple[Path, Outcome]:
    """The `tiny` run and what its training printed; the first test that asks trains it, for all."""
    if not memory:
        outcome = cli("pretrain", *options(tiny))
        assert outcome.code == 0, outcome
        memory["run"] = (Path(tiny.run_dir), outcome)
    return memory["run"]


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything in a folder but its lock, with size and time of change."""
    there = [path for path in (folder, *folder.rglob("*")) if path.name != "lock"]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in there}


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2 and one line that holds these parts, on stderr."""
    assert outcome.code == 2
    assert outcome.err.startswith("bertjax: ") and outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert [part for part in parts if part not in outcome.err] == []


# Help, version, mistakes.


def test_help_names_the_commands(cli):
    for flag in ("--help", "-h"):
        code, out, err = cli(flag)
        assert (code, err) == (0, "") and all(f"\n  {command} " in out for command in COMMANDS)
    assert cli() == Outcome(2, out, "")


@pytest.mark.parametrize(
    "command, told",
    [
        ("pretrain", ["--config RECIPE", "--resume", "--run_dir", "--train.steps", "--data.fallback", "dropout"]),
        ("prepare", ["--config RECIPE", "--data.path", "--tokenizer.min_frequency"]),
        ("encode", ["RUN", "TEXT_PAIR", "--out OUT", "--input FILES", "--pooling", "--normalize", "--truncate"]),
        ("evaluate", ["RUN", "--split {train,valid,test}", "--data.eval_path", "--other_text", "--half {even,odd}"]),
    ],
)
def test_help_of_a_command_names_its_options(cli, command, told):
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "") and out.startswith(f"usage: bertjax {command} ")
    assert [part for part in told if part not in out] == []
    assert max(map(len, out.splitlines())) <= 120


def test_every_key_has_a_help_text(cli):
    out = cli("pretrain", "--help").out
    for key in flat(Config()):
        text = re.search(rf"\n  --{re.escape(key)} (.*(?:\n {{10,}}.*)*)", out)
        assert text, key
        assert len(re.sub(r"\(type: .*", "", text[1], flags=re.DOTALL).split()) > 2, f"{key} has no help"


def test_version(cli):
    code, out, err = cli("--version")
    assert (code, err) == (0, "") and re.fullmatch(r"bertjax \d+\.\d+\.\d+\n", out)


MISTAKES = [  # argv, what the line must hold
    (
        ["pretrian"],
        [
            "'pretrian'",
            "encode, search, fill-mask, neighbours, export, push, evaluate, serve, explore, report, prepare",
        ],
    ),
    (["--bogus"], ["'--bogus'"]),
    (["pretrain", "extra"], ["extra"]),
    (["pretrain", "--train.stepss", "3"], ["--train.stepss", "train.steps"]),
    (["pretrain", "--train.steps"], ["--train.steps", "expected one argument"]),
    (["pretrain", "--train.steps", "0"], ["train.steps=0", "1 or more"]),
    (["pretrain", "--train.steps", "many"], ["train.steps", "whole number", "many"]),
    (["pretrain", "--train.st", "3"], ["--train.st"]),  # no abbreviations
    (["pretrain"], ["no recipe is given", *recipe_names()]),
    (["prepare"], ["no recipe is given", *recipe_names()]),
    (["pretrain", "--train.steps", "2", "--resume"], ["no recipe is given", "textbook"]),
    (["pretrain", "--config"], ["--config", "expected one argument"]),
    (["pretrain", "--config", ""], ["there is no recipe ''", "textbook"]),
    (["pretrain", "--config", "none.yaml"], ["none.yaml", "cannot be read", "textbook"]),
    (["prepare", "--config=textbok"], ["there is no recipe 'textbok'", *recipe_names()]),
    (["pretrain", "--train.accumulate", "4"], ["train.accumulate is now train.gradient_accumulation_steps; give that"]),
    (["pretrain", "--config=tiny", "--data.mlm_rate=0.2"], ["data.mlm_rate is now data.mlm_probability; give that"]),
    (["evaluate", "run", "--eval.mlm_rate", "0.2"], ["eval.mlm_rate is now eval.mlm_probability; give that"]),
    (["prepare", "--resume"], ["--resume"]),
    (["prepare", "--seed", "-1"], ["seed=-1"]),
    (["encode"], ["RUN", "bertjax encode --help"]),
    (["encode", "run", "a", "b", "c"], ["c"]),
    (["launch", "-n", "2"], ["there is no command to launch", "-- pretrain"]),
    (["launch", "-n", "2", "pretrain"], ["pretrain", "bertjax launch --help"]),
    (["encode", "none", "--truncate", "a"], ["none is not a run's folder"]),
    (["encode", "none", "a", "--precision", "bfloat16", "b", "--truncate"], ["none is not a run's folder"]),
    (["encode", "--out", "v.npy", "none", "--truncate", "--", "-a"], ["none is not a run's folder"]),
    (["fill-mask", "none", "--top", "3", "a <mask>"], ["none is not a run's folder"]),
    (["export", "none", "--format", "hf", "out"], ["none is not a run's folder"]),
    (["encode", "run", "a", "--bogus"], ["--bogus", "bertjax encode --help"]),
    (["encode", "run", "a", "--out", "v.txt"], ["v.txt", ".npy"]),
    (["encode", "none", "a"], ["none is not a run's folder", "config.yaml"]),
    (["evaluate"], ["RUN"]),
    (["evaluate", "none"], ["none is not a run's folder"]),
    (["evaluate", "none", "--split", "dev"], ["'dev'", "'valid'"]),
]


@pytest.mark.parametrize("argv, parts", MISTAKES, ids=lambda value: " ".join(value))
def test_mistake_is_one_line(cli, tmp_path, monkeypatch, argv, parts):
    monkeypatch.chdir(tmp_path)
    outcome = cli(*argv)
    assert_refused(outcome, *parts)
    assert outcome.out == "" and list(tmp_path.iterdir()) == []


def test_launch_passes_on_all_that_stands_after_two_dashes(monkeypatch):
    launched = []
    monkeypatch.setattr("bertjax.parallel.launch.launch", lambda command, size, **_: launched.append((command, size)))
    argv = ["encode", "run", "--truncate", "--", "-a"]
    assert main(["launch", "-n", "3", "--", *argv]) == 0
    ((command, size),) = launched
    assert command[-len(argv) :] == argv and size == 3


def test_help_and_mistakes_do_not_wait_for_jax():
    code = """
import contextlib, sys
from bertjax.cli.main import main
argvs = [["--help"], ["--version"], ["bogus"], ["pretrain", "--seed", "x"], ["encode", "run", "x", "--out", "v"]]
for command in ("pretrain", "encode", "fill-mask", "neighbours", "export", "evaluate", "prepare", "launch"):
    argvs.append([command, "--help"])
for argv in argvs:
    with contextlib.suppress(SystemExit):
        main(argv)
    slow = {"jax", "flax", "optax", "orbax", "tokenizers", "matplotlib"} & set(sys.modules)
    assert not slow, f"{argv} imports {slow}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "script, argv, line",
    [
        ("pretrain.py", ["--train.steps", "0"], "bertjax: train.steps=0 is impossible; give 1 or more, below 2**31\n"),
        (
            "prepare_data.py",
            ["--train.steps", "0"],
            "bertjax: train.steps=0 is impossible; give 1 or more, below 2**31\n",
        ),
        (
            "encode.py",
            ["run", "text", "--out", "v.txt"],
            "bertjax: --out v.txt does not end in .npy; give a name that does\n",
        ),
        (
            "fill_mask.py",
            ["run"],
            "bertjax: the following arguments are required: TEXT; 'bertjax fill-mask --help' tells what it takes\n",
        ),
        (
            "neighbours.py",
            ["run", "--word", "crane", "--text", "a", "--out", "v"],
            "bertjax: --out v does not end in .png; give a name that does\n",
        ),
        (
            "evaluate.py",
            [],
            "bertjax: the following arguments are required: RUN; 'bertjax evaluate --help' tells what it takes\n",
        ),
    ],
)
def test_scripts_are_thin_doors(tmp_path, script, argv, line):
    command = [sys.executable, ROOT / "scripts" / script, *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


# The process's own environment.


def test_the_environment_is_completed_and_what_is_set_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuned = tuned_environment({"HOME": "/home/me"})
    assert tuned["HOME"] == "/home/me"
    assert tuned["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "bertjax" / "programs")
    if sys.platform == "linux":
        assert tuned["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    theirs = {"JAX_COMPILATION_CACHE_DIR": "/mine", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert tuned_environment(theirs).items() >= theirs.items()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's malloc is told anything")
def test_the_program_starts_itself_anew_once(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    monkeypatch.setattr(os, "environ", {"HOME": "/home/me"})
    monkeypatch.setattr(sys, "argv", ["bertjax", "pretrain", "--train.steps", "0"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "bertjax", "pretrain", "--train.steps", "0"])
    assert program() == 2
    ((executable, argv, environment),) = started
    assert executable == sys.executable and argv == [sys.executable, *sys.orig_argv[1:]]
    monkeypatch.setattr(os, "environ", environment)
    assert program() == 2 and len(started) == 1
    monkeypatch.setattr(sys, "argv", ["bertjax", "--help"])
    monkeypatch.setattr(os, "environ", {})
    assert program() == 0 and len(started) == 1  # nothing to be gained


def test_a_second_start_finds_its_programs_compiled(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"]  # of all tests
    command = [sys.executable, "-m", "bertjax", "encode", str(write_odd_bert(tmp_path / "bert")), "over over"]
    for number in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        compiled = {path.name for path in (tmp_path / "cache" / "bertjax" / "programs").glob("*_encode*")}
        if number == 0:
            first = compiled
    assert first and compiled == first


def test_without_a_home_to_write_in_nothing_compiled_is_kept(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    assert "JAX_COMPILATION_CACHE_DIR" not in tuned_environment({})


def test_a_program_that_cannot_start_itself_anew_goes_on(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "execve", refused)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["bertjax", "pretrain", "--train.steps", "0"])
    assert program() == 2


# Streams and folders that are no more.


@pytest.mark.parametrize(
    "argv, code", [(["--help"], 0), (["--version"], 0), (["bogus"], 2), (["pretrain", "--help"], 0)]
)
def test_closed_streams(monkeypatch, argv, code):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    try:
        assert main(argv) == code
    except SystemExit as error:
        assert error.code == code
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_streams_without_room(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--help"]) == ExitCode.DISK_FULL
        assert capsys.readouterr().err.startswith("bertjax: cannot write to standard output: No space left")
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["bogus"]) == 2
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_pipe_that_nobody_reads(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["--help"]) == 0


@pytest.mark.parametrize(
    "argv", [["pretrain", "--config", "tiny"], ["prepare", "--config=tiny"]], ids=lambda argv: argv[0]
)
def test_a_folder_that_is_no_more(cli, tmp_path, monkeypatch, argv):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert_refused(cli(*argv), "the folder that this was started in is no more")
    assert cli("--version").code == 0


# Preparing and training.


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
    older = ROOT / "tests/reference/run"
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


# Encoding.


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


# Looking.


def test_fill_mask_prints_a_table_a_mask(trained, cli):
    code, out, err = cli("fill-mask", trained[0], "the [MASK] sees a <mask>", "--top", "3")
    assert (code, err) == (0, "")
    tables = out.split("\n\n")
    assert [table.splitlines()[0] for table in tables] == ["mask 1 of 2", "mask 2 of 2"]
    for table in tables:
        rows = [re.fullmatch(r"  (\S+) +(\d+\.\d\d)%", line) for line in table.splitlines()[1:]]
        assert len(rows) == 3 and len({len(row[0]) for row in rows}) == 1
        chances = [float(row[2]) for row in rows]
        assert chances == sorted(chances, reverse=True)
    assert_refused(cli("fill-mask", trained[0], "the noun1"), "there is no <mask> in 'the noun1'")
    assert_refused(cli("fill-mask", "no run", "a <mask>", "--top", "0"), "--top 0", "1 or more")


def test_neighbours_prints_a_table_and_draws(trained, cli, tmp_path):
    picture = tmp_path / "n.png"
    texts = ["--text", "the noun1 sees a noun2", "--text", "a noun1 near noun3"]
    code, out, err = cli("neighbours", trained[0], "--word", "noun1", *texts, "--out", picture)
    assert (code, err) == (0, "") and out.endswith(f"drawn in {picture}\n")
    assert re.search(
        r"  1  the noun1 sees a noun2\n +2    a noun1 near noun3\n\n +1 +2\n +1   1\.000 +[01]\.\d{3}\n", out
    )
    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG")
    assert_refused(cli("neighbours", trained[0], "--word", "noun1", *texts, "--out", picture), "exists and is left")
    other = tmp_path / "o.png"
    for word, found in (("noun4", "'noun4' is in none of the 2 texts"), ("noun3", "'noun3' is only once in the 2")):
        assert_refused(cli("neighbours", trained[0], "--word", word, *texts, "--out", other), found, "two uses")
    assert_refused(cli("neighbours", "no run", "--word", "a", *texts, "--out", "n.jpg"), "does not end in .png")
    assert cli("neighbours", trained[0], "--word", "noun1", *texts) == (
        0,
        out.removesuffix(f"drawn in {picture}\n"),
        "",
    )
    assert picture.read_bytes() == png and list(tmp_path.glob("*.png")) == [picture]


def test_neighbours_reads_a_known_word_in_the_place_of_one_that_is_not(trained, cli):
    def neighbours(*words):
        return cli("neighbours", trained[0], *words, "--text", "the Crane sees a noun2", "--text", "a crane near noun3")

    instead = ["--instead", "digger", "--instead", "noun1", "--instead", "noun2"]
    code, out, err = neighbours("--word", "crane", *instead)
    assert (code, err) == (0, "")
    said, first, second, *_ = out.splitlines()
    assert said == "the vocabulary lacks 'crane': 'noun1' is read in its place"
    assert first.split(None, 1)[1] == "the noun1 sees a noun2" and second.split(None, 1)[1] == "a noun1 near noun3"
    assert_refused(neighbours("--word", "crane", "--instead", "digger"), "lacks 'crane', and 'digger' too")
    known = cli("neighbours", trained[0], "--word", "a", *instead, "--text", "a noun3", "--text", "the a noun1")
    assert known[0] == 0 and "in its place" not in known[1]


# Evaluating.


def test_evaluate_prints_what_training_did(trained, cli):
    run, (_, said, _) = trained
    before = snapshot(run)
    code, out, err = cli("evaluate", run)
    assert (code, err) == (0, "") and out.startswith("wikitext-2/valid, 36 pairs")
    losses = {head: float(loss) for head, loss in re.findall(r"(MLM|NSP) loss (\d\.\d{4}), accuracy \d+\.\d\d%", out)}
    held_out = re.search(r"held out at step 4: MLM loss ([\d.]+).*NSP loss ([\d.]+)", said)
    np.testing.assert_allclose([losses["MLM"], losses["NSP"]], [float(held_out[1]), float(held_out[2])], atol=6e-4)
    assert snapshot(run) == before


def test_evaluate_by_class_of_words_and_by_halves(trained, cli, tmp_path):
    run, file = trained[0], tmp_path / "figures.json"
    code, out, err = cli("evaluate", run, "--half", "odd", "--json", file)
    assert (code, err) == (0, "") and out.startswith("wikitext-2/valid, the 18 odd ones of its pairs, masks fixed\n")
    assert re.search(r"\n    frequent +\d+ +\d\.\d{4} +\d+\.\d\d%\n", out) and max(map(len, out.splitlines())) < 100
    figures = json.loads(file.read_text())
    assert figures["half"] == "odd" and f"MLM loss {figures['means']['mlm_loss']:.4f}" in out
    assert sum(of_class["predictions"] for of_class in figures["classes"].values()) > 18
    before = file.read_bytes()
    assert_refused(cli("evaluate", run, "--json", file), "--json", "exists and is left as it is")
    assert_refused(cli("evaluate", run, "--json", tmp_path / "none" / "a.json"), "there is no folder")
    assert file.read_bytes() == before


def test_evaluate_another_split(trained, cli):
    code, out, err = cli("evaluate", trained[0], "--split", "train")
    assert (code, err) == (0, "") and out.startswith("wikitext-2/train, 180 pairs")


def test_evaluate_a_text_that_changed(trained, cli, tmp_path):
    run = tmp_path / "changed"
    shutil.copytree(trained[0], run)
    told = json.loads((run / "environment.json").read_text())
    told["corpus"]["held_out"]["digest"] = "0"
    (run / "environment.json").write_text(json.dumps(told))
    assert_refused(cli("evaluate", run), "wikitext-2/valid is not the text", "by other_text")
    code, out, err = cli("evaluate", run, "--other_text")
    assert (code, err) == (0, "") and "masks fixed, another text than the run's\n" in out


def test_the_first_of_several_processes_tells_what_all_have_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of runs of every task: they come together before the run's kind is looked at."""
    inside: list[DistributedConfig] = []

    @contextlib.contextmanager
    def joined(config: DistributedConfig, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        inside.append(config)
        yield SimpleNamespace(first=config.process_id == 0)
        inside.clear()

    monkeypatch.setattr("bertjax.parallel.distributed.joined", joined)
    monkeypatch.setattr("bertjax.cli.evaluate._judged", lambda _: (f"{len(inside)} joined", "{}\n"))
    for process in (1, 0):
        of_process = ["--distributed.coordinator", "127.0.0.1:1", "--distributed.num_processes", "2"]
        of_process += ["--distributed.process_id", str(process), "--json", str(tmp_path / f"{process}.json")]
        assert main(["evaluate", "run", *of_process]) == 0
    assert capsys.readouterr().out == "1 joined\n" and [file.name for file in tmp_path.iterdir()] == ["0.json"]
