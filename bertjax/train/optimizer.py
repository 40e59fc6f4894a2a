"""The optimiser: its schedule, which parameters are decayed and which are Muon's, and the optax chain."""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from optax import contrib

from bertjax.config import OptimConfig
from bertjax.errors import BertjaxError
from bertjax.models.parts import depths

# Whether a parameter is decayed, by the last part of its path, which fits exactly one: matrices and embedding tables
# are, biases and norms are not, as BERT's own optimiser has it; so are what LoRA multiplies. A new kind of parameter
# needs its rule here.
DECAYED = (
    (r"kernel", True),
    (r"\w+_embedding", True),
    (r"[ab]", True),
    (r"(relative_attention_)?bias", False),
    (r"scale", False),
)

NSP_HEAD = ("pooler", "nsp")  # the first parts of its parameters' paths


class Rate(NamedTuple):
    """What a schedule scales by; a program may have it as an input."""

    highest: ArrayLike  # learning rate
    rise: ArrayLike  # of each update while it warms up


def rate_of(config: OptimConfig, steps: int) -> Rate:
    """Returns what the schedule of a run of so many steps scales by."""
    return Rate(config.learning_rate, config.learning_rate / max(1, config.warmup_of(steps)))


def make_schedule(config: OptimConfig, steps: int, rate: Rate | None = None) -> optax.Schedule:
    """Returns the learning rate of update 0, 1, ..., steps - 1; none of them is 0.

    Args:
      config: the highest rate, and how it rises and falls.
      steps: updates in the whole run; the rate falls towards the last.
      rate: by default the configuration's.
    """
    (highest, rise), warmup_steps = rate or rate_of(config, steps), config.warmup_of(steps)
    after = max(1, steps - warmup_steps)
    falling = min(after, max(1, round(config.decay_share * steps)))
    decay = {
        "constant": optax.constant_schedule(highest),
        "linear": optax.linear_schedule(highest, 0.0, after),
        "cosine": optax.cosine_decay_schedule(highest, after),
        "wsd": optax.linear_schedule(highest, 0.0, falling, transition_begin=after - falling),
    }[config.schedule]
    if not warmup_steps:
        return decay
    return optax.join_schedules([lambda update: rise * (update + 1), decay], [warmup_steps])


def decay_mask(params: Any) -> Any:
    """Returns a tree of whether each parameter is decayed, by `DECAYED`.

    Raises:
      BertjaxError: a parameter fits no rule, or several.
    """

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = [answer for rule, answer in DECAYED if re.fullmatch(rule, name.rpartition("/")[2])]
        if len(found) != 1:
            raise BertjaxError(
                f"{name} fits {len(found) or 'none'} of the rules of bertjax/train/optimizer.py, which say whether a "
                "parameter is decayed; give it one in DECAYED, or a name that has one"
            )
        return found[0]

    return jax.tree.map_with_path(decayed, params)


def muon_labels(params: Any) -> Any:
    """Returns a tree of "muon" for the matrices of the encoder's layers, "adamw" for the rest.

    The rows of the others are words or classes.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        return "muon" if path[0].key.startswith("block_") and path[-1].key == "kernel" else "adamw"

    return jax.tree.map_with_path(label, params)


def _trust_ratios(updates: Any, params: Any) -> Any:
    """Scales the updates of what is decayed by the ratio of the norms of parameter and update, where neither is 0.

    So does the authors' own code. `optax.masked` alone would keep another state than runs of LAMB have saved.
    """
    scaled = optax.masked(optax.scale_by_trust_ratio(), decay_mask)
    return scaled.update(updates, scaled.init(params), params)[0]


def _clip(updates: Any, _: Any, *, norm: float) -> Any:
    """Scales the updates down to a norm over all of them (Pascanu et al. 2013, arXiv:1211.5063), if theirs is higher.

    `optax.clip_by_global_norm` divides each number instead of once, for which XLA passes over all of them once more.
    """
    share = norm / jnp.maximum(optax.tree.norm(updates), norm)
    return jax.tree.map(lambda update: share * update, updates)


def _scale_nsp(updates: Any, _: Any, *, share: float) -> Any:
    """Scales the updates of the NSP head alone."""
    return updates | {part: jax.tree.map(lambda x: share * x, updates[part]) for part in NSP_HEAD if part in updates}


def _scale_by_depth(updates: Any, _: Any, *, share: float) -> Any:
    """Scales the updates of each layer by a share of those of the layer above it; embeddings are below the first."""
    depth_of, top = depths(updates)
    return jax.tree.map(lambda update, depth: share ** (top - depth) * update, updates, depth_of)


def make_optimizer(config: OptimConfig, steps: int, rate: Rate | None = None) -> optax.GradientTransformation:
    """Returns the optimiser, behind gradient clipping if asked for.

    Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), LAMB (You et al. 2020) or Muon (Jordan et al. 2024),
    whose matrices have a learning rate of their own on the same schedule: the singular values of an update are near
    that rate, times sqrt(features out / features in) where more come out than go in.

    Args:
      steps, rate: as of `make_schedule`. Muon's matrices and the NSP head have rates of the configuration's.
    """
    schedule = make_schedule(config, steps, rate)
    of_adam = (config.b1, config.b2, config.eps)
    if config.name == "adam":
        update = optax.adam(schedule, *of_adam)
    elif config.name == "lamb":
        update = optax.chain(
            optax.scale_by_adam(*of_adam),
            optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
            optax.stateless(_trust_ratios),  # `optax.lamb` would hold biases near the 0 that they begin with
            optax.scale_by_learning_rate(schedule),
        )
    else:
        update = optax.adamw(schedule, *of_adam, weight_decay=config.weight_decay, mask=decay_mask)
    if config.name == "muon":
        ratio = config.muon_learning_rate / config.learning_rate
        muon = contrib.muon(lambda update: ratio * schedule(update), weight_decay=config.weight_decay)
        update = optax.partition({"muon": muon, "adamw": update}, muon_labels)
    if config.nsp_learning_rate is not None:
        scale = functools.partial(_scale_nsp, share=config.nsp_learning_rate / config.learning_rate)
        update = optax.chain(update, optax.stateless(scale))
    if config.layer_decay != 1:
        update = optax.chain(update, optax.stateless(functools.partial(_scale_by_depth, share=config.layer_decay)))
    if config.clip_norm is None:
        return update
    return optax.chain(optax.stateless(functools.partial(_clip, norm=config.clip_norm)), update)
