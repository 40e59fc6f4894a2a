"""The teacher of a run that is distilled: read, and known again by the run that goes on."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax

from bertjax.config import BertConfig, Config
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert, make_model
from bertjax.objectives.distillation import Teaching, distillation_objective, paired_layers
from bertjax.objectives.objective import Objective
from bertjax.parallel.sharding import place_params


class Teacher(NamedTuple):
    """A trained model that another learns from."""

    config: BertConfig
    params: dict[str, Any]  # numpy's
    tokenizer: Tokenizer
    digest: str  # changes whenever a parameter does


def read_teacher(config: Config) -> Teacher | None:
    """Reads the model of `distill.teacher`, if there is one.

    Raises:
      BertjaxError: it cannot be read, predicts no words, or has too few positions for the run's texts.
    """
    name = config.distill.teacher
    if name is None:
        return None
    read = load(name)
    if "mlm" not in read.params:
        raise BertjaxError(f"distill.teacher={name} has no MLM head to learn from; give a model that fills masks")
    if (most := read.config.max_position) < config.data.max_length:
        raise BertjaxError(
            f"data.max_length={config.data.max_length} is above the {most} positions of distill.teacher={name}; "
            "shorten the texts"
        )
    params = jax.device_get(read.params)
    return Teacher(read.config, params, read.tokenizer, _digest(params))


def check_vocabulary(teacher: Teacher, tokenizer: Tokenizer, config: Config) -> None:
    """Raises BertjaxError where the numbers of tokens mean something else to the teacher."""
    theirs, ours = teacher.tokenizer, tokenizer
    size = ours.vocabulary.size
    if theirs.vocabulary != ours.vocabulary or theirs.tokens(range(size)) != ours.tokens(range(size)):
        name, whose = config.distill.teacher, config.init_from or config.tokenizer.path or config.run_dir
        raise BertjaxError(
            f"the vocabulary of {whose} is not that of distill.teacher={name}; leave out init_from and tokenizer.path, "
            "and the run has the teacher's, or give a teacher with this one"
        )


def with_teacher(objective: Objective, model: Bert, teacher: Teacher, config: Config) -> Objective:
    """Returns pretraining's objective with a teacher, whose parameters are placed over the mesh.

    Args:
      objective: without one.
      model: the student, for the mesh.
    """
    distill, mesh = config.distill, model.mesh
    assert mesh is not None
    teaching = Teaching(
        mlm_weight=distill.mlm_weight,
        logits_weight=distill.logits_weight,
        hidden_weight=distill.hidden_weight,
        temperature=distill.temperature,
        hidden_loss=distill.hidden_loss,
        layers=paired_layers(config.model.num_layers, teacher.config.num_layers, distill.layers),
        z_loss=config.train.z_loss,
    )
    how = dataclasses.replace(config.train, remat=False)  # nothing of it goes back
    its_model = make_model(teacher.config, how, learning=False).clone(mesh=mesh)
    return distillation_objective(objective, model, its_model, place_params(teacher.params, mesh), teaching)


def _digest(params: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves(params)):
        digest.update(f"{path} {leaf.shape}\n".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
