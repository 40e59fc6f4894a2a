"""A run's parameters, as its newest sound checkpoint has them, or its best."""

from typing import Any

import jax
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.questions import Spans
from bertjax.models.bert import Bert, params_template
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.lora import merge_over, with_adapters
from bertjax.models.parts import joined, split
from bertjax.models.sentence_encoder import SentenceEncoder
from bertjax.models.tagger import TokenClassifier
from bertjax.parallel.sharding import by_name, with_sharding
from bertjax.runs.checkpoints import Checkpoints
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import best_first


def load_params(run: RunFolder, config: Config, mesh: Mesh) -> dict[str, Any]:
    """Returns the parameters that a run gives over the mesh, averaged if the run does that.

    They are those of its best step that is saved, where its configuration asks for that, else of its last.

    Args:
      config: the run's own.

    Raises:
      BertjaxError: the run has no checkpoint.
    """
    name = "params" if config.optim.ema_decay is None else "average"
    plain = _template(run, config)
    adapted = jax.eval_shape(lambda params: with_adapters(params, config.lora, jax.random.key(0)), plain)
    learning, frozen = split(adapted, config.optim.freeze_layers)
    trees = {name: learning} if frozen is None else {name: learning, "frozen": frozen}
    with run.checkpoints() as checkpoints:
        # Of a run that had a teacher the projection to its hidden states stays behind.
        partial = config.distill.teacher is not None
        step, trees = _step(run, config, checkpoints), with_sharding(trees, by_name(trees, mesh))
        found = checkpoints.restore(step, trees, partial=partial)
    return merge_over(mesh, plain, config.lora)(joined(found[name], found.get("frozen")))


def num_saved(run: RunFolder, config: Config) -> int:
    """Returns how many numbers the model of a run has, its heads included."""
    return sum(leaf.size for leaf in jax.tree.leaves(_template(run, config)))


def _template(run: RunFolder, config: Config) -> dict[str, Any]:
    model: Any = Bert(config.model)
    if config.task.kind in ("classify", "score", "rerank"):
        model = SequenceClassifier(model, run.targets().num_outputs)
    elif config.task.kind == "embed":
        model = SentenceEncoder(model)
    elif config.task.kind == "tag":
        model = TokenClassifier(model, run.tags().num_outputs)
    elif config.task.kind == "answer":
        model = TokenClassifier(model, Spans().num_outputs)
    return params_template(model)


def _step(run: RunFolder, config: Config, checkpoints: Checkpoints) -> int:
    step = None
    if config.eval.best is not None:
        best = best_first(run.metrics.values(config.eval.best), config.eval.best)
        step = checkpoints.first_sound(lambda steps: [step for step in best if step in steps])
    return checkpoints.newest_step() if step is None else step
