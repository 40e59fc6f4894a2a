"""Exports a trained model as a Hugging Face folder."""

import dataclasses
from pathlib import Path

from bertjax.errors import BertjaxError
from bertjax.hub.card import make_card, make_embedding_card
from bertjax.hub.folder import check_writable, read_folder, read_model_config, write_folder
from bertjax.hub.sentence_transformers import read_settings
from bertjax.parallel.sharding import find_devices, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params

_CARDS = {"pretrain": make_card, "embed": make_embedding_card}


def export_run(run: RunFolder, folder: Path) -> None:
    """Writes a run's newest sound checkpoint as a Hugging Face folder, which appears whole or not at all.

    Raises:
      BertjaxError: the folder exists or cannot be written, the run has no checkpoint, or BERT's format cannot carry
        the model.
    """
    config, tokenizer = run.config(), run.tokenizer()
    if config.task.kind not in _CARDS:
        raise BertjaxError(f"{run.path} tells labels, whose head cannot be exported yet; 'bertjax predict' uses it")
    evaluation = run.metrics.evaluation(config.eval.best)
    steps = run.decisions.last_step() or config.train.steps
    if config.eval.best is not None:
        steps = evaluation.get("step", steps)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    check_writable(config.model, folder)
    params = load_params(run, config, make_mesh(devices=find_devices()[:1]))
    try:
        card = _CARDS[config.task.kind](config, run.environment(), evaluation, tokenizer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BertjaxError(f"{run.environment_file} does not tell what a card needs: {error!r}; train anew") from error
    sentence = read_settings(run.path, config.model.hidden_size, lowercases=tokenizer.rules.lowercase)
    write_folder(config.model, params, tokenizer, folder, card=card, sentence=sentence)


def export_folder(source: Path, folder: Path) -> None:
    """Writes a Hugging Face folder anew, as a run is exported: model, tokenizer, card, and how it makes vectors.

    Raises:
      BertjaxError: the folder exists or cannot be written, or the source cannot be read.
    """
    check_writable(read_model_config(source), folder)
    read = read_folder(source)
    sentence = read_settings(source, read.config.hidden_size, lowercases=read.tokenizer.rules.lowercase)
    try:
        card = (source / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        card = f"# {source.name}\n\nWritten anew by bertjax.\n"
    write_folder(*read, folder, card=card, sentence=sentence)
