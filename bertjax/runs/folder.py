"""A run's folder. It stands alone: configuration, vocabulary, metrics, environment and checkpoints are in it.

A process may be killed at any time. So a file that is rewritten is written whole under another name first, and
config.yaml, which makes a folder a run's, is written last.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bertjax.config import Config, DistributedConfig, OnFailure
from bertjax.config.recipes import flat, load_config, save_config
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.prepare import Prepared
from bertjax.data.statistics.frequencies import word_counts
from bertjax.data.tokenizer.files import ROLES_FILE, load_tokenizer
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.runs.checkpoints import Checkpoints
from bertjax.runs.tensorboard import Events
from bertjax.storage.json_lines import JsonLines
from bertjax.storage.locks import locked

# What may differ from the run's own configuration when it is resumed: none of it changes a step already made.
# Neither do more steps, but where the learning rate or the masking rate is on its way to the last one's.
_MAY_CHANGE = {"run_dir", "train.log_every", "data.path", "data.cache", "data.fallback", "data.workers"}
_MAY_CHANGE |= {f"distributed.{field.name}" for field in dataclasses.fields(DistributedConfig)}
_MAY_CHANGE |= {"mesh.data", "mesh.fsdp", "mesh.tensor"}
_MAY_CHANGE |= {"eval.every", "checkpoint.every", "checkpoint.keep", "checkpoint.on_failure"}
_MAY_CHANGE |= {"train.max_bad_steps", "train.spike_factor", "logging.tensorboard"}
_PACKAGES = ("bertjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


class Skip(NamedTuple):
    """Batches left out after a step, because the loss rose among them."""

    after_step: int
    batches: int


class RunFolder:
    """The files of a run, by what they mean.

    Args:
      writes: of several processes one writes, to the others writing is nothing.
      on_failure: metrics and checkpoints that cannot be written are an error, or a warning and another try.
      tensorboard: write the metrics as TensorBoard's events too. Raises BertjaxError where that is not installed.
    """

    def __init__(
        self, path: str | Path, *, writes: bool = True, on_failure: OnFailure = "stop", tensorboard: bool = False
    ):
        self.path, self._writes = Path(path), writes
        self.loss_plot = self.path / "loss.png"
        self.lock_file = self.path / "lock"
        self.metrics_file = self.path / "metrics.jsonl"
        self.timings_file = self.path / "timings.jsonl"
        self._on_failure: OnFailure = on_failure
        self._metrics, self._timings = JsonLines(self.metrics_file), JsonLines(self.timings_file)
        self._events = Events(self.path / "tensorboard") if tensorboard and writes else None
        self._config = self.path / "config.yaml"
        self._tokenizer = self.path / "tokenizer.json"
        self._roles = self.path / ROLES_FILE  # of special tokens, which a vocabulary that was read may call anything
        self._environment = self.path / "environment.json"
        self._word_counts = self.path / "word_counts.npy"
        self._skipped = self.path / "skipped.json"
        self._last_step = self.path / "last_step.json"

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
        if there - self._made_first if resume else there:
            raise self._taken(there)

    def create(self, prepared: Prepared) -> None:
        """Makes the folder and writes what a reader of it needs. Raises BertjaxError where it cannot."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self.check_free(resume=True)  # again: of two runs that found it free, the first to lock it has it
            self._tokenizer.write_text(prepared.tokenizer.to_json(), encoding="utf-8")
            self._roles.write_text(json.dumps(prepared.tokenizer.roles, indent=2) + "\n", encoding="utf-8")
            self._environment.write_text(json.dumps(_environment(prepared), indent=2) + "\n", encoding="utf-8")
            np.save(self._word_counts, word_counts(prepared.train, prepared.tokenizer.vocab_size))
            self.rewrite_config(prepared)

    def rewrite_config(self, prepared: Prepared) -> None:
        """The configuration as it is from now on: a resumed run may go further than it first meant to."""
        if not self._writes:
            return
        with self.writing():
            save_config(prepared.config, _unfinished(self._config))
            os.replace(_unfinished(self._config), self._config)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder, which is made if need be. Raises BertjaxError where one is in it."""
        with contextlib.ExitStack() as stack:
            with self.writing():
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.lock_file))
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
    def _made_first(self) -> set[Path]:
        described = {self._tokenizer, self._roles, self._environment, self._word_counts}
        return {self.lock_file, *described, _unfinished(self._config)}

    def _taken(self, there: set[Path]) -> BertjaxError:
        if self.begun or there <= self._made_first:
            go_on = "go on with that run by --resume, or give this one another folder with --run_dir"
        else:
            go_on = "without a config.yaml it is no run to --resume, so give another folder with --run_dir"
        return BertjaxError(f"{self.path} exists and is left as it is; {go_on}")

    def config(self) -> Config:
        """The run's resolved configuration. Raises BertjaxError where this is not a run's folder."""
        if not self._config.is_file():
            raise BertjaxError(f"{self.path} is not a run's folder: it has no config.yaml; give one that has")
        return load_config(self._config)

    def tokenizer(self) -> Tokenizer:
        """The run's vocabulary."""
        return load_tokenizer(self._tokenizer)

    def word_counts(self) -> np.ndarray | None:
        """How often each word is in the training text, int64 [v]; None where the run is of before they were kept.

        Raises BertjaxError where they cannot be read.
        """
        try:
            counts_v = np.load(self._word_counts, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise BertjaxError(f"{self._word_counts} cannot be read: {error}; train anew, or remove it") from error
        expected = (self.tokenizer().vocab_size,)
        if counts_v.shape != expected or counts_v.dtype != np.int64:
            raise BertjaxError(f"{self._word_counts} is not of this run's vocabulary; train anew, or remove it")
        return counts_v

    def checkpoints(self, *, keep: int | None = None) -> Checkpoints:
        """Its checkpoints, to read; with `keep` to write too."""
        return Checkpoints(self.path / "checkpoints", keep=keep, on_failure=self._on_failure)

    def save(self, checkpoints: Checkpoints, step: int, trees: dict[str, Any]) -> None:
        """Starts to save a checkpoint, which vouches for all the lines of metrics up to its step."""
        try:
            self._metrics.flush()
        except OSError as error:
            checkpoints.failed(step, error)
        else:
            checkpoints.save(step, trees)

    def how_to_go_on(self) -> str:
        """Where the newest checkpoint is, without a look into it, and the command that goes on from there."""
        steps = [int(path.name) for path in self.path.glob("checkpoints/*") if path.name.isdecimal()]
        newest = (
            f"the last checkpoint is {self.path / 'checkpoints' / str(max(steps))}" if steps else "no checkpoint yet"
        )
        return f"{newest}; go on with {self.resume_command}"

    @property
    def resume_command(self) -> str:
        name = shlex.quote(str(self.path))
        return f"bertjax pretrain --config {name}/config.yaml --run_dir {name} --resume"

    def latest_step(self, checkpoints: Checkpoints) -> int:
        """The newest sound checkpoint's. Raises BertjaxError where the run has none."""
        step = checkpoints.latest_step()
        if step is None:
            raise BertjaxError(
                f"{self.path} has no checkpoint: the run ended before its first; go on with it by --resume"
            )
        return step

    def check_same(self, prepared: Prepared) -> None:
        """Raises BertjaxError where going on with this configuration or corpus would not be the same run."""
        ours, theirs = flat(prepared.config), flat(self.config())
        same_all_along = (
            prepared.config.optim.schedule == "constant" and prepared.config.data.mlm_probability_end is None
        )
        may_change = _MAY_CHANGE | ({"train.steps"} if same_all_along else set())
        changed = [key for key in ours if ours[key] != theirs[key] and key not in may_change]
        if changed:
            what = ", ".join(f"{key}={ours[key]} (the run has {theirs[key]})" for key in changed)
            raise BertjaxError(f"{self.path} was made with another configuration: {what}; resume with the run's own")
        try:
            made_from = json.loads(self._environment.read_text(encoding="utf-8"))["corpus"]
            digests = [made_from[part]["digest"] for part in ("train", "held_out")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BertjaxError(f"{self._environment} does not tell the run's text: {error!r}; train anew") from error
        for digest, corpus in zip(digests, (prepared.train, prepared.held_out), strict=True):
            if digest != corpus.digest:
                raise BertjaxError(
                    f"{self.path} was made with another text than the {corpus.name} found now; give the same one"
                )

    def append_metrics(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl; numbers that JSON cannot carry become null."""
        self._append(self._metrics, record)

    def append_timings(self, record: dict[str, Any]) -> None:
        """One line of timings.jsonl, apart from the metrics: those are the same whenever the run is made."""
        self._append(self._timings, record)

    def close(self) -> None:
        """Lets go of the files that stay open while metrics are written."""
        if self._events:
            self._events.close()

    def _append(self, lines: JsonLines, record: dict[str, Any]) -> None:
        if not self._writes:
            return
        try:
            if self._events:
                self._events.append(record)
            lines.append(record)
        except OSError as error:
            if self._on_failure == "stop":
                raise
            # The same words each time: Python shows them once.
            message = f"cannot write to {lines.path}: {error.strerror}; its lines are kept until they can be written"
            warnings.warn(message, stacklevel=3)

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl; a kill may have cut the last one short."""
        return self._metrics.read()

    def environment(self) -> dict[str, Any]:
        """What environment.json tells: versions, devices, corpus. Raises BertjaxError where it cannot be read."""
        try:
            return json.loads(self._environment.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{self._environment} cannot be read: {error!r}; train anew") from error

    def newest_evaluation(self) -> dict[str, Any]:
        """The metrics' last line that holds held-out figures; nothing where there is none."""
        return next((line for line in reversed(self.metrics()) if "held_out_mlm_loss" in line), {})

    def has_evaluation(self, step: int) -> bool:
        """Whether the metrics hold the held-out figures of a step."""
        return any(line["step"] == step and "held_out_mlm_loss" in line for line in self.metrics())

    def drop_metrics_after(self, step: int) -> None:
        """Leaves only the lines up to a step: those after it are computed again on resume."""
        if self._writes:
            self._metrics.rewrite([record for record in self.metrics() if record["step"] <= step])
            if self._events:
                self._events.drop_after(step)

    def skips(self) -> list[Skip]:
        """The batches that are left out. Raises BertjaxError where they cannot be read."""
        try:
            skips = [Skip(**record) for record in json.loads(self._skipped.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise BertjaxError(f"{self._skipped} cannot be read: {error!r}; train anew") from error
        if not all(type(number) is int and number >= 0 for skip in skips for number in skip):
            raise BertjaxError(f"{self._skipped} holds what is no count of steps; train anew")
        return skips

    def add_skip(self, skip: Skip) -> None:
        """From now on these batches are left out."""
        records = [dict(skip._asdict()) for skip in (*self.skips(), skip)]
        _unfinished(self._skipped).write_text(json.dumps(records) + "\n", encoding="utf-8")
        os.replace(_unfinished(self._skipped), self._skipped)

    def last_step(self) -> int | None:
        """Where a run with a budget ends; None until that is decided. Raises BertjaxError where it cannot be read."""
        try:
            step = json.loads(self._last_step.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{self._last_step} cannot be read: {error!r}; train anew") from error
        if type(step) is not int or step < 1:
            raise BertjaxError(f"{self._last_step} holds what is no step; train anew")
        return step

    def end_at(self, step: int) -> None:
        """From now on the run ends there."""
        _unfinished(self._last_step).write_text(f"{step}\n", encoding="utf-8")
        os.replace(_unfinished(self._last_step), self._last_step)

    def seconds_spent(self) -> float:
        """Of a run with a budget, as far as timings.jsonl tells."""
        return max((line.get("seconds_spent") or 0.0 for line in self._timings.read()), default=0.0)


def _unfinished(file: Path) -> Path:
    return file.with_suffix(".unfinished")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # bertjax itself, run from its source
        return "not installed"


def _environment(prepared: Prepared) -> dict[str, Any]:
    def described(corpus: Corpus) -> dict[str, Any]:
        return {"name": corpus.name, "digest": corpus.digest, "tokens": corpus.ids.size}

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "corpus": {
            "source": prepared.config.data.source,
            "fallback_because": prepared.instead_of,
            "train": described(prepared.train),
            "held_out": described(prepared.held_out),
        },
    }
