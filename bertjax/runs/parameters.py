"""A run's parameters, as its newest sound checkpoint has them."""

from typing import Any

from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.models.bert import Bert, params_template
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parts import joined, split
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
    learning, frozen = split(params_template(model), config.optim.freeze_layers)
    trees = {name: learning} if frozen is None else {name: learning, "frozen": frozen}
    with run.checkpoints() as checkpoints:
        found = checkpoints.restore(checkpoints.newest_step(), with_sharding(trees, by_name(trees, mesh)))
    return joined(found[name], found.get("frozen"))
