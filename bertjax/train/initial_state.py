"""What a recipe has the devices do, and the state before the first step: random weights, or those of a trained folder,
or what counts of the text give."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bertjax.data.batching.batch import Batch
from bertjax.data.prepare import Prepared
from bertjax.data.statistics.cooccurrence import cooccurrence_embedding
from bertjax.data.statistics.frequencies import log_frequencies
from bertjax.evaluation.evaluate import EvalStep, compile_eval_step
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert, make_model
from bertjax.objectives.metrics import Metrics
from bertjax.objectives.pretraining import LossWeights
from bertjax.parallel.sharding import place_params
from bertjax.train.optimizer import make_optimizer, make_schedule
from bertjax.train.step import TrainState, compile_train_step, init_on, state_template

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class Programs(NamedTuple):
    """What a recipe has the devices of a mesh do. Each is compiled when it is first called."""

    model: Bert
    train_step: Callable[[int], TrainStep]  # of a run of so many steps
    eval_step: EvalStep
    fresh_state: Callable[[], TrainState]
    template: TrainState  # shapes and dtypes of a state


def make_programs(prepared: Prepared, mesh: Mesh) -> Programs:
    """Of the recipe that a text was prepared for."""
    config = prepared.config
    model, optimizer = make_model(config.model, config.train), make_optimizer(config.optim, config.train.steps)
    averaging = config.optim.ema_decay is not None

    @functools.cache
    def train_step(steps: int) -> TrainStep:
        return compile_train_step(
            *(mesh, model, make_optimizer(config.optim, steps), make_schedule(config.optim, steps)),
            seed=config.seed,
            gradient_accumulation_steps=config.train.gradient_accumulation_steps,
            weights=LossWeights(config.train.nsp_weight, config.train.z_loss),
            ema_decay=config.optim.ema_decay,
        )

    initial = functools.partial(init_on, mesh, model, optimizer, config.seed, averaging=averaging)
    return Programs(
        model,
        train_step,
        compile_eval_step(mesh, model),
        functools.partial(fresh_state, prepared, mesh, initial),
        state_template(model, optimizer, averaging=averaging),
    )


def fresh_state(prepared: Prepared, mesh: Mesh, initial: Callable[[], TrainState]) -> TrainState:
    """The state before the first step, with the weights of the folder, or the counts, that the run starts from."""
    config, state = prepared.config, initial()
    if config.init_from is None:
        return state._replace(params=_from_counts(prepared, mesh, state.params))
    found = load(config.init_from, mesh).params
    print(f"weights:  those of {config.init_from} to begin with")
    if lacking := [part for part in state.params if part not in found]:
        print(f"NOTICE:   {config.init_from} has no weights of {', '.join(lacking)}: the run starts with fresh ones")
    return state._replace(params=state.params | found)


def _from_counts(prepared: Prepared, mesh: Mesh, params: dict[str, Any]) -> dict[str, Any]:
    """Fresh parameters, but for those that are to start from the words of the training text."""
    data, model, corpus = prepared.config.data, prepared.config.model, prepared.train
    vocabulary, size = prepared.tokenizer.vocabulary, model.vocab_size
    assert size is not None
    if model.frequency_bias:
        bias_v = log_frequencies(corpus, vocabulary, size, predict_unk=data.predict_unk)
        head = {"bias": bias_v} if model.tie_word_embeddings else {"vocab": {"bias": bias_v}}
        params = _merged(params, place_params({"mlm": head}, mesh))
    if model.cooccurrence_embedding:
        scale = model.init_scale if model.init == "bert" else 1.0
        table_vd, known_v = cooccurrence_embedding(
            corpus, vocabulary, size, model.hidden_size, scale=scale, seed=prepared.config.seed
        )
        table_vd, random_vd = (
            place_params({"token_embedding": table_vd}, mesh)["token_embedding"],
            params["token_embedding"],
        )
        choose = jax.jit(functools.partial(jnp.where, known_v[:, None]), out_shardings=random_vd.sharding)
        params = params | {"token_embedding": choose(table_vd, random_vd)}
    return params


def _merged(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return tree | {key: _merged(tree[key], leaf) if isinstance(leaf, dict) else leaf for key, leaf in other.items()}
