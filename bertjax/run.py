"""A run's folder. It stands alone: configuration, vocabulary, metrics, environment and checkpoints are in it."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax.checkpoint import Checkpoints
from bertjax.config import Config
from bertjax.data.corpus import Corpus
from bertjax.data.prepare import Prepared
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.model import Bert, params_template
from bertjax.recipe import flat, load_config, save_config
from bertjax.sharding import by_name, with_sharding

# What may differ from the run's own configuration when it is resumed: none of it changes a step already made.
# Neither do more steps, but where the learning rate falls towards the last one.
_MAY_CHANGE = {"run_dir", "train.log_every", "data.path", "data.cache", "data.fallback"}
_MAY_CHANGE |= {"eval.every", "checkpoint.every", "checkpoint.keep"}
_MAY_CHANGE |= {"mesh.data", "mesh.fsdp", "mesh.tensor"}
_PACKAGES = ("bertjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


class RunFolder:
    """The files of a run, by what they mean."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.loss_plot = self.path / "loss.png"
        self.metrics_file = self.path / "metrics.jsonl"
        self._config = self.path / "config.yaml"
        self._tokenizer = self.path / "tokenizer.json"
        self._environment = self.path / "environment.json"

    def check_free(self) -> None:
        """Raises BertjaxError where something is there already."""
        if self.path.exists() and not self.path.is_dir():
            raise BertjaxError(f"{self.path} is a file and is left as it is; give another folder with --run_dir")
        if self.path.exists() and any(self.path.iterdir()):
            raise self._taken()

    def create(self, prepared: Prepared) -> None:
        """Makes the folder and writes what a reader of it needs. Raises BertjaxError where it cannot."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._config.touch(exist_ok=False)  # of two runs that found the folder free, one has it
            except FileExistsError as error:
                raise self._taken() from error
            save_config(prepared.config, self._config)
            self._tokenizer.write_text(prepared.tokenizer.to_json(), encoding="utf-8")
            self._environment.write_text(json.dumps(_environment(prepared), indent=2) + "\n", encoding="utf-8")

    def rewrite_config(self, prepared: Prepared) -> None:
        """The configuration as it is from now on: a resumed run may go further than it first meant to."""
        with self.writing():
            save_config(prepared.config, self._config.with_suffix(".unfinished"))
            os.replace(self._config.with_suffix(".unfinished"), self._config)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a full disk or a missing permission into a BertjaxError."""
        try:
            yield
        except OSError as error:
            remedy = "make room or give another folder with --run_dir"
            raise BertjaxError(f"cannot write to {error.filename or self.path}: {error.strerror}; {remedy}") from error

    def _taken(self) -> BertjaxError:
        if self.path.joinpath("checkpoints").is_dir():
            go_on = "go on with that run by --resume, or give this one another folder with --run_dir"
        else:
            go_on = "it has no checkpoint to --resume from, so give this run another folder with --run_dir or remove it"
        return BertjaxError(f"{self.path} exists and is left as it is; {go_on}")

    def config(self) -> Config:
        """The run's resolved configuration. Raises BertjaxError where this is not a run's folder."""
        if not self._config.is_file():
            raise BertjaxError(f"{self.path} is not a run's folder: it has no config.yaml; give one that has")
        return load_config(self._config)

    def tokenizer(self) -> Tokenizer:
        """The run's vocabulary."""
        return Tokenizer.load(self._tokenizer)

    def checkpoints(self, *, keep: int | None = None) -> Checkpoints:
        """Its checkpoints, to read; with `keep` to write too."""
        return Checkpoints(self.path / "checkpoints", keep=keep)

    def latest_step(self, checkpoints: Checkpoints) -> int:
        """The newest checkpoint's. Raises BertjaxError where the run has none."""
        step = checkpoints.latest_step()
        if step is None:
            raise BertjaxError(f"{self.path} has no checkpoint: the run ended before its first; train it anew")
        return step

    def load_params(self, model: Bert, mesh: Mesh) -> dict[str, Any]:
        """The newest checkpoint's parameters. Raises BertjaxError where the run has none."""
        template = params_template(model)
        template = with_sharding(template, by_name(template, mesh))
        with self.checkpoints() as checkpoints:
            return checkpoints.restore(self.latest_step(checkpoints), {"params": template})["params"]

    def check_same(self, prepared: Prepared) -> None:
        """Raises BertjaxError where going on with this configuration or corpus would not be the same run."""
        ours, theirs = flat(prepared.config), flat(self.config())
        may_change = _MAY_CHANGE | ({"train.steps"} if prepared.config.optim.schedule == "constant" else set())
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
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl; a kill may have cut the last one short."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def drop_metrics_after(self, step: int) -> None:
        """Leaves only the lines up to a step: those after it are computed again on resume."""
        kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
        unfinished = self.metrics_file.with_suffix(".unfinished")
        unfinished.write_text("".join(kept), encoding="utf-8")
        os.replace(unfinished, self.metrics_file)


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
