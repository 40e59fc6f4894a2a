"""Opening a run, a new one or one that goes on: the text that it reads, and the folder that it writes."""

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterator
from typing import Any, Protocol, TypeVar

from bertjax.config import BertConfig, Config, DistributedConfig
from bertjax.config.recipes import flat
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.pretrained import model_config
from bertjax.parallel.process_group import Processes
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.folder import Inputs, RunFolder
from bertjax.storage.hub_models import pinned, same_model

_logger = logging.getLogger(__name__)

P = TypeVar("P", bound=Inputs)
P_co = TypeVar("P_co", bound=Inputs, covariant=True)


class Prepare(Protocol[P_co]):
    """Opens what a run reads."""

    def __call__(self, config: Config, tokenizer: Tokenizer | None = None) -> P_co:
        """Returns it, with the vocabulary of a run that has begun where that is given."""


# What may differ from the run's own configuration when it is resumed: none of it changes a step already made.
# Neither do more steps, but where the learning rate or the masking rate is on its way to the last one's.
_MAY_CHANGE = {"run_dir", "train.log_every", "data.path", "data.eval_path", "task.train", "task.eval"}
_MAY_CHANGE |= {"train.epochs"}  # train.steps, which come of it, tell
_MAY_CHANGE |= {"distill.teacher"}  # whose parameters are known again
_MAY_CHANGE |= {"data.cache", "data.fallback", "data.workers"}
_MAY_CHANGE |= {f"distributed.{field.name}" for field in dataclasses.fields(DistributedConfig)}
_MAY_CHANGE |= {"mesh.data", "mesh.fsdp", "mesh.tensor", "model.attention"}
_MAY_CHANGE |= {
    "eval.every",
    "eval.best",
    "eval.patience",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.on_failure",
}
_MAY_CHANGE |= {"train.max_bad_steps", "train.spike_factor", "logging.tensorboard", "logging.report"}

# Settings of the model that one may type whatever the folder has that the run starts from: only new heads, or exports,
# know them.
_OF_HEADS = ("pooler_act", "pooler_norm", "classifier_pooling", "classifier_bias", "family")
_OF_ROTARY = ("rotary_theta", "local_rotary_theta")  # which no parameter depends on


@contextlib.contextmanager
def open_run(
    folder: RunFolder,
    config: Config,
    processes: Processes,
    prepare: Prepare[P],
    *,
    resume: bool,
    typed: Collection[str] = (),
) -> Iterator[P]:
    """Opens what a run reads; meanwhile its folder, which is made or found, is kept from other runs.

    Process 0 opens it. The others find the folder there, and on their own machines the same text.

    Args:
      config: with the model that the run starts from (`with_model_of_init`).
      prepare: opens what is read.
      typed: keys, such as tokenizer.kind, which a vocabulary that is read must bear out.

    Raises:
      BertjaxError: the folder is another run's, or in use; or the text cannot be had.
    """
    with contextlib.ExitStack() as stack:
        if processes.first:
            prepared = stack.enter_context(_opened(folder, config, prepare, resume=resume, typed=typed))
        processes.broadcast(lambda: None)
        if not processes.first:
            if not folder.begun:
                raise BertjaxError(
                    f"process {processes.index} does not find what process 0 made in {folder.path}; "
                    "give a --run_dir on a file system that all processes share"
                )
            prepared = _prepared_again(folder, config, prepare)
        yield prepared


def with_model_of_init(config: Config, folder: RunFolder, *, resume: bool, typed: Collection[str] = ()) -> Config:
    """Returns the configuration with the model section of the folder that the run starts from, if it starts from one.

    What a recipe says of the model falls away, with a word. A name on the hub, a teacher's too, gets its commit: that
    of a run that has begun, else the one it has now.

    Args:
      folder: the run's own; where it has begun, the other one is needed no more.
      typed: keys, such as model.num_layers, which the folder must bear out, but for those of heads.

    Raises:
      BertjaxError: the folder has no model that can be read, or another than was typed; or too few positions or layers.
    """
    if config.init_from is None and config.distill.teacher is None:
        return config
    begun = folder.config() if resume and folder.begun else None
    teacher = _pinned(config.distill.teacher, begun.distill.teacher if begun else None)
    config = dataclasses.replace(
        config,
        init_from=_pinned(config.init_from, begun.init_from if begun else None),
        distill=dataclasses.replace(config.distill, teacher=teacher),
    )
    if config.init_from is None:
        return config
    asked = config.model
    model = model_of_init(config, typed) if begun is None else begun.model
    free = (*_OF_HEADS, *(_OF_ROTARY if model.positions == "rotary" else ()))
    may_differ = {"dropout", "attention", *(key for key in free if f"model.{key}" in typed)}
    asked_for: dict[str, Any] = {key: getattr(asked, key) for key in may_differ}
    model = dataclasses.replace(model, **asked_for, frequency_bias=False, cooccurrence_embedding=False)
    found = with_model(config, model, typed)
    _check_typed([key for key in typed if key.startswith("model.")], config, found)
    found.check_model()
    if found.data.max_length < config.data.max_length:
        _logger.info(f"NOTICE:   data.max_length={found.data.max_length}, as {config.init_from} has no more positions")
    config = dataclasses.replace(config, data=found.data)
    ours, theirs, defaults = flat(config), flat(found), flat(Config())
    changed = [key for key in ours if ours[key] not in (theirs[key], defaults[key]) and key != "model.vocab_size"]
    if other := [f"{key}={ours[key]}" for key in changed]:
        _logger.info(f"NOTICE:   the model is that of {config.init_from}; of the recipe fall away: {', '.join(other)}")
    return found


