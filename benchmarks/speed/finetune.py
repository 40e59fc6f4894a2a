"""`python -m benchmarks finetune`: examples and texts a second, memory and the first figure, beside other libraries."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import with_checkout
from benchmarks.films import films, minilm, ratings
from benchmarks.speed import table
from benchmarks.speed.benches import OURS, add_shares, describe_model, highest, report_of
from benchmarks.speed.contest import Contender, take_turns
from benchmarks.speed.table import Column
from bertjax.config import Config
from bertjax.config.recipes import save_config
from bertjax.data.prepare_task import prepare_task
from bertjax.inference.pretrained import model_config

COLUMNS = (
    Column("examples_per_second", "examples/s", table.number),
    Column("texts_per_second", "texts/s told", table.number),
    Column("peak_memory_bytes", "peak memory", table.gibibytes),
    Column("first_step_seconds", "first figure", table.seconds),
    Column("again_first_step_seconds", "again", table.seconds),
    Column("share_of_ceiling", "of the ceiling", table.share, compared=False),
)

# transformers' Trainer, as `finetuning_peers` has it. Its longest batches come first: 50 are one group of them.
PEERS: dict[str, dict[str, Any]] = {
    "trainer_float32": {"grouped": False, "bf16": False},
    "trainer_grouped_float32": {"grouped": True, "bf16": False},
    "trainer_grouped_bf16": {"grouped": True, "bf16": True},
}
_STEPS = 50


def with_films(config: Config) -> tuple[Config, str]:
    """Returns the recipe with MiniLM and rated sentences where it names no others, and what to predict.

    They are those about films, whose labels are to be told; where the recipe tells numbers, all, and their ratings.
    """
    if config.init_from is None:
        config = dataclasses.replace(config, init_from=str(minilm()))
    if config.task.train is not None:
        return config, config.task.eval or config.task.train
    files = ratings() if config.task.kind == "score" else films()
    task = dataclasses.replace(config.task, train=str(files.train), eval=str(files.valid))
    return dataclasses.replace(config, task=task), str(files.test)


def measure(
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    rounds: int,
    peer_packages: Sequence[str],
    steps: int = _STEPS,
) -> dict[str, Any]:
    """Returns the report, as `--json` writes it.

    Args:
      folder: an empty one.
      environment: of our contenders.
      say: is told how far it is.
      rounds: times that every contender runs.
      peer_packages: packages of the other libraries that contend; none for ours alone.
      steps: timed in each.
    """
    say("preparing the examples and the model")
    config, texts = with_films(config)
    recipe = str(folder / "config.yaml")
    save_config(config, Path(recipe))
    prepared = prepare_task(config)
    plain = with_checkout(os.environ)
    contenders = {"ceiling": Contender("ceiling", {}, environment)}
    contenders["start"] = Contender("start_finetuning", {"config": recipe}, plain)
    common = {"config": recipe, "texts": texts, "steps": steps}
    for name, overrides in OURS.items():
        contenders[name] = Contender("finetune", {**common, "overrides": overrides, "warm": 3}, environment)
    if peer_packages:
        for name, how in PEERS.items():
            contenders[name] = Contender("finetune_peer", {**common, **how}, plain | {"HF_HUB_OFFLINE": "1"})
    runs = take_turns(contenders, rounds, say)
    ceiling = highest(runs.pop("ceiling"))
    for its, started in zip(runs["ours"], runs.pop("start"), strict=True):
        its |= {key: value for key, value in started.items() if key.endswith("_seconds")}
    add_shares(runs, ceiling)
    examples, batches = prepared.train, prepared.train_batches
    assert config.init_from is not None
    return report_of("finetune", config, runs, ceiling, rounds=rounds, peer_packages=peer_packages) | {
        "model": f"{describe_model(model_config(config.init_from))}; {batches.batch_size} examples a step, of "
        f"{batches.num_sequences:,} of {examples.ids.size / batches.num_sequences:.1f} tokens; {batches.num_rows} "
        f"rows of {batches.row_length}, {batches.fill:.1%} full"
    }
