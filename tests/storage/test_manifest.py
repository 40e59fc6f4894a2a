"""No file of a folder changes without its manifest telling."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from bertjax.errors import BertjaxError
from bertjax.storage.manifest import MANIFEST, damage, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "25"
    (path / "params" / "d").mkdir(parents=True)
    (path / "params" / "d" / "0").write_bytes(bytes(range(256)) * 20)
    (path / "params" / "empty").write_bytes(b"")
    (path / "nämé\n").write_bytes(b"a name may be anything")
    write_manifest(path, 25)
    return path


def test_what_is_as_it_was_is_sound(folder: Path, tmp_path: Path) -> None:
    assert damage(folder, 25) is None
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert damage(tmp_path / "elsewhere", 25) is None
    shutil.rmtree(folder / "params")
    (folder / "param").write_text("")
    assert damage(folder, 25, without=["params"]) == "param does not belong to it"
    (folder / "param").unlink()
    assert damage(folder, 25, without=["params"]) is None
    assert json.loads((tmp_path / "elsewhere" / MANIFEST).read_text())["files"]["params/empty"]["size"] == 0


def test_every_bit_of_a_manifest_counts(folder: Path) -> None:
    manifest = folder / MANIFEST
    sound = manifest.read_bytes()
    for position in range(len(sound)):
        for bit in range(8):
            manifest.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << bit]) + sound[position + 1 :])
            assert damage(folder, 25) == "manifest.json is not as it was written"
    for length in range(len(sound)):
        manifest.write_bytes(sound[:length])
        assert damage(folder, 25) is not None
    assert len(sound) > 300


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_link(file: Path) -> None:
    file.rename(file.with_name("..renamed"))
    file.symlink_to("..renamed")


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("replace", [replace_by_folder, replace_by_link, replace_by_pipe])
def test_only_plain_files_are_sound(folder: Path, replace) -> None:
    for name in ("params/d/0", MANIFEST):
        shutil.copytree(folder, folder.with_name("copy"))
        replace(folder.with_name("copy") / name)
        assert damage(folder.with_name("copy"), 25) is not None
        shutil.rmtree(folder.with_name("copy"))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda folder: (folder / "params" / "d" / "0").unlink(), "params/d/0 is gone"),
        (lambda folder: (folder / "params" / "more").write_text(""), "params/more does not belong to it"),
        (lambda folder: os.truncate(folder / "params" / "d" / "0", 9), "params/d/0 has 9 bytes and had 5120"),
        (lambda folder: (folder / "params" / "empty").write_text("x"), "params/empty has 1 bytes and had 0"),
        (lambda folder: (folder / "nämé\n").write_text("a nbme may be anything"), "holds other bytes than were"),
        (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is gone"),
        (lambda folder: shutil.rmtree(folder), "it is gone"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "manifest.json is gone"),
        (lambda folder: [shutil.rmtree(folder), folder.write_text("")], "it is not a folder"),
        (lambda folder: [folder.rename(f"{folder}x"), folder.symlink_to(f"{folder}x")], "it is not a folder"),
    ],
)
def test_damage_is_told(folder: Path, change, told: str) -> None:
    change(folder)
    assert told in (damage(folder, 25) or "")


def test_another_steps_checkpoint_is_not_this_one(folder: Path) -> None:
    assert damage(folder, 50) == "manifest.json is not as it was written"


def forged(content: dict) -> bytes:
    """A manifest whose own hash is right."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


HASHED = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}


@pytest.mark.parametrize(
    "manifest",
    [
        *(forged({"step": 25, "files": {"x": HASHED, name: HASHED}}) for name in ("/secret", "../secret", "./x", "")),
        *(forged({"step": 25, "files": files}) for files in (None, [], "x", {"x": None}, {"x": []}, {"x": {}})),
        forged({"step": 25, "files": {"x": {**HASHED, "size": True}}}),
        forged({"step": 25, "files": {"x": {**HASHED, "size": 6.0}}}),
        forged({"step": 25, "files": {}, "more": 1}),
        forged({"step": "25", "files": {}}),
        forged({"files": {}}),
        forged({}),
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"sha256": null}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"step": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_a_manifest_is_data(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "25"
    folder.mkdir()
    (folder / "x").write_bytes(b"secret")
    (folder / MANIFEST).write_bytes(manifest)
    assert damage(folder, 25) is not None


def test_the_forgeries_would_pass_if_they_told_the_truth(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"secret")
    (tmp_path / MANIFEST).write_bytes(forged({"step": 25, "files": {"x": HASHED}}))
    assert damage(tmp_path, 25) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_called_damaged(folder: Path) -> None:
    (folder / "params" / "d" / "0").chmod(0)
    with pytest.raises(BertjaxError, match="cannot read .*params/d/0: Permission denied; ask"):
        damage(folder, 25)
