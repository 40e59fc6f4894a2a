"""A corpus that a real Ray of two workers builds, one of which is killed: byte for byte that of one process."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from bertjax.data.corpus import building
from bertjax.data.corpus.building import load_or_build_files, parts_of
from bertjax.data.corpus.on_ray import each_done
from bertjax.data.sources.files import UserFiles, fingerprint
from bertjax.data.sources.formats import LAYOUT
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # or Ray writes a token into the user's home
ray = pytest.importorskip("ray", reason="ray is not installed")
# Its forks become other programs at once, and tests before these have used JAX.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork")
TOKENIZER = Tokenizer.train([" ".join(f"w{number}" for number in range(50))], min_frequency=1)


def content(cache: Path) -> dict[str, bytes]:
    return {str(file.relative_to(cache)): file.read_bytes() for file in cache.rglob("*") if file.is_file()}


def busy() -> list[int]:
    """The processes of Ray's that build a shard."""
    titles = {int(path.parent.name): path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [process for process, title in titles.items() if title.startswith(b"ray::") and b"build" in title]


def test_one_of_two_workers_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "SHARD_BYTES", 400_000)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\n\n".join(f"w{number % 50} w{number % 7} .\nw1 {number} ." for number in range(150_000)))
    files = UserFiles((found := (Path("a.txt"),)), LAYOUT, fingerprint(found, LAYOUT), divided=True)
    whole = load_or_build_files(Path("whole"), files, "train", TOKENIZER, workers=1)
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda init=ray.init, **options: init(num_cpus=2, **options))
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for process in busy()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    (killer := threading.Thread(target=kill)).start()
    parts = parts_of(Path("on-ray"), files, "train", TOKENIZER)
    all_done = building.build_share(parts, "train", 0, 1, each=each_done)
    killer.join()
    assert len(killed) == 1 and len(all_done) == len(parts.plan()) > 4
    assert signal.getsignal(signal.SIGTERM) == handler and not ray.is_initialized()
    assert load_or_build_files(Path("on-ray"), files, "train", TOKENIZER, workers=1).digest == whole.digest
    assert content(Path("on-ray")) == content(Path("whole"))


def test_what_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{")
    found = (tmp_path / "a.jsonl",)
    files = UserFiles(found, LAYOUT, fingerprint(found, LAYOUT), divided=True)
    with pytest.raises(BertjaxError, match=r"a\.jsonl.*data\.on_bad: skip"):
        building.build_share(parts_of(tmp_path / "cache", files, "train", TOKENIZER), "train", 0, 1, each=each_done)
