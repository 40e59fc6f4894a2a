"""What a run reads and the folder that it writes, opened: a new one, or one that goes on."""

import contextlib
import dataclasses
from collections.abc import Iterator

from bertjax.config import Config
from bertjax.data.prepare import Prepared, prepare
from bertjax.errors import BertjaxError
from bertjax.inference.pretrained import model_config
from bertjax.parallel.process_group import Processes
from bertjax.runs.folder import RunFolder


def with_its_model(config: Config, folder: RunFolder, *, resume: bool) -> Config:
    """With the model section of the folder that the run starts from; a run that has begun needs it no more."""
    if config.init_from is None:
        return config
    model = folder.config().model if resume and folder.begun else model_config(config.init_from)
    model = dataclasses.replace(model, dropout=config.model.dropout, frequency_bias=False, cooccurrence_embedding=False)
    return dataclasses.replace(config, model=model)


@contextlib.contextmanager
def opened_by_all(folder: RunFolder, config: Config, processes: Processes, *, resume: bool) -> Iterator[Prepared]:
    """Opened by process 0. The others find the folder there, and on their own machines the same text."""
    with contextlib.ExitStack() as stack:
        if processes.first:
            prepared = stack.enter_context(_opened(folder, config, resume=resume))
        processes.broadcast(lambda: None)
        if not processes.first:
            if not folder.begun:
                raise BertjaxError(
                    f"process {processes.index} does not find what process 0 made in {folder.path}; "
                    "give a --run_dir on a file system that all processes share"
                )
            prepared = _prepared_again(folder, config)
        yield prepared


@contextlib.contextmanager
def _opened(folder: RunFolder, config: Config, *, resume: bool) -> Iterator[Prepared]:
    """What the run reads; meanwhile its folder, which is made or found, is kept from other runs."""
    if resume and folder.begun:
        with folder.locked():
            yield _resume(folder, config)
        return
    folder.check_free(resume=resume)
    if resume:  # as after a kill while the corpus was built
        print(f"{folder.path} holds no run yet: it begins")
    prepared = prepare(config)
    with folder.locked():
        folder.create(prepared)
        yield prepared


def _prepared_again(folder: RunFolder, config: Config) -> Prepared:
    made_from = folder.config().data.source
    if made_from == config.data.fallback:  # the run fell back to it once, and stays with it
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=made_from))
    prepared = prepare(config, folder.tokenizer())
    folder.check_same(prepared)
    return prepared


def _resume(folder: RunFolder, config: Config) -> Prepared:
    with folder.checkpoints(keep=config.checkpoint.keep) as checkpoints:  # to set damaged ones aside
        step = checkpoints.latest_step() or 0
    prepared = _prepared_again(folder, config)
    if step > config.train.steps:
        raise BertjaxError(
            f"{folder.path} has made {step} steps, more than train.steps={config.train.steps}; give as many or more"
        )
    folder.rewrite_config(prepared)
    return prepared
