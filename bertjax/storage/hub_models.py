"""Names of models: a folder here or at a URL, or ORG/NAME on the hub, fetched into huggingface_hub's cache.

That library follows HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE. Only JSON, text and safetensors are fetched, and
a file is used only where its bytes are those that the hub lists.
"""

import fnmatch
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.storage.fetch import fetched
from bertjax.storage.paths import url_of, user_path
from bertjax.storage.snapshots import fetched_snapshot

_NAME = re.compile(r"(?P<repository>[^/@~.][^/@]*/[^/@]+)(?:@(?P<revision>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_FILES = (
    "config.json",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *("[0-9]_*/config.json", "[0-9]_*/model.safetensors"),  # modules of sentence-transformers
    "README.md",
    *_WEIGHTS,
)
_OF_RUN = ("config.yaml", "*.jsonl", "*.json", "word_counts.npy", "sentence/*", "checkpoints/[0-9]*")
_OF_TRAINING = ("checkpoints/*/opt_state/*",)  # the optimiser's state, which no reader needs


def model_folder(name: str | os.PathLike[str]) -> Path:
    """Returns the folder of a model: the one here, if there is one, else that of ORG/NAME or ORG/NAME@REVISION.

    Args:
      name: a path, a URL, or a name on the hub; a revision is a branch, a tag or a commit.

    Raises:
      BertjaxError: there is no such model, it is kept from us, the hub cannot be reached and its cache lacks the model,
        its weights are no safetensors, or a file did not come as the hub lists it.
    """
    there = _on_hub(name)
    if (url := url_of(name)) is not None:
        run = fetched_snapshot(url, needed=lambda file: not _matches(file, _OF_TRAINING))
        return run or fetched(name, keep=_is_read)
    if there is None:
        return user_path(name)
    from huggingface_hub import constants

    repository, revision = there
    commit = _commit(repository, revision)
    return _fetched(repository, commit, constants.HF_HUB_CACHE)


def pinned(name: str) -> str:
    """Returns a name on the hub as ORG/NAME@COMMIT, so that it means the same later; a path as it is.

    Raises:
      BertjaxError: as of `model_folder`.
    """
    there = _on_hub(name)
    return name if there is None else f"{there[0]}@{_commit(*there)}"


def same_model(name: str, pinned_name: str) -> bool:
    """Returns whether a name is that of a pinned one, which may have another commit where the name has none."""
    asked, found = _NAME.fullmatch(name), _NAME.fullmatch(pinned_name)
    if name == pinned_name or asked is None or found is None:
        return name == pinned_name
    return asked["repository"] == found["repository"] and not _COMMIT.fullmatch(asked["revision"] or "")


def is_name(text: str) -> bool:
    """Returns whether a model on the hub can have this name, ORG/NAME without a revision."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    match = _NAME.fullmatch(text)
    return match is not None and match["revision"] is None


def public_name(name: str) -> str:
    """Returns a pinned name on the hub as it is, and of a path, which tells of this machine, the last part alone."""
    match = _NAME.fullmatch(name)
    return name if match and _COMMIT.fullmatch(match["revision"] or "") else Path(name).name


def _on_hub(name: str | os.PathLike[str]) -> tuple[str, str | None] | None:
    """Returns repository and revision where this is no path of something here, and a name that the hub could have."""
    match = _NAME.fullmatch(os.fspath(name))
    if match is None or os.path.lexists(os.fspath(name)) or url_of(name) is not None:
        return None
    return match["repository"], match["revision"]


def _commit(repository: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, constants

    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    with _explained(repository, revision):
        offline = constants.is_offline_mode()
        return HfApi().resolve_revision(repository, revision=revision, local_files_only=offline).resolved


@functools.cache
def _fetched(repository: str, commit: str, cache: str) -> Path:
    """Fetches what lacks, and returns the folder. It is hashed once a process: no commit ever changes."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    with _explained(repository, commit):
        folder = Path(snapshot_download(repository, revision=commit, cache_dir=cache, allow_patterns=list(_FILES)))
        try:
            listed = get_cached_repo_tree(repository, revision=commit, cache_dir=cache)
        except CachedRepoTreeNotFoundError:  # fetched by an older version, and offline
            listed = []
    _check_weights(repository, [file.path for file in listed])
    for file in listed:
        if _matches(file.path, _FILES) and not _is_as_listed(folder, file):
            (folder / file.path).resolve().unlink(missing_ok=True)
            (folder / file.path).unlink(missing_ok=True)
            raise BertjaxError(
                f"{repository}: {file.path} did not come as the hub lists it, and is removed from {cache}; try again"
            )
    return folder


def _is_read(name: str) -> bool:
    """Returns whether a file of a folder at a URL is one that a model is read from."""
    return _matches(name, (*_FILES, *_OF_RUN)) and not _matches(name, _OF_TRAINING)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _check_weights(repository: str, names: list[str]) -> None:
    if not names or any(_matches(name, _WEIGHTS) for name in names):
        return
    others = [name for name in names if name.endswith((".bin", ".h5", ".msgpack", ".onnx", ".gguf"))]
    has = f"its weights as {others[0]}" if others else "no weights"
    raise BertjaxError(f"{repository} has {has}, and safetensors is needed; give a model that has model.safetensors")


def _is_as_listed(folder: Path, file: Any) -> bool:
    """Returns whether a file has the size and the hash by which the hub lists it: LFS's SHA-256, or git's SHA-1."""
    path = folder / file.path
    if path.stat().st_size != file.size:
        return False
    with open(path, "rb") as opened:
        if file.lfs is not None:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.lfs.sha256
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        return hashlib.file_digest(opened, lambda: digest).hexdigest() == file.blob_id


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises into a BertjaxError of one line."""
    from huggingface_hub import constants, errors

    name, hub, log_in = repository, constants.ENDPOINT, "log in by 'hf auth login' or HF_TOKEN"
    try:
        yield
    except errors.HFValidationError:
        raise BertjaxError(
            f"{name} is no folder here, and no name of a model: ORG/NAME of letters, digits, '-', '_' and '.'; "
            "give one or the other"
        ) from None
    except errors.GatedRepoError:
        raise BertjaxError(f"{name} is gated; accept its terms at {hub}/{name}, and {log_in}") from None
    except errors.RepositoryNotFoundError:
        raise BertjaxError(
            f"{name} is no folder here, and {hub} shows no such model; put the name right, or if it is private {log_in}"
        ) from None
    except errors.RevisionNotFoundError:
        raise BertjaxError(f"{name} has no revision {revision!r}; give a branch, tag or commit that it has") from None
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError):
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{hub} cannot be reached"
        raise BertjaxError(
            f"{name} is no folder here nor whole in {constants.HF_HUB_CACHE}, and {why}; give a folder, or a network"
        ) from None
    except (errors.HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BertjaxError(f"{name} cannot be fetched from {hub}: {reason}; try again") from None
