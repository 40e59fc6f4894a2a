"""A run's folder. It stands alone: configuration, vocabulary, metrics, environment and checkpoints are in it.

A process may be killed at any time. So a file that is rewritten is written whole under another name first, and
config.yaml, which makes a folder a run's, is written last.
"""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import numpy as np

from bertjax.config import Config, OnFailure
from bertjax.config.recipes import load_config, save_config
from bertjax.data.questions import Spans
from bertjax.data.tags import Tags
from bertjax.data.targets import Targets, from_json
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.settings import ROLES_FILE
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.runs.checkpoints import Checkpoints
from bertjax.runs.decisions import Decisions
from bertjax.runs.metrics import RunMetrics
from bertjax.storage.atomic import atomic_write, unfinished
from bertjax.storage.lease import LEASE
from bertjax.storage.locks import locked
from bertjax.storage.paths import check_no_links, user_path

_PACKAGES = ("bertjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")

FITTED = ("temperature", "threshold")  # what a run may keep by `RunFolder.keep_fitted`
_OF_INPUTS = ("word_counts.npy", "labels.json", "sentence")


class Split(Protocol):
    """What a run trains on, or holds out."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Changes whenever its text does."""


class Inputs(Protocol):
    """What a run reads, of whatever kind it is: a NamedTuple."""

    @property
    def config(self) -> Config:
        """The run's configuration, with all that what is read decides."""

    def _replace(self, *, config: Config) -> Self: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def train(self) -> Split: ...

    @property
    def held_out(self) -> Split: ...

    def told(self) -> dict[str, Any]:
        """Returns what environment.json is to tell, among it the `digest` of `train` and of `held_out`."""

    def files(self) -> dict[str, bytes]:
        """Returns files that the run's folder is to have, of the names `_OF_INPUTS` or in folders of those."""


