"""Exports a trained model as a Hugging Face folder."""

import dataclasses
from pathlib import Path
from typing import Any

from bertjax.data.tokenizer.settings import read_json
from bertjax.errors import BertjaxError
from bertjax.hub.card import make_card, make_embedding_card, make_task_card
from bertjax.hub.folder import (
    check_writable,
    own_family_first,
    read_folder,
    read_model_config,
    read_task_folder,
    read_task_head,
    write_folder,
)
from bertjax.hub.sentence_transformers import read_settings
from bertjax.hub.task_head import TaskHead, has_head, plain_head
from bertjax.parallel.sharding import find_devices, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params


def export_run(run: RunFolder, folder: Path) -> None:
    """Writes a run's newest sound checkpoint as a Hugging Face folder, which appears whole or not at all.

    Raises:
      BertjaxError: the folder exists or cannot be written, the run has no checkpoint, or no family's format can
        carry the model.
    """
    config, tokenizer = run.config(), run.tokenizer()
    evaluation = run.metrics.evaluation(config.eval.best)
    steps = run.decisions.last_step() or config.train.steps
    if config.eval.best is not None:
        steps = evaluation.get("step", steps)
    model, head = config.model, None
    if config.task.kind in ("classify", "score", "rerank", "tag", "answer"):
        model = dataclasses.replace(model, nsp_features="cls")  # which the pooler of its head reads
        head = TaskHead(config.task.kind, run.spans() if config.task.kind == "answer" else run.targets())
    check_writable(model, folder, head=head)
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
    write_folder(model, params, tokenizer, folder, card=card, sentence=sentence, head=head, max_length=max_length)


def export_folder(source: Path, folder: Path) -> None:
    """Writes a Hugging Face folder anew, as a run is exported: model, tokenizer, card, and how it makes vectors.

    Raises:
      BertjaxError: the folder exists or cannot be written, or the source cannot be read.
    """
    head = read_task_head(source) if has_head(read_json(source / "config.json")) else None
    families = own_family_first(source)
    check_writable(read_model_config(source), folder, families=families, head=head)
    if head is not None:
        (config, params, tokenizer), head, max_length = read_task_folder(source)
        of_head: dict[str, Any] = {"head": head, "max_length": max_length}
        write_folder(config, params, tokenizer, folder, card=_card(source), families=families, **of_head)
        return
    read = read_folder(source)
    sentence = read_settings(source, read.config.hidden_size, lowercases=read.tokenizer.rules.lowercase)
    write_folder(*read, folder, card=_card(source), families=families, sentence=sentence)


def _card(source: Path) -> str:
    try:
        return (source / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return f"# {source.name}\n\nWritten anew by bertjax.\n"
