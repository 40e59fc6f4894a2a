"""The command line: its help, mistakes, streams, and the environment that it gives itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Outcome, assert_refused
from odd_bert import write_odd_bert

from bertjax.cli.environment import tuned_environment
from bertjax.cli.main import main, program
from bertjax.config import Config
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
    (["evaluate", "runs/none"], ["runs/none is not a run's folder"]),
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


@pytest.mark.skipif(sys.platform != "linux", reason="only there the program starts itself anew")
@pytest.mark.parametrize(
    ("argv", "code"), [("serve runs/a", -15), ("encode runs/a --input=a.txt", 75), ("encode runs/a --out=b", -15)]
)
def test_started_anew_it_obeys_sigterm(argv: str, code: int) -> None:
    """It holds the signal back only until it has made way for itself."""
    program = "import os, signal, sys; from bertjax.cli import main; sys.argv[1:] = os.environ['ARGV'].split(); "
    program += "main.main = lambda argv: os.kill(os.getpid(), signal.SIGTERM); sys.exit(main.program())"
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | {"ARGV": argv}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    said = "stopped by SIGTERM; the same command goes on\n" if code == 75 else ""
    assert (done.returncode, done.stderr) == (code, said)


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