class RunFolder:
    """The files of a run, by what they mean: built once in a run, and handed down.

    `metrics` and `decisions` are what grows while it runs.

    Args:
      writes: of several processes one writes, to the others writing is nothing.
      on_failure: metrics and checkpoints that cannot be written are an error, or a warning and another try.
      tensorboard: write the metrics as TensorBoard's events too.
      command: the one that made the run, or makes it.
      url: where it is published, and by what, after each checkpoint.

    Raises:
      BertjaxError: TensorBoard's events are asked for and tensorboardX is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        writes: bool = True,
        on_failure: OnFailure = "stop",
        tensorboard: bool = False,
        command: str = "pretrain",
        url: str | None = None,
        publish: Callable[[], None] = lambda: None,
    ):
        self.url, self.publish = url, publish
        self.path, self.writes, self.on_failure, self._command = user_path(path), writes, on_failure, command
        self.metrics = RunMetrics(self.path, writes=writes, on_failure=on_failure, tensorboard=tensorboard)
        self.decisions = Decisions(self.path)
        self.checkpoint_folder = self.path / "checkpoints"
        self.loss_plot = self.path / "loss.png"
        self.report = self.path / "report.html"
        self.lock_file = self.path / "lock"
        self.check_held: Callable[[], None] = lambda: None  # raises Lost where another run has the folder
        self.environment_file = self.path / "environment.json"
        self._config = self.path / "config.yaml"
        self._tokenizer = self.path / "tokenizer.json"
        self._roles = self.path / ROLES_FILE  # of special tokens, which a vocabulary that was read may call anything
        self._word_counts = self.path / "word_counts.npy"

    @property
    def place(self) -> str:
        """Where commands find it: its URL if it has one, else its path."""
        return self.url or str(self.path)

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return self._config.is_file()

    def check_free(self, *, resume: bool = False) -> None:
        """Raises BertjaxError where something is there already.

        Args:
          resume: what a start leaves that is killed while it makes the folder does not count.
        """
        if self.path.exists() and not self.path.is_dir():
            raise BertjaxError(f"{self.path} is a file and is left as it is; give another folder with --run_dir")
        there = set(self.path.iterdir()) if self.path.exists() else set()
        if there - (self._made_first if resume else self._of_lock):
            raise self._taken(there)

    def create(self, prepared: Inputs) -> None:
        """Makes the folder and writes what a reader of it needs. Raises BertjaxError where it cannot."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self.check_free(resume=True)  # again: of two runs that found it free, the first to lock it has it
            self._tokenizer.write_text(prepared.tokenizer.to_run_json(), encoding="utf-8")
            self._roles.write_text(json.dumps(prepared.tokenizer.roles, indent=2) + "\n", encoding="utf-8")
            self.environment_file.write_text(json.dumps(_environment(prepared), indent=2) + "\n", encoding="utf-8")
            for name, content in prepared.files().items():
                assert name.partition("/")[0] in _OF_INPUTS
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).write_bytes(content)
            self.rewrite_config(prepared)

    def undo_create(self) -> None:
        """Removes what `create` has made, but for the lock, which is held; nothing where there is more."""
        if not self.writes:
            return
        with contextlib.suppress(OSError):
            self.checkpoint_folder.rmdir()  # where it is empty
        with contextlib.suppress(OSError):
            if not self.metrics.file.stat().st_size:
                self.metrics.file.unlink()
        if set(self.path.iterdir()) - self._made_first - {self._config}:
            return
        for file in (self._config, *self._made_first - self._of_lock):  # in this order, should it be killed
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)

    def rewrite_config(self, prepared: Inputs) -> None:
        """Writes the configuration as it is from now on: a resumed run may go further than it first meant to."""
        if not self.writes:
            return
        with self.writing():
            save_config(prepared.config, self._config)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder, which is made if need be, and everything that is written in it.

        Raises:
          BertjaxError: another run is in it, or a symbolic link, by which writing would change what is elsewhere.
        """
        with contextlib.ExitStack() as stack:
            with self.writing():
                self.path.mkdir(parents=True, exist_ok=True)
                check_no_links(self.path)
                self.check_held = stack.enter_context(locked(self.lock_file))
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a full disk or a missing permission into a BertjaxError."""
        try:
            yield
        except OSError as error:
            remedy = "make room or give another folder with --run_dir"
            raise BertjaxError(f"cannot write to {error.filename or self.path}: {error.strerror}; {remedy}") from error

    @property
    def _of_lock(self) -> set[Path]:
        lease = self.path / LEASE
        return {self.lock_file, lease, unfinished(lease)}

    @property
    def _made_first(self) -> set[Path]:
        described = {self._tokenizer, self._roles, self.environment_file, *(self.path / name for name in _OF_INPUTS)}
        # The last is what older versions called the unfinished configuration.
        return self._of_lock | {*described, unfinished(self._config), self._config.with_suffix(".unfinished")}

    def _taken(self, there: set[Path]) -> BertjaxError:
        if self.begun or there <= self._made_first:
            go_on = "go on with that run by --resume, or give this one another folder with --run_dir"
        else:
            go_on = "without a config.yaml it is no run to --resume, so give another folder with --run_dir"
        return BertjaxError(f"{self.path} exists and is left as it is; {go_on}")

    def config(self) -> Config:
        """Returns the run's resolved configuration. Raises BertjaxError where this is not a run's folder."""
        if not self._config.is_file():
            raise BertjaxError(f"{self.path} is not a run's folder: it has no config.yaml; give one that has")
        return load_config(self._config)

    def tokenizer(self) -> Tokenizer:
        """Returns the run's vocabulary."""
        return load_tokenizer(self._tokenizer)

    def targets(self) -> Targets:
        """Returns the labels that a fine-tuned run tells, by their numbers, or how its numbers lie.

        Raises BertjaxError where they cannot be read.
        """
        file = self.path / "labels.json"
        try:
            return from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{file} cannot be read: {error!r}; train anew") from error

    def tags(self) -> Tags:
        """Returns the tags that a run of task.kind=tag tells, by their numbers.

        Raises BertjaxError where they cannot be read.
        """
        file = self.path / "labels.json"
        try:
            return Tags.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{file} cannot be read: {error!r}; train anew") from error

    def spans(self) -> Spans:
        """Returns how a run of task.kind=answer looks for answers."""
        task = self.config().task
        return Spans(task.stride, task.max_answer, self.fitted("threshold"))

    def fitted(self, name: str) -> float | None:
        """Returns a number that was fitted to the held-out examples when the run ended; None where it has kept none.

        It is what logits are to be divided by for probabilities as sure as they are right ("temperature"), or by how
        much "no answer" must be ahead ("threshold"). Raises BertjaxError where it cannot be read.
        """
        file = self.path / f"{name}.json"
        try:
            return float(json.loads(file.read_text(encoding="utf-8"))[name])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BertjaxError(f"{file} cannot be read: {error!r}; remove it") from error

    def keep_fitted(self, name: str, value: float) -> None:
        """Writes what `fitted` returns."""
        if self.writes:
            with self.writing(), atomic_write(self.path / f"{name}.json") as file:
                file.write(json.dumps({name: value}) + "\n")

    def word_counts(self) -> np.ndarray | None:
        """Returns how often each word is in the training text, int64 [v]; None where a run is older than that.

        Raises BertjaxError where they cannot be read.
        """
        try:
            # Mapped, an array is no longer than its file, whatever its header says.
            with np.errstate(over="raise"):
                counts_v = np.array(np.load(self._word_counts, allow_pickle=False, mmap_mode="r"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, FloatingPointError) as error:
            raise BertjaxError(f"{self._word_counts} cannot be read: {error}; train anew, or remove it") from error
        expected = (self.tokenizer().vocab_size,)
        if counts_v.shape != expected or counts_v.dtype != np.int64:
            raise BertjaxError(f"{self._word_counts} is not of this run's vocabulary; train anew, or remove it")
        return counts_v

    def checkpoints(self) -> Checkpoints:
        """Returns its checkpoints, to read."""
        return Checkpoints(self.checkpoint_folder)

    def how_to_go_on(self) -> str:
        """Tells where the newest checkpoint is, without a look into it, and the command that goes on from there."""
        steps = [int(path.name) for path in self.path.glob("checkpoints/*") if path.name.isdecimal()]
        newest = (
            f"the last checkpoint is {self.path / 'checkpoints' / str(max(steps))}" if steps else "no checkpoint yet"
        )
        return f"{newest}; go on with {self.resume_command}"

    @property
    def resume_command(self) -> str:
        name = shlex.quote(self.place)
        return f"bertjax {self._command} --config {name}/config.yaml --run_dir {name} --resume"

    def environment(self) -> dict[str, Any]:
        """Returns what environment.json tells: versions, devices, corpus. Raises BertjaxError where that fails."""
        try:
            return json.loads(self.environment_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{self.environment_file} cannot be read: {error!r}; train anew") from error

    def digests(self) -> tuple[str, str]:
        """Returns the digests of the text that it trains on and of the one held out.

        Raises BertjaxError where environment.json does not tell them.
        """
        try:
            corpora = self.environment()["corpus"]
            return corpora["train"]["digest"], corpora["held_out"]["digest"]
        except (KeyError, TypeError) as error:
            file = self.environment_file
            raise BertjaxError(f"{file} does not tell the run's text: {error!r}; train anew") from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # bertjax itself, run from its source
        return "not installed"


def _environment(prepared: Inputs) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "corpus": prepared.told(),
    }
