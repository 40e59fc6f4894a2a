"""A corpus whose parts several processes make is the one that a single process makes, byte for byte."""

import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertjax.cli.main import main
from bertjax.config import Config, DataConfig
from bertjax.config.recipes import save_config
from bertjax.data.corpus import building
from bertjax.data.corpus.building import share_of
from bertjax.data.corpus.on_ray import each_done
from bertjax.data.corpus.shard_worker import Done, build_shard
from bertjax.data.prepare import prepare
from bertjax.data.prepare_share import check_parts, prepare_share
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError


@pytest.fixture
def divided(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run on two large files and ten small ones, in parts of 500 bytes; some hold what is no text."""
    monkeypatch.setattr(building, "SHARD_BYTES", 500)
    (texts := tmp_path / "texts").mkdir()
    line = '{"text": "w%d is here .\\nso is w%d ."}\n'
    for name, number in [("a", 200), ("b", 90), *((f"c{number}", 4) for number in range(10))]:
        (texts / f"{name}.jsonl").write_text("{\n" + "".join(line % (one, one % 7) for one in range(number)))
    data = DataConfig(
        *("files", str(texts)), cache=str(tmp_path / "cache"), sentence="line", on_bad="skip", max_length=24, workers=1
    )
    return dataclasses.replace(tiny, data=data)


def in_cache(config: Config, name: str) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, cache=f"{config.data.cache}-{name}"))


def content(config: Config) -> dict[str, bytes]:
    """All files of the cache folder."""
    top = Path(str(config.data.cache))
    return {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*") if file.is_file()}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The parts that are made from here on."""
    made: list[Path] = []

    def counting(folder: Path, *args: Any) -> Done:
        done = build_shard(folder, *args)
        made.extend([] if done.was_there else [folder])
        return done

    monkeypatch.setattr(building, "build_shard", counting)
    return made


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("held_out", [None, "a.jsonl"])
def test_shares_make_what_one_process_makes(divided: Config, built: list[Path], held_out: str | None) -> None:
    if held_out is not None:
        path = f"{divided.data.path}/{held_out}"
        divided = dataclasses.replace(divided, data=dataclasses.replace(divided.data, eval_path=path))
    whole, shares = in_cache(divided, "whole"), in_cache(divided, "shares")
    prepare(whole)
    parts = len(built)
    built.clear()
    with pytest.raises(BertjaxError, match=r"parts of files/\w+ \d+ are missing in .*\.shards: 000000, .*the shares"):
        check_parts(shares)
    told = [prepare_share(shares, index, 3) for index in (2, 0)]
    assert "made now, 0 there before" in told[0] and not built[0].parent.parent.samefile(whole.data.cache or "")
    with pytest.raises(BertjaxError, match="are missing"):
        check_parts(shares)
    assert len(set(built)) == len(built) < parts
    assert ", 0 made now, " in prepare_share(shares, 0, 3)  # given again
    prepare_share(shares, 1, 2)  # and as another number of shares
    prepare_share(shares, 0, 2)
    assert len(set(built)) == len(built) == parts
    check_parts(shares)
    joined = prepare(shares)
    assert len(built) == parts and joined.train.skipped == {"no JSON": 12}
    assert content(shares) == content(whole)
    assert prepare_share(shares, 1, 3) == "share 1/3: nothing to do"
    check_parts(shares)
    assert content(shares) == content(whole)


@pytest.mark.filterwarnings("ignore:skipped")
def test_several_at_once_do_nothing_twice(divided: Config, built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the vocabulary, which all need, nor a part, as two do that are given the same share."""
    trained: list[float] = []

    def train(*args: Any, **how: Any) -> Tokenizer:
        trained.append(time.perf_counter())
        time.sleep(0.3)  # for the others to come
        return original(*args, **how)

    original = Tokenizer.train
    monkeypatch.setattr(Tokenizer, "train", train)
    with ThreadPoolExecutor(3) as threads:
        told = list(threads.map(lambda index: prepare_share(divided, index, 2), (0, 1, 1)))
    assert len(trained) == 1 and len(set(built)) == len(built)
    check_parts(divided)
    made = [int(line.split(" parts, ")[1].split()[0]) for line in told]
    assert sum(made) == len(built) > 5


@pytest.mark.parametrize("of", [1, 3, 20])
def test_each_part_is_of_one_share_and_shares_are_even(of: int) -> None:
    sizes = [90, 5, 30, 30, 30, 0, 12, 40, 1, 33, 10, 7]
    shares = [share_of(sizes, index, of) for index in range(of)]
    assert sorted(sum(shares, [])) == list(range(len(sizes)))
    loads = [sum(sizes[number] for number in share) for share in shares]
    assert max(loads) <= max(max(sizes), sum(sizes) / of * 1.1)


@pytest.mark.filterwarnings("ignore:skipped")
def test_commands(divided: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    save_config(divided, Path(recipe))

    def said(*options: str, code: int = 0) -> str:
        assert main(["prepare", "--config", recipe, *options]) == code
        out, err = capsys.readouterr()
        return "\n".join(line for line in (err if code else out).splitlines() if not line.startswith("warning: "))

    for bad in ("2/2", "0", "-1/2", "a/b", "0/0"):
        assert f"--shard {bad} is no share; give I/N, from 0/N to N-1/N" in said(f"--shard={bad}", code=2)
    assert "give one of the three" in said("--shard", "0/2", "--merge", code=2)
    assert "data.source=wikitext-2 is not divided" in said("--shard", "0/2", "--data.source", "wikitext-2", code=2)
    assert "share 0/2: " in said("--shard", "0/2")
    assert "are missing" in said("--merge", code=2)
    assert "share 1/2: " in said("--shard", "1/2")
    assert "train:    files/train: " in said("--merge")
    assert said("--shard", "1/2").endswith("share 1/2: nothing to do")


class FakeRay:
    """Ray's functions, one task after the other in this process; tests/interop/test_ray.py has the real one."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost = 0  # tasks that it could not bring to an end
        self.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.calls.append("init")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def put(self, value: str) -> str:
        return value

    def remote(self, **options: Any) -> Callable[[Any], SimpleNamespace]:
        return lambda function: SimpleNamespace(remote=lambda *args: lambda: function(*args))

    def wait(self, tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return tasks[-1:], tasks[:-1]

    def get(self, task: Callable[[], Any]) -> Any:
        if self.lost:
            raise self.exceptions.RayError("the worker died\nunexpectedly")
        return task()

    def cancel(self, task: Any) -> None:
        self.calls.append("cancel")


@pytest.mark.filterwarnings("ignore:skipped")
def test_ray_maps_over_the_same_parts(divided: Config, built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(Path(str(divided.data.path)).parent)
    divided = dataclasses.replace(divided, data=dataclasses.replace(divided.data, path="texts", cache="on-ray"))
    ray.lost = 1
    with pytest.raises(BertjaxError, match="Ray: the worker died unexpectedly; .* what is done stays"):
        prepare_share(divided, 0, 1, each=each_done)
    parts = ray.calls.count("cancel") + 1
    assert ray.calls[-1] == "shutdown" and parts > 5
    ray.lost = 0
    assert f": {parts} parts, {parts} made now" in prepare_share(divided, 0, 1, each=each_done)
    joined = prepare(divided)
    assert not built and joined.train.digest == prepare(in_cache(divided, "whole")).train.digest


def test_ray_that_is_not_installed(divided: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BertjaxError, match=r"--engine ray needs ray.*pip install 'bertjax\[ray\]'"):
        next(each_done({}, None))  # type: ignore[arg-type]