def _pinned(name: str | None, begun: str | None) -> str | None:
    """A model's name; on the hub with its commit, the one that the run began with if it is the same model."""
    if name is None:
        return None
    return begun if begun is not None and same_model(name, begun) else pinned(name)


def model_of_init(config: Config, typed: Collection[str] = ()) -> BertConfig:
    """Returns the model section of the folder that the run starts from, with the layers that it starts from.

    Args:
      typed: with model.max_position among these keys, the model may get more positions.

    Raises:
      BertjaxError: the folder has no model that can be read, or no such layers.
    """
    assert config.init_from is not None
    model = model_config(config.init_from)
    if "model.max_position" in typed and config.model.max_position > model.max_position:
        model = dataclasses.replace(model, max_position=config.model.max_position)
    if config.init_layers is None:
        return model
    try:
        return model.with_layers(config.init_layers)
    except BertjaxError as error:
        raise BertjaxError(f"{config.init_from}: {error}") from None


def with_model(config: Config, model: BertConfig, typed: Collection[str]) -> Config:
    """Returns the configuration with a model, and to fine-tune with no longer texts than it has positions for.

    Args:
      typed: a length that is among these keys stays.
    """
    data = config.data
    if config.task.kind != "pretrain" and "data.max_length" not in typed:
        data = dataclasses.replace(data, max_length=min(data.max_length, model.max_position))
    return dataclasses.replace(config, model=model, data=data)


def _check_typed(typed: Collection[str], asked: Config, found: Config) -> None:
    """Raises BertjaxError where a key that was typed has another value in what is read from a folder."""
    ours, theirs, folder = flat(asked), flat(found), asked.init_from or asked.tokenizer.path or asked.distill.teacher
    wrong = [key for key in dict.fromkeys(typed) if ours[key] not in (None, theirs[key])]
    if wrong:
        has = ", ".join(f"{key}={ours[key]} (there {theirs[key]})" for key in wrong)
        raise BertjaxError(f"{has} has no effect with what is read from {folder}; leave it out, or start without it")


@contextlib.contextmanager
def _opened(
    folder: RunFolder, config: Config, prepare: Prepare[P], *, resume: bool, typed: Collection[str]
) -> Iterator[P]:
    of_vocabulary = [key for key in typed if key.startswith("tokenizer.")]
    if resume and folder.begun:
        with folder.locked():
            prepared = _resume(folder, config, prepare)
            _check_typed(of_vocabulary, config, prepared.config)
            yield prepared
        return
    folder.check_free(resume=resume)
    if resume:  # as after a kill while the corpus was built
        _logger.info(f"{folder.place} holds no run yet: it begins")
    prepared = prepare(config)
    _check_typed(of_vocabulary, config, prepared.config)
    with folder.locked():
        folder.create(prepared)
        try:
            yield prepared
        except BertjaxError:  # with other options, which may do, it would be another run
            with contextlib.suppress(OSError):
                folder.undo_create()
            raise


def _prepared_again(folder: RunFolder, config: Config, prepare: Prepare[P]) -> P:
    its_own = folder.config()
    if its_own.data.source == config.data.fallback:  # the run fell back to it once, and stays with it
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=its_own.data.source))
    if config.train.gradient_accumulation_steps == "auto":  # decided once, too
        parts = its_own.train.gradient_accumulation_steps
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, gradient_accumulation_steps=parts))
    prepared = prepare(config, folder.tokenizer())
    check_same(folder, its_own, prepared)
    return prepared


def _resume(folder: RunFolder, config: Config, prepare: Prepare[P]) -> P:
    writer = CheckpointWriter(folder.checkpoint_folder, keep=config.checkpoint.keep)
    with writer as checkpoints:  # to set damaged ones aside
        step = checkpoints.latest_step() or 0
    prepared = _prepared_again(folder, config, prepare)
    if step > config.train.steps:
        raise BertjaxError(
            f"{folder.place} has made {step} steps, more than train.steps={config.train.steps}; give as many or more"
        )
    folder.rewrite_config(prepared)
    return prepared


def may_go_further(config: Config) -> bool:
    """Returns whether a run may make more steps than it first meant to: nothing is on its way to the last one's."""
    rates = config.optim.schedule == "constant" and config.optim.warmup_share is None
    return rates and config.data.mlm_probability_end is None


def check_same(folder: RunFolder, its_own: Config, prepared: Inputs) -> None:
    """Raises BertjaxError where going on with this configuration or corpus would not be the same run.

    Args:
      its_own: the folder's configuration.
    """
    ours, theirs = flat(prepared.config), flat(its_own)
    may_change = _MAY_CHANGE | ({"train.steps"} if may_go_further(prepared.config) else set())
    changed = [key for key in ours if ours[key] != theirs[key] and key not in may_change]
    if changed:
        what = ", ".join(f"{key}={ours[key]} (the run has {theirs[key]})" for key in changed)
        raise BertjaxError(
            f"{folder.place} was made with another configuration: {what}; "
            "resume with the run's own, or give another folder with --run_dir"
        )
    for digest, corpus in zip(folder.digests(), (prepared.train, prepared.held_out), strict=True):
        if digest != corpus.digest:
            raise BertjaxError(
                f"{folder.place} was made with another text than the {corpus.name} found now; give the same one"
            )
    if folder.environment()["corpus"].get("teacher") != prepared.told().get("teacher"):
        raise BertjaxError(
            f"{folder.place} was not made with the distill.teacher={prepared.config.distill.teacher} found now, whose "
            "parameters are others; give the same one"
        )
