"""What a fine-tuned run tells of texts and pairs, before it becomes labels or numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertjax.config import BertConfig, Config, MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.questions import Spans
from bertjax.data.reader import Item, Reader
from bertjax.data.targets import Targets
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.hub.folder import is_hub_folder, read_task_folder
from bertjax.inference.engine import Engine, Recipe, local_mesh
from bertjax.inference.programs import Precision
from bertjax.models.sentence import Labelled
from bertjax.parallel.sharding import make_mesh
from bertjax.storage.hub_models import model_folder

if TYPE_CHECKING:
    from bertjax.runs.folder import RunFolder


class SequenceHead:
    """Computes the logits of texts, with dropout off, over all devices of the process.

    Args:
      config: the model's settings.
      params: its parameters, nested, float32, with the head.
      tokenizer: its vocabulary.
      max_length: tokens that are read of a text, special ones included, as in training.
      precision: what matrix products multiply.
      mesh: how texts and parameters are spread over the devices of the process; by default texts alone.
    """

    def __init__(
        self,
        config: BertConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        precision: Precision = "float32",
        mesh: MeshConfig | None = None,
    ):
        self.config, self.tokenizer, self.max_length = config, tokenizer, max_length
        devices = local_mesh(mesh or MeshConfig(), config)
        shortest = max(1, tokenizer.template.single.num_special)
        encoder = {part: leaves for part, leaves in params.items() if part not in ("pooler", "classifier")}
        self.engine = Engine(config, encoder, precision, devices, shortest=shortest)
        head = {part: params[part] for part in ("pooler", "classifier")}
        layer = Labelled(head, config, head["classifier"]["kernel"].shape[1])
        self.recipe = Recipe((config.classifier_pooling,), self.engine.place((layer,)))

    def reader(self, *, truncate: bool) -> Reader:
        """Returns what reads texts as in training; what is longer is shortened, or an error."""
        return Reader(
            self.tokenizer, self.max_length, truncate=truncate, limit="the {} tokens that are read, as in training"
        )

    def logits(self, items: list[Item]) -> np.ndarray:
        """Returns logits of texts and pairs, float32 [n, c]; what is longer than in training is shortened."""
        reader = self.reader(truncate=True)
        read = reader.read_all(items, lambda number: f"text {number}")
        if reader.num_shortened:
            warn(
                f"{reader.num_shortened:,} of {len(items):,} texts are shortened to {self.max_length} tokens, as in "
                "training",
                stacklevel=4,
            )
        (logits_nc,) = self.engine.vectors([read], self.recipe)
        assert isinstance(logits_nc, np.ndarray)
        return logits_nc


class TaskModel(NamedTuple):
    """A fine-tuned model, and what its outputs mean."""

    kind: str  # of the task
    targets: Targets
    head: SequenceHead
    temperature: float | None = None  # as of `RunFolder.fitted`


def load_task_model(
    folder: str | Path, kinds: tuple[str, ...], *, precision: Precision = "float32", mesh: MeshConfig | None = None
) -> TaskModel:
    """Loads what `bertjax finetune` trained, or a Hugging Face folder of a model with such a head.

    Args:
      folder: the run's, or the other, or ORG/NAME or ORG/NAME@REVISION on the hub.
      kinds: of tasks that will do.
      precision: what matrix products multiply, float32 or bfloat16.
      mesh: how texts and parameters are spread over the devices of the process; by default each device has the
        whole model, and texts of its own.

    Raises:
      BertjaxError: it is no such model, has no checkpoint, or the mesh does not suit the devices or the model.
    """
    precision, mesh = as_type(precision, Precision, "precision"), as_type(mesh, MeshConfig | None, "mesh")
    path = model_folder(as_type(folder, Path, "folder"))
    if is_hub_folder(path):
        (config, params, tokenizer), (kind, targets), max_length = read_task_folder(path)
        if kind not in kinds or isinstance(targets, Spans):
            raise BertjaxError(f"{path} has a head for task.kind={kind}; give one of {' or '.join(kinds)}")
        head = SequenceHead(config, params, tokenizer, max_length=max_length, precision=precision, mesh=mesh)
        return TaskModel(kind, targets, head)
    run, config_of_run, params = load_run(path, kinds, mesh)
    how: Any = {"max_length": config_of_run.data.max_length, "precision": precision, "mesh": mesh}
    head = SequenceHead(config_of_run.model, params, run.tokenizer(), **how)
    return TaskModel(config_of_run.task.kind, run.targets(), head, run.fitted("temperature"))


def load_run(path: Path, kinds: tuple[str, ...], mesh: MeshConfig | None) -> tuple["RunFolder", Config, dict[str, Any]]:
    """Returns a run that `bertjax finetune` made, its configuration, and its parameters.

    Args:
      path, kinds, mesh: as of `load_task_model`, and so are errors.
    """
    from bertjax.runs.folder import RunFolder
    from bertjax.runs.parameters import load_params

    run = RunFolder(path)
    config = run.config()
    if (kind := config.task.kind) not in kinds:
        raise BertjaxError(f"{run.path} is a run of task.kind={kind}; give one of {' or '.join(kinds)}")
    devices = local_mesh(mesh or MeshConfig(), config.model)
    params = load_params(run, config, devices if mesh else make_mesh(devices=list(devices.devices.flat)[:1]))
    return run, config, params
