"""Exports a trained model as a Hugging Face folder."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from bertjax.config.checks import as_type
from bertjax.config.model import Family
from bertjax.data.tokenizer.settings import read_json
from bertjax.errors import BertjaxError
from bertjax.hub.card import make_card, make_embedding_card, make_task_card
from bertjax.hub.folder import (
    check_writable,
    families_for,
    read_family,
    read_folder,
    read_model_config,
    read_task_folder,
    read_task_head,
    write_folder,
)
from bertjax.hub.onnx import Weights
from bertjax.hub.sentence_transformers import read_settings
from bertjax.hub.task_head import TaskHead, has_head, plain_head
from bertjax.parallel.sharding import find_devices, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params

_logger = logging.getLogger(__name__)


def export_run(run: RunFolder, folder: Path, family: Family | None = None, *, onnx: Weights | None = None) -> None:
    """Writes a run's newest sound checkpoint as a Hugging Face folder, which appears whole or not at all.

    Args:
      family: as which it is written; by default that of the folder that the run began with, or the first that carries
        the model.
      onnx: as of `write_folder`.

    Raises:
      BertjaxError: the folder exists or cannot be written, the run has no checkpoint, the family's format, or any,
        cannot carry the model, or what writes ONNX is not installed.
    """
    asked = as_type(family, Family | None, "family")
    config, tokenizer = run.config(), run.tokenizer()
    evaluation = run.metrics.evaluation(config.eval.best)
    steps = run.decisions.last_step() or config.train.steps
    if config.eval.best is not None:
        steps = evaluation.get("step", steps)
    model, head = config.model, None
    if config.task.kind in ("classify", "score", "rerank", "tag", "answer"):
        model = dataclasses.replace(model, nsp_features="cls")  # which the pooler of its head reads
        head = TaskHead(config.task.kind, run.spans() if config.task.kind == "answer" else run.targets())
    families = families_for(model.family, asked)
    written = check_writable(model, folder, tokenizer=tokenizer, families=families, head=head, onnx=onnx)
    if model.family is not None and written is not families[0]:
        _logger.info(
            f"NOTICE:   it leaves as {written.name}, not as the {families[0].name} that it began as; "
            f"--family {model.family} tells why"
        )
    params = load_params(run, config, make_mesh(devices=find_devices()[:1]))
    if head is not None:
        targets, params["classifier"] = plain_head(head.targets, params["classifier"])
        head = head._replace(targets=targets)
    try:
        facts = (run.environment(), evaluation, tokenizer)
        if head is not None:
            card = make_task_card(config, head, *facts, steps=steps)
        else:
            card = (make_embedding_card if config.task.kind == "embed" else make_card)(config, *facts, steps=steps)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BertjaxError(f"{run.environment_file} does not tell what a card needs: {error!r}; train anew") from error
    sentence = read_settings(run.path, model.hidden_size, lowercases=tokenizer.rules.lowercase)
    max_length = None if head is None else config.data.max_length
    how: dict[str, Any] = {"card": card, "families": families, "sentence": sentence, "head": head, "onnx": onnx}
    write_folder(model, params, tokenizer, folder, max_length=max_length, **how)


def export_folder(source: Path, folder: Path, family: Family | None = None, *, onnx: Weights | None = None) -> None:
    """Writes a Hugging Face folder anew, as a run is exported: model, tokenizer, card, and how it makes vectors.

    Args:
      family: as which it is written; by default its own.
      onnx: as of `write_folder`.

    Raises:
      BertjaxError: the folder exists or cannot be written, the source cannot be read, or what writes ONNX is not
        installed.
    """
    head = read_task_head(source) if has_head(read_json(source / "config.json")) else None
    families = families_for(read_family(source).model_type, as_type(family, Family | None, "family"))
    check_writable(read_model_config(source), folder, families=families, head=head, onnx=onnx)
    how: dict[str, Any] = {"card": _card(source), "families": families, "onnx": onnx}
    if head is not None:
        read, head, max_length = read_task_folder(source)
        write_folder(*read, folder, head=head, max_length=max_length, **how)
        return
    read = read_folder(source)
    sentence = read_settings(source, read.config.hidden_size, lowercases=read.tokenizer.rules.lowercase)
    write_folder(*read, folder, sentence=sentence, **how)


def _card(source: Path) -> str:
    try:
        return (source / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return f"# {source.name}\n\nWritten anew by bertjax.\n"
