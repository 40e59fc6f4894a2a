"""Manifests: the size and hash of every file in a folder, by which a reader knows that nothing has changed since.

Names in a manifest are never opened. They are only compared with the names of the files found in the folder.
"""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import sync_folder

MANIFEST = "manifest.json"
_MOST_BYTES = 2**24  # read of a manifest at most: 80,000 files


def write_manifest(folder: Path, step: int) -> None:
    """Describes every file of a folder as it is now, and forces files and manifest to the disk.

    Not atomic: the folder is no checkpoint until it is renamed.

    Args:
      folder: has no manifest yet.
      step: whose checkpoint it is.

    Raises:
      OSError: the disk is full, or something in the folder is not a plain file.
    """
    files = {}
    for name in _sizes(folder):
        with open(folder / name, "rb") as file:
            files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": file.tell()}
            os.fsync(file.fileno())
    with open(folder / MANIFEST, "x", encoding="ascii") as manifest:
        manifest.write(_text({"step": step, "files": files}))
        manifest.flush()
        os.fsync(manifest.fileno())
    for inside, _, _ in os.walk(folder):
        sync_folder(Path(inside))


def damage(folder: Path, step: int, *, without: Collection[str] = ()) -> str | None:
    """Tells how a folder differs from what was written as that step's checkpoint. Reads all of it.

    Args:
      without: folders in it that are not read, and need not be there.

    Returns:
      a clause such as "params/0 is gone"; None where nothing differs.

    Raises:
      BertjaxError: this user may not read it, which says nothing about what is in it.
    """
    try:
        if not os.path.lexists(folder):
            return "it is gone"
        if folder.is_symlink() or not folder.is_dir():
            return "it is not a folder"
        sizes = _sizes(folder)
        if sizes.pop(MANIFEST, None) is None:
            return f"{MANIFEST} is gone"
        files = _read(folder / MANIFEST, step)
        if files is None:
            return f"{MANIFEST} is not as it was written"
        read = [name for name in sorted(files.keys() | sizes.keys()) if name.partition("/")[0] not in without]
        for name in read:
            if name not in sizes:
                return f"{name} is gone"
            if name not in files:
                return f"{name} does not belong to it"
            if sizes[name] != files[name]["size"]:
                return f"{name} has {sizes[name]} bytes and had {files[name]['size']}"
        for name in read:
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != files[name]["sha256"]:
                    return f"{name} holds other bytes than were written"
    except PermissionError as error:
        raise BertjaxError(f"cannot read {error.filename}: {error.strerror}; ask its owner for permission") from error
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of all files in a folder and below, by name from there on. Raises OSError for links, pipes and such."""
    found, folders = {}, [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    found[prefix + entry.name] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise OSError(0, "it is not a plain file", entry.path)
    return found


def _read(path: Path, step: int) -> dict[str, dict[str, Any]] | None:
    """Returns what a manifest says of each file; None where it is not, to the byte, as written for that step."""
    with open(path, "rb") as file:
        encoded = file.read(_MOST_BYTES)
    try:
        text = encoded.decode("ascii")
        content = json.loads(text)
        del content["sha256"]
        if text != _text(content) or content.keys() != {"step", "files"} or content["step"] != step:
            return None
        for described in content["files"].values():
            if described.keys() != {"sha256", "size"} or type(described["size"]) is not int:
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # some other JSON, or none
        return None
    return content["files"]


def _text(content: dict[str, Any]) -> str:
    """Returns the one way to write a manifest, in which is the hash of its rest."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()
    return json.dumps({**content, "sha256": digest}, sort_keys=True, indent=1) + "\n"
