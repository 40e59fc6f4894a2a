"""Uploads a folder that `export` made to the hub, by huggingface_hub, with the token of its own login."""

from pathlib import Path
from typing import Any, NamedTuple

from bertjax.errors import BertjaxError
from bertjax.storage.hub_models import is_name

_LOG_IN = "log in by 'hf auth login' or HF_TOKEN, with a token that may write"


class Upload(NamedTuple):
    """What would be uploaded, and where to."""

    repository: str  # ORG/NAME
    hub: str  # its address
    exists: bool | None  # None: the hub could not be asked
    sizes: dict[str, int]  # in bytes, of each file by its path

    def described(self, *, private: bool | None) -> str:
        """Returns lines that tell of it.

        Args:
          private: what a new repository is to be; None leaves it to the owner's settings.
        """
        kinds = {None: "as its owner's settings have it", True: "private", False: "public"}
        there = {
            None: f"{self.hub} cannot be asked whether it is there",
            True: "it is there, and keeps its files' old versions in its history, and its visibility",
            False: f"a new repository, {kinds[private]}",
        }[self.exists]
        width = max(map(len, self.sizes))
        lines = [f"  {name:<{width}}  {size / 1e6:12,.3f} MB" for name, size in self.sizes.items()]
        total = f"  {'in all':<{width}}  {sum(self.sizes.values()) / 1e6:12,.3f} MB"
        return "\n".join([f"{self.hub}/{self.repository}: {there}", *lines, total])


def check_repository(name: str) -> None:
    """Raises BertjaxError where a model cannot have this name on the hub."""
    if not is_name(name):
        raise BertjaxError(
            f"{name!r} is no name of a model on the hub; give ORG/NAME of letters, digits, '-', '_' and '.'"
        )


def plan_upload(folder: Path, repository: str) -> Upload:
    """Returns what would be uploaded. Nothing is changed; a hub that cannot be asked is no error."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    exists: bool | None
    try:
        exists = HfApi().repo_exists(repository)
    except (HTTPError, OfflineModeIsEnabled):
        exists = None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return Upload(repository, constants.ENDPOINT, exists, sizes)


def upload(folder: Path, repository: str, *, private: bool | None) -> str:
    """Uploads all files of a folder in a commit, to a repository that is made where there is none.

    Args:
      private: of a new repository; None leaves it to the owner's settings.

    Returns:
      The commit's address.

    Raises:
      BertjaxError: we are not logged in, may not write there, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants, errors

    check_login()
    api, where = HfApi(library_name="bertjax"), f"{constants.ENDPOINT}/{repository}"
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit: Any = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload a model trained with bertjax"
        )
    except errors.OfflineModeIsEnabled:
        raise BertjaxError(f"HF_HUB_OFFLINE is set, so nothing is sent to {where}; unset it") from None
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        response = getattr(error, "response", None)
        denied = response is not None and response.status_code in (401, 403)
        reason, remedy = " ".join(str(error).split()), _LOG_IN if denied else "try again: what is there stays"
        raise BertjaxError(f"cannot upload to {where}: {reason}; {remedy}") from None
    return str(commit.commit_url)


def check_login() -> None:
    """Raises BertjaxError where there is no token."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise BertjaxError(f"there is no token for the hub; {_LOG_IN}")
