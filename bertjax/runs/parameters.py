"""A run's parameters, as its newest sound checkpoint has them."""

from typing import Any

from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.models.bert import Bert, params_template
from bertjax.models.classifier import SequenceClassifier
from bertjax.parallel.sharding import by_name, with_sharding
from bertjax.runs.folder import RunFolder


def load_params(run: RunFolder, config: Config, mesh: Mesh) -> dict[str, Any]:
    """Returns the newest sound checkpoint's parameters over the mesh, averaged if the run does that.

    Args:
      config: the run's own.

    Raises:
      BertjaxError: the run has no checkpoint.
    """
    name = "params" if config.optim.ema_decay is None else "average"
    model: Any = Bert(config.model)
    if config.task.kind == "classify":
        model = SequenceClassifier(model, len(run.labels()))
    template = params_template(model)
    template = with_sharding(template, by_name(template, mesh))
    with run.checkpoints() as checkpoints:
        return checkpoints.restore(checkpoints.newest_step(), {name: template})[name]
