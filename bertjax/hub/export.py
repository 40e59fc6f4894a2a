"""Exports a run as a Hugging Face folder."""

import dataclasses
from pathlib import Path

import jax

from bertjax.errors import BertjaxError
from bertjax.hub.card import make_card
from bertjax.hub.folder import check_writable, write_folder
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params


def export_run(run: RunFolder, folder: Path) -> None:
    """Writes a run's newest sound checkpoint as a Hugging Face folder, which appears whole or not at all.

    Raises:
      BertjaxError: the folder exists or cannot be written, the run has no checkpoint, or BERT's format cannot carry
        the model.
    """
    config, tokenizer = run.config(), run.tokenizer()
    steps = run.decisions.last_step() or config.train.steps
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    check_writable(config.model, folder)
    params = load_params(run, config, make_mesh(devices=jax.devices()[:1]))
    try:
        card = make_card(config, run.environment(), run.metrics.newest_evaluation(), tokenizer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BertjaxError(f"{run.environment_file} does not tell what a card needs: {error!r}; train anew") from error
    write_folder(config.model, params, tokenizer, folder, card=card)
