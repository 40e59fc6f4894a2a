"""Fine-tuning to embed texts: those that belong together get vectors near each other (embed)."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.batching.tuples import TupleBatches
from bertjax.data.held_out import both_sides, check_task
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tuples import TupleRow, Tuples, make_tuples, read_tuples, split_tuples
from bertjax.errors import BertjaxError
from bertjax.evaluation.judgement import Judgement
from bertjax.evaluation.retrieval import contrast_of, embed, judge, make_sentence_encoder
from bertjax.hub.sentence_transformers import OF_RUN, SentenceSettings, read_settings, settings_files
from bertjax.models.sentence import Dense, LayerNorm
from bertjax.objectives.contrastive import contrastive_objective
from bertjax.objectives.objective import Objective, Params
from bertjax.runs.remote_run import run_path
from bertjax.storage.hub_models import model_folder
from bertjax.train.tasks.course import Kind, course_of


class PreparedEmbedding(NamedTuple):
    """The vocabulary, the way vectors are made, the examples and the batches of a run."""

    config: Config  # with the steps that its epochs come to, and the rules of the vocabulary
    tokenizer: Tokenizer
    sentence: SentenceSettings
    train: Tuples
    held_out: Tuples
    train_batches: TupleBatches
    held_out_batches: TupleBatches
    rows: list[TupleRow]  # the texts of each that is held out

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its examples."""

        def described(examples: Tuples) -> dict[str, Any]:
            told = {"name": examples.name, "digest": examples.digest, "examples": len(examples.texts_nr)}
            return told | {"texts": len(examples.lengths_m), "tokens": examples.ids.size}

        return {"source": "examples", "train": described(self.train), "held_out": described(self.held_out)}

    def files(self) -> dict[str, bytes]:
        """Returns how vectors are made, as sentence-transformers tells it, in a folder of its own."""
        model = self.config.model
        files = settings_files(self.sentence, model.hidden_size, model.max_position)
        return {f"{OF_RUN}/{name}": (json.dumps(content, indent=1) + "\n").encode() for name, content in files.items()}


def prepare_embedding(config: Config, tokenizer: Tokenizer | None = None) -> PreparedEmbedding:
    """Reads the examples, and holds out those of task.eval, or a share.

    Args:
      config: with the model that the run starts from.
      tokenizer: that of a run that has begun.

    Raises:
      BertjaxError: there is no model to start from, or it makes vectors in a way that cannot be trained; or the
        examples cannot be had.
    """
    began = check_task(config)[0]
    sides = both_sides(config, functools.partial(read_tuples, config.task), split_tuples)
    if tokenizer is None:
        tokenizer, folder = read_tokenizer(began, masks=False), began
    else:
        folder = str(run_path(config))
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))
    sentence = _settings(config, tokenizer, model_folder(folder))
    read = functools.partial(
        make_tuples, tokenizer=tokenizer, max_length=config.data.max_length, prompt=sentence.default_prompt
    )
    train, of_eval = read(sides.train, name=sides.train_name), read(sides.held_out, name=sides.held_out_name)
    # Held out, a batch is as large as in training: the more negatives, the greater the loss.
    batches, of_held_out = (
        TupleBatches(examples, batch_size=config.train.batch_size, row_length=config.data.row_length, seed=config.seed)
        for examples in (train, of_eval)
    )
    config = config.with_epochs(batches.steps_in_epoch)
    return PreparedEmbedding(config, tokenizer, sentence, train, of_eval, batches, of_held_out, sides.held_out)


def _settings(config: Config, tokenizer: Tokenizer, folder: Path) -> SentenceSettings:
    """Returns how the run makes vectors: as the folder that it starts from says, and task.pooling."""
    model, task = config.model, config.task
    sentence = read_settings(folder, model.hidden_size, lowercases=tokenizer.rules.lowercase)
    if sentence == SentenceSettings():
        sentence = sentence._replace(normalize=True)
    if task.pooling is not None:
        sentence = sentence._replace(pooling=(task.pooling,))
    if weights := [type(layer).__name__ for layer in sentence.layers if isinstance(layer, Dense | LayerNorm)]:
        raise BertjaxError(
            f"{folder} makes vectors by {', '.join(weights)} after pooling, which cannot be trained yet; without its "
            "modules.json the model alone is read"
        )
    if sentence.default_prompt and not sentence.pools_prompt:
        raise BertjaxError(
            f"{folder} leaves its prompt out of pooling (include_prompt), which cannot be trained yet; without its "
            "modules.json the model alone is read"
        )
    size = len(sentence.pooling) * model.hidden_size
    if task.matryoshka and max(task.matryoshka) > size:
        sizes = list(task.matryoshka)
        raise BertjaxError(f"task.matryoshka={sizes} has sizes above the {size} numbers of a vector; give no greater")
    if sentence.max_length is not None and sentence.max_length < config.data.max_length:
        sentence = sentence._replace(max_length=config.data.max_length)
    return sentence


def _describe(prepared: PreparedEmbedding) -> str:
    lines = []
    for role, examples, batches in (
        ("train:", prepared.train, prepared.train_batches),
        ("held out:", prepared.held_out, prepared.held_out_batches),
    ):
        lines.append(
            f"{role:<10}{examples.name}: {batches.num_sequences:,} examples of {len(examples.lengths_m):,} texts, "
            f"{batches.num_rows:,} rows of {batches.row_length} a step, {batches.fill:.1%} full"
        )
    sentence, task = prepared.sentence, prepared.config.task
    sizes = f", also cut to {', '.join(map(str, task.matryoshka))}" if task.matryoshka else ""
    length = " of length 1" if sentence.normalize else ""
    return "\n".join([*lines, f"vectors:  {' and '.join(sentence.pooling)} of the tokens'{length}{sizes}"])


def _objective(prepared: PreparedEmbedding, mesh: Mesh) -> Objective:
    config = prepared.config
    model = make_sentence_encoder(config, prepared.sentence, mesh, learning=True)
    return contrastive_objective(model, contrast_of(config), parts=config.train.parts)


def _judge(prepared: PreparedEmbedding, mesh: Mesh, params: Params) -> Judgement:
    config, examples, batches = prepared.config, prepared.held_out, prepared.held_out_batches
    embedded = embed(config, prepared.sentence, batches, examples, params, mesh)
    return judge(config, embedded, examples, prepared.rows, batch_size=batches.batch_size)


EMBEDDED = Kind(
    prepare_embedding,
    _describe,
    _objective,
    _judge,
    what_next=("to make vectors of other texts", "encode {} --input lines.txt --out vectors.npy"),
    anew=(),
    shows_table=True,
)
COURSE = course_of(EMBEDDED)
