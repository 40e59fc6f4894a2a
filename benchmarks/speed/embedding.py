"""`python -m benchmarks embed`: pairs of texts a second that embeddings are learned from, beside another library."""

import csv
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import with_checkout
from benchmarks.films import minilm, sentences
from benchmarks.speed import table
from benchmarks.speed.benches import OURS, add_shares, describe_model, highest, report_of
from benchmarks.speed.contest import Contender, take_turns
from benchmarks.speed.table import Column
from bertjax.config import Config
from bertjax.config.recipes import save_config
from bertjax.inference.pretrained import model_config

COLUMNS = (
    Column("pairs_per_second", "pairs/s", table.number),
    Column("peak_memory_bytes", "peak memory", table.gibibytes),
    Column("share_of_ceiling", "of the ceiling", table.share, compared=False),
)
PEERS: dict[str, dict[str, Any]] = {"trainer_float32": {"bf16": False}, "trainer_bf16": {"bf16": True}}
_STEPS = 4  # of 256 pairs each; how long one takes depends on its texts alone, of which each has its share


def with_pairs(config: Config, folder: Path) -> Config:
    """Returns the recipe with MiniLM, and pairs of sentences about films, where it names no others.

    What belongs together is of no account to how long a step takes: each sentence's pair is the one after it.
    """
    if config.init_from is None:
        config = dataclasses.replace(config, init_from=str(minilm()))
    if config.task.train is not None:
        return config
    texts = sentences()
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "pair"), *zip(texts[::2], texts[1::2], strict=False)])
    return dataclasses.replace(config, task=dataclasses.replace(config.task, train=str(folder / "pairs.csv")))


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
    """Returns the report, as `--json` writes it; the arguments are those of the other benchmarks.

    Args:
      steps: timed in each, after one that compiles.
    """
    say("preparing the pairs and the model")
    config = with_pairs(config, folder)
    recipe = str(folder / "config.yaml")
    save_config(config, Path(recipe))
    contenders = {"ceiling": Contender("ceiling", {}, environment)}
    for name, overrides in OURS.items():
        arguments = {"config": recipe, "overrides": overrides, "warm": 1, "steps": steps}
        contenders[name] = Contender("embed", arguments, environment)
    if peer_packages:
        offline = with_checkout(os.environ) | {"HF_HUB_OFFLINE": "1"}
        for name, how in PEERS.items():
            contenders[name] = Contender("embed_peer", {"config": recipe, "steps": steps, **how}, offline)
    runs = take_turns(contenders, rounds, say)
    ceiling = highest(runs.pop("ceiling"))
    add_shares(runs, ceiling)
    assert config.init_from is not None
    return report_of("embed", config, runs, ceiling, rounds=rounds, peer_packages=peer_packages) | {
        "model": f"{describe_model(model_config(config.init_from))}; {config.train.batch_size} pairs a step"
    }
