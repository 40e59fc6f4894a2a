"""Schedules, the decay mask, and the optax chain."""

from typing import Any

import jax
import optax

from bertjax.config import OptimConfig


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate of update 0, 1, ..., steps - 1; none of them is 0."""
    after = max(1, steps - config.warmup_steps)
    decay = {
        "constant": optax.constant_schedule(config.learning_rate),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, after),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
    }[config.schedule]
    if not config.warmup_steps:
        return decay
    rise = config.learning_rate / config.warmup_steps
    return optax.join_schedules([lambda update: rise * (update + 1), decay], [config.warmup_steps])


def decay_mask(params: Any) -> Any:
    """True for matrices and embedding tables, False for biases and norms, as BERT's own optimiser has it."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key.endswith(("kernel", "_embedding")), params)


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019), behind gradient clipping if asked for."""
    schedule = make_schedule(config, steps)
    if config.name == "adam":
        update = optax.adam(schedule, config.b1, config.b2, config.eps)
    else:
        update = optax.adamw(
            schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decay_mask
        )
    if config.clip_norm is None:
        return update
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
