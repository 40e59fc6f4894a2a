"""A run at s3://, by s3fs, on a server that speaks S3: moto's, on loopback.

make test-interop does not install them: botocore wants a python-dateutil older than the one in constraints.txt.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from refusals import refusal

from bertjax import pretrain
from bertjax.config import CheckpointConfig, Config
from bertjax.inference.pretrained import load
from bertjax.storage import lease
from bertjax.storage.hub_models import model_folder
from bertjax.storage.remote import Absent, Remote
from bertjax.storage.snapshots import newest

s3fs = pytest.importorskip("s3fs", reason="it is not installed; pip install s3fs 'moto[server]'")
moto_server = pytest.importorskip("moto.server", reason="it is not installed; pip install s3fs 'moto[server]'")

pytestmark = pytest.mark.filterwarnings("default")  # of packages that are not ours

URL = "s3://bucket/runs/first"


class Killed(BaseException):
    """Stands for kill -9 in the middle of an upload."""


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with a bucket, where botocore looks for one; heartbeats are quick."""
    for name, seconds in (("BEAT", 0.5), ("PATIENCE", 3.0), ("SETTLE", 0.1)):
        monkeypatch.setattr(lease, name, seconds)
    made = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    told = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in {**told, "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    yield
    s3fs.S3FileSystem.clear_instance_cache()
    made.stop()


def test_files_are_as_remote_says(tmp_path: Path) -> None:
    remote = Remote("s3://bucket/folder", write=True)
    assert not remote.exists() and not remote.listing()
    remote.write(b"One.", "a", new=True)
    with pytest.raises(FileExistsError):
        remote.write(b"Two.", "a", new=True)
    assert remote.read("a") == b"One."
    large = tmp_path / "large"
    large.write_bytes(np.random.default_rng(0).bytes(20_000_000))  # of two blocks
    remote.upload(large, "b/large")
    assert {name: info.size for name, info in remote.listing().items()} == {"a": 4, "b/large": 20_000_000}
    remote.download(tmp_path / "again", "b/large")
    assert (tmp_path / "again").read_bytes() == large.read_bytes()
    remote.remove("a"), remote.remove("a")
    with pytest.raises(Absent):
        remote.read("a")
    assert "there is nothing at s3://absent/run" in refusal(Remote("s3://absent/run").info)


def test_a_run_is_killed_and_goes_on_elsewhere(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(tiny, checkpoint=CheckpointConfig(every=2, keep=1))
    whole, there = pretrain(config), dataclasses.replace(config, run_dir=URL)
    write, manifests = Remote.write, []

    def kill(remote: Remote, content: bytes, name: str = "", *, new: bool = False) -> None:
        if name == "manifest.json":
            manifests.append(name)
            if len(manifests) > 1:
                raise Killed
        write(remote, content, name, new=new)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Remote, "write", kill)
        pretrain(there)
    Remote(URL, write=True).write(b'{"holder": "process 1 on another"}', "lease.json")
    assert "exists and is left as it is" in refusal(pretrain, there)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    elsewhere = dataclasses.replace(there.data, cache=str(tmp_path / "elsewhere"))
    pretrain(dataclasses.replace(there, data=elsewhere), resume=True)
    assert (model_folder(URL) / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, load(URL).params, load(whole).params)
    snapshot = newest(Remote(URL))
    assert snapshot is not None
    objects = {f"objects/{sha}" for sha in snapshot.hashes}
    assert Remote(URL).listing().keys() == {"manifest.json", "config.yaml", *objects}
