"""Paths as users give them: `~` is their home folder, wherever a path is taken."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refusal

from bertjax.cli.main import main
from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.config.recipes import flat, load_config
from bertjax.data.sources.open_source import open_source
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.inference.pretrained import load, model_config
from bertjax.runs.folder import RunFolder
from bertjax.storage.json_lines import JsonLines
from bertjax.storage.locks import locked
from bertjax.storage.paths import url_of, user_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another folder to be in, where nothing may be made."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir(), here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    return folder


def test_a_path_with_and_without(home: Path) -> None:
    assert user_path("~/a/b") == user_path(Path("~/a/b")) == home / "a/b" and user_path("~") == home
    assert [str(user_path(name)) for name in ("a/~/b", "/~", "a~")] == ["a/~/b", "/~", "a~"]
    assert "~nobody-of-us/a: there is no such home folder; give the whole path" in refusal(user_path, "~nobody-of-us/a")


def test_every_key_that_is_a_path(home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("run_dir: ~/run\ninit_from: ~/bert\ndata: {cache: ~/cache, path: ~/texts}\n")
    config = load_config(tmp_path / "r.yaml")
    assert (config.run_dir, config.init_from, config.data.cache) == (f"{home}/run", f"{home}/bert", f"{home}/cache")
    typed = load_config("tiny", ["run_dir=~/run", "init_from=~/bert", "data.cache=~/cache"])
    assert [flat(typed)[key] for key in ("run_dir", "init_from", "data.cache")] == [
        f"{home}/run",
        f"{home}/bert",
        f"{home}/cache",
    ]
    of_python = Config(run_dir="~/run", tokenizer=TokenizerConfig(path="~/t.json"), data=DataConfig(cache="~"))
    assert (of_python.run_dir, of_python.tokenizer.path, of_python.data.cache) == (
        f"{home}/run",
        f"{home}/t.json",
        str(home),
    )
    assert dataclasses.replace(Config(), run_dir="a//b/").run_dir == "a//b/"  # what has no ~ stays as it is


def test_text_in_the_home_folder(home: Path, wikitext: Path) -> None:
    (home / "texts").symlink_to(wikitext)
    for data in (DataConfig(path="~/texts"), DataConfig("files", path="~/texts/wiki.train.tokens:~/texts")):
        source, _ = open_source(data, ["train"], home / "none")
        assert next(iter(source.documents("train")))


def test_folders_of_models(home: Path) -> None:
    for read in (load, model_config, load_tokenizer, lambda folder: RunFolder(folder).config()):
        assert f"{home}/run" in refusal(read, "~/run")


@pytest.mark.parametrize(
    "argv",
    [
        ["encode", "run", "--input", "~/none.txt", "--out", "v.npy"],
        ["encode", "run", "--input", "/dev/null", "--out", "~/none/v.npy"],
        ["encode", "run", "text", "--out", "~/none/v.npy"],
        ["encode", "~/none", "text"],
        ["evaluate", "run", "--json", "~/none/f.json"],
        ["evaluate", "~/none"],
        ["neighbours", "run", "--word", "a", "--text", "a", "--out", "~/none/n.png"],
        ["export", "~/none", "out"],
        ["pretrain", "--config", "~/none.yaml"],
        ["prepare", "--config=~/none.yaml"],
    ],
    ids=" ".join,
)
def test_paths_on_the_command_line(home: Path, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert f"{home}/none" in capsys.readouterr().err and os.listdir() == []


# Links in a folder that is written in.


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "checkpoints", "checkpoints/4", "config.yaml"])
def test_no_run_writes_through_a_link(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "inside").mkdir(parents=True)
    (theirs / "file").write_text("precious")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(theirs if "checkpoints" in name else theirs / "file")
    said = refusal(RunFolder(tmp_path / "run").locked().__enter__)
    assert said.startswith(f"{link} is a symbolic link, and a run writes in its folder alone; ")
    assert (theirs / "file").read_text() == "precious" and len([*theirs.iterdir()]) == 2


def test_a_run_in_a_folder_that_is_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with RunFolder(tmp_path / "run").locked():
        assert (tmp_path / "disk" / "lock").is_file()


@pytest.mark.parametrize("write", [lambda path: locked(path).__enter__(), lambda path: JsonLines(path).append({})])
def test_what_is_made_a_link_later_is_not_written_either(tmp_path: Path, write: Callable[[Path], object]) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "link").symlink_to("theirs")
    with pytest.raises(OSError):
        write(tmp_path / "link")
    assert (tmp_path / "theirs").read_text() == "precious"


# URLs.


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://bucket/run", "memory://run", "s3:/bucket/run"])
def test_a_url_is_refused_before_any_work(
    home: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a folder of this machine is needed, or the package that reads it lacks; no folder gets its name."""
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    whole = url if "://" in url else url.replace(":/", "://")
    why = f"data.cache={whole} is a URL, and this is read and written by paths alone; "
    assert refusal(load_config, "tiny", [f"data.cache={url}"]).startswith(why)
    assert "is a URL" in refusal(user_path, Path(url))
    needed = {"s3": "s3fs, which is not installed: pip install 'bertjax[s3]'", "gs": "gcsfs, which is not installed"}
    for argv in (["encode", url, "text"], ["encode", "run", "--input", url, "--out", "a.npy"]):
        assert main(argv) == 2
        assert needed.get(url[:2], "there is nothing at memory://run") in (err := capsys.readouterr().err), err
    assert not [*Path.cwd().iterdir()]


def test_urls_and_paths() -> None:
    assert [
        url_of(name) for name in ("a/b", "~/s3", "file:///a", "s3://b/c", Path("s3://b/c"), Path("memory://r"))
    ] == [
        *(None, None, None),
        *("s3://b/c", "s3://b/c", "memory://r"),
    ]
    assert user_path("file:///a/b") == user_path("file:/a/b") == user_path(Path("file:///a/b")) == Path("/a/b")
    assert load_config("tiny", ["run_dir=file:///a/b"]).run_dir == "/a/b"
