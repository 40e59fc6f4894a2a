"""Distillation: a student learns words, and what a teacher says of them (Hinton et al. 2015, arXiv:1503.02531).

As in DistilBERT (Sanh et al. 2019, arXiv:1910.01108, section 3) three losses are added up: the MLM loss; the KL
divergence of what both predict for the hidden words, at a temperature; and how far hidden states lie apart, layer by
layer. Where the student's are of another size, a linear projection, which is no part of the model, takes them to the
teacher's (TinyBERT, Jiao et al. 2020, arXiv:1909.10351, section 3.1).

Letters: b rows, t tokens of a row, n = b*t, d hidden (of the student), e hidden (of the teacher).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config.distill import HiddenLoss
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert
from bertjax.models.encoder import STATES
from bertjax.objectives.metrics import Mean, Metrics
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.pretraining import apply_model, compute_metrics
from bertjax.ops.blockwise_kl import WordLogits, blockwise_kl
from bertjax.parallel.sharding import gathered_outside_layers, row_shards

HEADS = {"logits": "logits", "hidden": "hidden"}
PROJECTION = "teacher_projection"

_TINY = 1e-12  # square of the length that a state has at least when it is divided by it


class Teaching(NamedTuple):
    """What of a teacher is learned, and how much it counts for beside the other losses."""

    mlm_weight: float = 2.0
    logits_weight: float = 5.0
    hidden_weight: float = 1.0
    temperature: float = 2.0
    hidden_loss: HiddenLoss = "cosine"
    layers: tuple[tuple[int, int], ...] = ()
    """Pairs of the student's layers, from 0 on, and those of the teacher's that they are compared with."""
    z_loss: float = 0.0
    """Of the MLM loss, as `pretraining_objective` has it."""


def paired_layers(student: int, teacher: int, layers: tuple[int, ...] | None = None) -> tuple[tuple[int, int], ...]:
    """Returns pairs of layers, counted from 0: each of a student's with the teacher's that is as far up.

    Args:
      student, teacher: numbers of layers.
      layers: of the student; by default the last. It is compared with the teacher's last.
    """
    chosen = (student - 1,) if layers is None else layers
    return tuple((layer, -(-(layer + 1) * teacher // student) - 1) for layer in chosen)


def distillation_objective(
    pretraining: Objective,
    model: Bert,
    teacher: Bert,
    teachers_params: Params,
    teaching: Teaching,
) -> Objective:
    """Pretraining with a teacher, as an objective.

    Args:
      pretraining: the objective without one, of this model.
      model: with the mesh that the batches are to be spread over, if there is one, as the teacher has it.
      teachers_params: over that mesh.
    """
    weights = {"logits_loss": teaching.logits_weight, "hidden_loss": teaching.hidden_weight}
    losses = {name: weight for name, weight in weights.items() if weight}
    sizes = (model.config.hidden_size, teacher.config.hidden_size)

    def init(key: Array) -> Params:
        params = pretraining.init(key)
        if "hidden_loss" not in losses or sizes[0] == sizes[1]:
            return params
        kernel_de = jax.random.normal(jax.random.fold_in(key, 1), sizes) * sizes[0] ** -0.5
        return params | {PROJECTION: {"kernel": kernel_de}}

    def loss_counts(batch: Any) -> dict[str, Array]:
        counts = {"logits_loss": batch.mlm_weights_bp.sum(), "hidden_loss": _num_states(batch, teaching)}
        return {**pretraining.loss_counts(batch), **{name: counts[name] for name in losses}}

    return pretraining._replace(
        heads={**pretraining.heads, **{head: HEADS[head] for head in HEADS if f"{head}_loss" in losses}},
        loss_weights={**pretraining.loss_weights, "mlm_loss": teaching.mlm_weight, **losses},
        init=init,
        metrics=functools.partial(batch_metrics, model, teacher, teaching),
        loss_counts=loss_counts,
        constants=teachers_params,
        aside=(PROJECTION,),
    )


def batch_metrics(
    model: Bert,
    teacher: Bert,
    teaching: Teaching,
    params: Params,
    batch: Batch,
    dropout_key: Array | None = None,
    *,
    constants: Params,
) -> Metrics:
    """Computes the losses and accuracies of pretraining, and how far the student is from its teacher.

    Args:
      dropout_key: the student's dropout is on where there is one.
      constants: the teacher's parameters.
    """
    predictions, kept = apply_model(model, params, batch, dropout_key, mutable=STATES)
    metrics = compute_metrics(model, predictions, batch, z_loss=teaching.z_loss)
    words, teachers_kept = teacher.apply(
        {"params": gathered_outside_layers(constants, teacher.mesh)},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt, batch.mlm_positions_bp),
        method="predict_words",
        mutable=STATES,
    )
    if teaching.logits_weight:
        shards = 1 if model.mesh is None else row_shards(model.mesh)
        ours, theirs = _same_words(WordLogits(*predictions[:3]), WordLogits(*words))
        how: dict[str, Any] = {"temperature": teaching.temperature, "dtype": model.dtype, "row_shards": shards}
        total = blockwise_kl(ours, theirs, batch.mlm_weights_bp, **how)
        metrics |= {"logits_loss": Mean(total, batch.mlm_weights_bp.sum())}
    if teaching.hidden_weight:
        ours_of, theirs_of = (states[STATES]["layers"][0] for states in (kept, teachers_kept))
        kernel_de = params[PROJECTION]["kernel"] if PROJECTION in params else None
        weights_n = (batch.sequences_bt > 0).reshape(-1).astype(jnp.float32)
        totals = [
            (hidden_losses(ours_of[mine], theirs_of[its], kernel_de, teaching.hidden_loss) * weights_n).sum()
            for mine, its in teaching.layers
        ]
        metrics |= {"hidden_loss": Mean(sum(totals[1:], start=totals[0]), _num_states(batch, teaching))}
    return metrics


def hidden_losses(ours_nd: Array, theirs_ne: Array, kernel_de: Array | None, loss: HiddenLoss) -> Array:
    """Returns how far each hidden state is from the teacher's, float32 [n].

    Args:
      kernel_de: takes the student's states to the teacher's size; None where they have it.
    """
    ours_ne, theirs_ne = ours_nd.astype(jnp.float32), theirs_ne.astype(jnp.float32)
    if kernel_de is not None:
        ours_ne = ours_ne @ kernel_de
    if loss == "mse":
        return jnp.square(ours_ne - theirs_ne).mean(-1)
    a_n, b_n = (jax.lax.rsqrt(jnp.maximum((x_ne * x_ne).sum(-1), _TINY)) for x_ne in (ours_ne, theirs_ne))
    return 1 - (ours_ne * theirs_ne).sum(-1) * a_n * b_n


def _num_states(batch: Any, teaching: Teaching) -> Array:
    count: Array = len(teaching.layers) * (batch.sequences_bt > 0).sum().astype(jnp.float32)
    return count


def _same_words(ours: WordLogits, theirs: WordLogits) -> tuple[WordLogits, WordLogits]:
    """Both without the words beyond the other's last, which no text has: a table may be larger than its vocabulary."""
    v = min(len(ours.bias_v), len(theirs.bias_v))
    a, b = (one._replace(kernel_dv=one.kernel_dv[:, :v], bias_v=one.bias_v[:v]) for one in (ours, theirs))
    return a, b
