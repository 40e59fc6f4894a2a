"""Contenders of bertjax, as a user's run does it. Each function is called in a process of its own."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.speed.shared_folder import SharedFolder, nested
from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.data.batching.ahead import made_ahead
from bertjax.data.batching.batches import Batches
from bertjax.data.examples import read_rows
from bertjax.data.prepare import prepare
from bertjax.data.targets import label_reader
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.inference.encoder import Encoder
from bertjax.inference.sequence_head import SequenceHead
from bertjax.models.bert import Bert, init_params, make_model
from bertjax.models.operations import encoding_figures, training_figures, training_operations
from bertjax.objectives.metrics import Metrics
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import make_mesh, place_batch
from bertjax.runs.folder import RunFolder
from bertjax.storage.memory import give_back_freed
from bertjax.train.finetune import course_of
from bertjax.train.open_run import with_model_of_init
from bertjax.train.programs import Programs, compile_ahead, make_programs
from bertjax.train.state import TrainState, with_params


def train(*, config: str, overrides: list[str], warm: int, steps: int) -> dict[str, Any]:
    """Times steps of the recipe, data loading included, the first ones left out."""
    recipe = load_config(config, overrides)
    batches = prepare(recipe).train_batches
    seconds = timed_steps(recipe, batches, warm + steps).seconds[warm:]
    measured = [batches.batch_at(step) for step in range(warm, warm + steps)]
    return training_figures(recipe.model, measured, seconds) | {"devices": jax.device_count()}


class TimedSteps(NamedTuple):
    """Training steps, one after the other."""

    seconds: list[float]  # from one step's end to the next one's; the first compiles
    metrics: list[Metrics]  # on the host
    go_on: Callable[[int], Any]  # makes so many more; to be called once, for it uses up the state


def timed_steps(config: Config, batches: Any, steps: int) -> TimedSteps:
    """Runs steps from fresh weights in the loop of `bertjax pretrain`: each is dispatched before the last is read.

    Args:
      batches: anything with `batch_at`.
    """
    mesh = make_mesh(*config.mesh_sizes(jax.device_count()))
    objective = pretraining_objective(make_model(config.model, config.train).clone(mesh=mesh))
    programs = make_programs(config, objective, mesh)
    seconds, metrics, state = _time_steps(config, programs, programs.init(config.seed), batches, mesh, steps)

    def go_on(more: int) -> Any:
        return _time_steps(config, programs, state, batches, mesh, more, compiled=True)

    return TimedSteps(seconds, metrics, go_on)


class Training(NamedTuple):
    """A run after its first steps."""

    program: str  # the step's, compiled, as XLA prints it
    go_on: Callable[[int], list[float]]  # makes so many more and returns their seconds; to be called once


def training_in_progress(recipe: Config, warm: int) -> Training:
    """Begins a run of pretraining or fine-tuning and makes its first steps."""
    if recipe.task.kind == "pretrain":
        prepared: Any = prepare(recipe)
        config, mesh = prepared.config, make_mesh(*recipe.mesh_sizes(jax.device_count()))
        objective = pretraining_objective(make_model(config.model, config.train).clone(mesh=mesh))
        programs = make_programs(config, objective, mesh)
        _, _, state = _time_steps(config, programs, programs.init(config.seed), prepared.train_batches, mesh, warm)
    else:
        prepared, programs, _, state = _fine_tuned(recipe, 0, warm)
        config, mesh = prepared.config, make_mesh(*recipe.mesh_sizes(jax.device_count()))
    batches = prepared.train_batches
    train_step: Any = programs.train_step(config.train.steps)
    batch = place_batch(batches.batch_at(0), mesh, parts=config.train.parts)
    program = train_step.lower(programs.template, batch, config.seed).compile().as_text()

    def go_on(steps: int) -> list[float]:
        return _time_steps(config, programs, state, batches, mesh, steps, compiled=True)[0]

    return Training(program, go_on)


def _time_steps(
    config: Config,
    programs: Programs,
    state: TrainState,
    batches: Any,
    mesh: Mesh,
    steps: int,
    *,
    compiled: bool = False,
) -> tuple[list[float], list[Metrics], TrainState]:
    train_step = programs.train_step(config.train.steps)
    ends = [time.perf_counter()]
    read: list[Metrics] = []
    pending = None
    for step, rows in enumerate(made_ahead(batches.batch_at, range(steps))):
        batch = place_batch(rows, mesh, parts=config.train.parts)
        if step == 0 and not compiled:
            compile_ahead(train_step, state, batch, config.seed)
        state, metrics = train_step(state, batch, config.seed)
        if pending is not None:
            read.append(jax.device_get(pending))
            ends.append(time.perf_counter())
        pending = metrics
    read.append(jax.device_get(pending))
    ends.append(time.perf_counter())
    return np.diff(ends).tolist(), read, state


def finetune(*, config: str, overrides: list[str], texts: str, warm: int, steps: int) -> dict[str, Any]:
    """Times steps of fine-tuning, data loading included, the first ones left out; then the labels of texts.

    Args:
      texts: examples whose labels are told twice, as the first time compiles.
    """
    prepared, programs, seconds, state = _fine_tuned(load_config(config, overrides), warm, steps)
    recipe = prepared.config
    told = [row.item for row in read_rows(recipe.task, texts, "texts", label_reader(recipe.task))]
    head = SequenceHead(
        *(recipe.model, programs.plain(state.eval_params), prepared.tokenizer),
        max_length=recipe.data.max_length,
        precision=recipe.train.precision,
        mesh=recipe.mesh,
    )
    head.logits(told)
    start = time.perf_counter()
    head.logits(told)
    of_labels = time.perf_counter() - start
    figures = _figures(prepared, seconds, warm)
    return {"examples_per_second": figures.pop("per_second"), "texts_per_second": len(told) / of_labels, **figures}


def embed(*, config: str, overrides: list[str], warm: int, steps: int) -> dict[str, Any]:
    """Times steps that learn embeddings, data loading included, the first ones left out."""
    prepared, _, seconds, _ = _fine_tuned(load_config(config, overrides), warm, steps)
    figures = _figures(prepared, seconds, warm)
    return {"pairs_per_second": figures.pop("per_second"), **figures}


def _fine_tuned(recipe: Config, warm: int, steps: int) -> tuple[Any, Programs, list[float], TrainState]:
    """What was prepared, the programs, the seconds of the steps after the first ones, and the state at their end."""
    recipe = with_model_of_init(recipe, RunFolder(recipe.run_dir), resume=False)
    course = course_of(recipe)
    prepared, mesh = course.prepare(recipe), make_mesh(*recipe.mesh_sizes(jax.device_count()))
    task = course.task(prepared, mesh)
    programs = make_programs(prepared.config, task.objective, mesh)
    fresh = programs.init(recipe.seed)
    whole = task.initial_state(fresh._replace(params=fresh.all_params, frozen=None))
    state = with_params(fresh, whole.params)
    del fresh, whole
    give_back_freed()
    seconds, _, state = _time_steps(prepared.config, programs, state, prepared.train_batches, mesh, warm + steps)
    return prepared, programs, seconds[warm:], state


def _figures(prepared: Any, seconds: list[float], warm: int) -> dict[str, Any]:
    batches, measured = prepared.train_batches, range(warm, warm + len(seconds))
    operations = sum(training_operations(prepared.config.model, batches.batch_at(step)) for step in measured)
    return {
        "per_second": sum(batches.batch_size_at(step) for step in measured) / sum(seconds),
        "useful_flops": operations / sum(seconds),
        "fill": batches.fill,
        "devices": jax.device_count(),
    }


def layers(*, config: str, overrides: list[str]) -> dict[str, Any]:
    """Compiles a training step, runs nothing: seconds, and what the program would hold beside its arguments."""
    recipe = load_config(config, overrides)
    mesh = make_mesh(*recipe.mesh_sizes(jax.device_count()))
    objective = pretraining_objective(make_model(recipe.model, recipe.train).clone(mesh=mesh))
    programs = make_programs(recipe, objective, mesh)
    train_step: Any = programs.train_step(recipe.train.steps)
    batch = place_batch(prepare(recipe).train_batches.batch_at(0), mesh)
    state = programs.template
    start = time.perf_counter()
    program = train_step.lower(state, batch, recipe.seed).compile()
    seconds = time.perf_counter() - start
    return {"compile_seconds": seconds, "step_bytes": program.memory_analysis().temp_size_in_bytes}


def data(*, config: str, batches: int) -> dict[str, Any]:
    """Times batches made on one core, and the corpus built anew."""
    recipe = load_config(config)
    with tempfile.TemporaryDirectory() as cache:
        split = recipe.data.train_split
        alone = dataclasses.replace(recipe.data, cache=cache, eval_split=split)
        start = time.perf_counter()
        prepared = prepare(dataclasses.replace(recipe, data=alone))
        build_seconds = time.perf_counter() - start
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rate = pairs_per_second(prepared.train_batches, batches)
        return {
            "pairs_per_second": rate,
            "build_seconds": build_seconds,
            "build_tokens_per_second": prepared.train.ids.size / build_seconds,
        }


def pairs_per_second(pairs: Batches, batches: int) -> float:
    """Returns the pairs a second of `batch_at` when warm."""
    pairs.batch_at(0)
    start = time.perf_counter()
    for step in range(1, batches + 1):
        pairs.batch_at(step)
    return batches * pairs.batch_size / (time.perf_counter() - start)


def make_weights(*, config: str, folder: str) -> dict[str, Any]:
    """Writes fresh weights of the recipe's model, the same for all that encode."""
    recipe = load_config(config)
    params = init_params(Bert(recipe.model), jax.random.key(recipe.seed))
    SharedFolder(folder).write_weights(jax.device_get(params))
    return {}


def encode(*, config: str, overrides: list[str], folder: str, name: str) -> dict[str, Any]:
    """Times the second of two times that the same texts are encoded: the first one compiles."""
    recipe, shared = load_config(config, overrides), SharedFolder(folder)
    params = jax.device_put(nested(shared.weights()), jax.devices()[0])
    tokenizer = load_tokenizer(shared.tokenizer)
    encoder = Encoder(recipe.model, params, tokenizer, precision=recipe.train.precision, mesh=recipe.mesh)
    texts = shared.texts()
    start = time.perf_counter()
    encoder.encode(texts)
    compiled = time.perf_counter()
    vectors = encoder.encode(texts)
    seconds = time.perf_counter() - compiled
    shared.write_vectors(name, vectors)
    forward: Any = encoder.engine.forward
    return {
        **encoding_figures(recipe.model, shared.lengths(), seconds),
        "first_seconds": compiled - start,
        "compiled_shapes": forward._cache_size(),
    }
