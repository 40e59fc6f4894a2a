"""A whole run of fine-tuning: examples and a trained model in, a folder with one that does a task out."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.config.checks import as_type
from bertjax.errors import BertjaxError
from bertjax.train.run import Course, run
from bertjax.train.tasks import answering, embedding, labelled, tagging

COURSES: dict[str, Course[Any]] = {
    "classify": labelled.COURSE,
    "score": labelled.COURSE,
    "rerank": labelled.COURSE,
    "tag": tagging.COURSE,
    "answer": answering.COURSE,
    "embed": embedding.COURSE,
}


def finetune(config: Config, *, resume: bool = False, plot: bool = False, typed: Collection[str] = ()) -> Path:
    """Trains a model to do what the configuration's task section says, and returns the run's folder.

    It may be killed at any time: resumed, the run ends as if it never had been.

    Args:
      config: with a model to start from (init_from) and examples (task.train).
      resume: go on from the newest checkpoint of `config.run_dir`; from the beginning where there is none yet.
      plot: in a notebook, draw the losses as the run goes on.
      typed: keys such as model.num_layers that are not to give way to what `config.init_from` says, as a recipe's do.

    Raises:
      BertjaxError: examples, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
      SystemExit: after SIGTERM or SIGUSR1, likewise, with `ExitCode.STOPPED`.
    """
    config = as_type(config, Config, "config")
    return run(config, course_of(config), resume=resume, plot=plot, typed=typed)


def course_of(config: Config) -> Course[Any]:
    """Returns what runs of the configuration's task do. Raises BertjaxError where that is no fine-tuning."""
    if config.task.kind not in COURSES:
        raise BertjaxError(
            f"task.kind={config.task.kind} is what 'bertjax pretrain' does; give a recipe such as classify"
        )
    return COURSES[config.task.kind]
