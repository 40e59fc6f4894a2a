"""The folder of downloads and of what is derived from them."""

import signal
import subprocess
import sys
from pathlib import Path

from bertjax.storage.cache import building_in, cache_folder


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/bertjax")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/bertjax")


BUILD = """
import sys, time
from pathlib import Path
from bertjax.storage.cache import building_in
with building_in(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_only_what_a_killed_builder_left_is_removed(tmp_path):
    builder = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    its_folder = Path(builder.stdout.readline().strip())
    with building_in(tmp_path) as folder:
        assert folder.is_dir() and (its_folder / "half").exists()
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert (its_folder / "half").exists()
    with building_in(tmp_path) as folder:
        assert not its_folder.exists()
    assert list(tmp_path.iterdir()) == []
