"""Benchmarks of speed: their contenders, the columns of their tables, and their reports."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environment import with_checkout
from benchmarks.speed import table
from benchmarks.speed.contest import Contender, Figures, ratios, run, summarise, take_turns
from benchmarks.speed.shared_folder import SharedFolder
from benchmarks.speed.table import Column
from benchmarks.speed.text import prepare_text
from bertjax.config import BertConfig, Config
from bertjax.config.recipes import flat
from bertjax.data.prepare import Prepared
from bertjax.models.operations import sequence_lengths


class Setting(NamedTuple):
    """All that the contenders of a benchmark are given."""

    config: str  # resolved recipe, its corpus built
    prepared: Prepared
    folder: Path  # for what they share; gone afterwards
    environment: Mapping[str, str]  # of ours, as `bertjax` itself would have it
    plain_environment: Mapping[str, str]  # of the peers, which never fetch anything
    peers: bool


class Bench(NamedTuple):
    contenders: Callable[[Setting], dict[str, Contender]]  # those of OURS, then the peers
    columns: tuple[Column, ...]


# Ours, as overrides of the recipe. The one named ours_bf16 is compared with the peers in bf16, the other with the rest.
OURS: dict[str, list[str]] = {"ours": [], "ours_bf16": ["train.precision=bfloat16"]}


def measure(
    name: str,
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    rounds: int,
    peer_packages: Sequence[str],
) -> dict[str, Any]:
    """Returns the report of a benchmark, as `--json` writes it.

    Args:
      folder: an empty one.
      environment: of our contenders.
      say: is told how far it is.
      rounds: times that every contender runs.
      peer_packages: packages of the other libraries that contend; none for ours alone.
    """
    say("preparing the text")
    prepared, text = prepare_text(config, folder)
    offline = with_checkout(os.environ) | {"HF_HUB_OFFLINE": "1"}
    setting = Setting(str(folder / "config.yaml"), prepared, folder, environment, offline, bool(peer_packages))
    contenders = BENCHES[name].contenders(setting)
    runs = take_turns({"ceiling": Contender("ceiling", {}, environment), **contenders}, rounds, say)
    ceiling = highest(runs.pop("ceiling"))
    add_shares(runs, ceiling)
    if name == "encode":
        _add_cosines(runs, SharedFolder(folder))
    at_once = f"{_TEXTS} sentences" if name == "encode" else f"{config.train.batch_size} pairs a step"
    text_figures = {
        "name": text,
        "tokens": int(prepared.train.ids.size),
        "vocabulary": prepared.tokenizer.vocab_size,
        "tokens_per_pair": _tokens_per_pair(prepared),
        "max_length": config.data.max_length,
    }
    report = report_of(name, config, runs, ceiling, rounds=rounds, peer_packages=peer_packages)
    return report | {"text": text_figures, "model": f"{describe_model(prepared.config.model)}; {at_once}"}


def report_of(
    name: str,
    config: Config,
    runs: Mapping[str, list[Figures]],
    ceiling: Figures,
    *,
    rounds: int,
    peer_packages: Sequence[str],
) -> dict[str, Any]:
    """Returns what every report tells: the machine, the recipe, each contender's figures, and ratios.

    Args:
      runs: of the contenders, those of OURS first.
      ceiling: the machine's highest rates.
    """
    ours = {contender: its for contender, its in runs.items() if contender.startswith("ours")}
    theirs = {contender: its for contender, its in runs.items() if contender not in ours}
    report: dict[str, Any] = {
        "bench": name,
        "rounds": rounds,
        "machine": table.describe_machine(peer_packages),
        "recipe": flat(config),
        "ceiling": ceiling,
        name: summarise(ours["ours"]),
        "variants": {variant: {name: summarise(its)} for variant, its in ours.items() if variant != "ours"},
        "peers": {peer: {name: summarise(its)} for peer, its in theirs.items()},
        "ratios": {},
    }
    for peer, its in theirs.items():
        rival = "ours_bf16" if peer.endswith("bf16") and "ours_bf16" in ours else "ours"
        report["ratios"].setdefault(rival, {})[peer] = ratios(ours[rival], its)
    return report


def highest(runs: Sequence[Figures]) -> Figures:
    """Returns the highest of every figure over the rounds."""
    return {key: max(run[key] for run in runs) if isinstance(value, float) else value for key, value in runs[0].items()}


def describe_model(model: BertConfig) -> str:
    return (
        f"{model.num_layers} layers, {model.hidden_size} hidden, {model.num_heads} heads, "
        f"{model.intermediate_size} intermediate"
    )


def add_shares(runs: Mapping[str, list[Figures]], ceiling: Figures) -> None:
    """Adds to each run that tells its operations the share that they are of the highest rate in its precision."""
    for contender, its in runs.items():
        highest_flops = ceiling["bf16_flops" if contender.endswith("bf16") else "float32_flops"]
        for one in its:
            if "useful_flops" in one:
                one["share_of_ceiling"] = one["useful_flops"] / (highest_flops * one.get("devices", 1))


def _add_cosines(runs: Mapping[str, Sequence[Figures]], shared: SharedFolder) -> None:
    for contender, its in runs.items():
        if contender != "ours":
            for one in its:
                one["least_cosine_to_ours"] = shared.least_cosine(contender, "ours")


def _tokens_per_pair(prepared: Prepared) -> float:
    batches = [prepared.train_batches.batch_at(step) for step in range(10)]
    return float(np.concatenate([sequence_lengths(batch.sequences_bt) for batch in batches]).mean())


def _train(setting: Setting) -> dict[str, Contender]:
    pace = {"warm": 2, "steps": 8}
    contenders = {
        name: Contender("train", {"config": setting.config, "overrides": overrides, **pace}, setting.environment)
        for name, overrides in OURS.items()
    }
    if setting.peers:
        for model in ("textbook", "transformers"):
            for precision in ("float32", "bf16"):
                its = {"config": setting.config, "model": model, "bf16": precision == "bf16", **pace, "patience": 15.0}
                contenders[f"{model}_{precision}"] = Contender("train_peer", its, setting.plain_environment)
    return contenders


def _data(setting: Setting) -> dict[str, Contender]:
    return {"ours": Contender("data", {"config": setting.config, "batches": 50}, setting.environment)}


def _start(setting: Setting) -> dict[str, Contender]:
    return {"ours": Contender("start", {"config": setting.config}, setting.plain_environment)}


def _encode(setting: Setting) -> dict[str, Contender]:
    SharedFolder(setting.folder).write_texts(setting.prepared, _TEXTS)
    common = {"config": setting.config, "folder": str(setting.folder)}
    run(Contender("make_weights", common, setting.environment))
    contenders = {
        name: Contender("encode", {**common, "overrides": overrides, "name": name}, setting.environment)
        for name, overrides in OURS.items()
    }
    if setting.peers:
        run(Contender("export_to_peers", common, setting.plain_environment))
        onnx = ("onnxruntime", "onnxruntime_ours", "onnxruntime_ours_int8")
        for name in ("transformers_float32", "transformers_bf16", "sentence_transformers", *onnx):
            contenders[name] = Contender("encode_peer", {**common, "name": name}, setting.plain_environment)
    return contenders


def _layers(setting: Setting) -> dict[str, Contender]:
    remat, scan = "train.remat=true", "train.scan_layers=true"
    ways = {"ours": [], "ours_remat": [remat], "ours_scan": [scan], "ours_remat_scan": [remat, scan]}
    return {
        name: Contender("layers", {"config": setting.config, "overrides": overrides}, setting.plain_environment)
        for name, overrides in ways.items()
    }


_TEXTS = 512  # sentences to encode
_MEMORY = Column("peak_memory_bytes", "peak memory", table.gibibytes)
_SHARE = Column("share_of_ceiling", "of the ceiling", table.share, compared=False)
BENCHES = {
    "train": Bench(_train, (Column("pairs_per_second", "pairs/s", table.number), _MEMORY, _SHARE)),
    "data": Bench(
        _data,
        (
            Column("pairs_per_second", "pairs/s on one core", table.number),
            Column("build_seconds", "corpus and vocabulary built in", table.seconds),
            _MEMORY,
        ),
    ),
    "start": Bench(
        _start,
        (
            Column("first_step_seconds", "first step", table.seconds),
            Column("again_first_step_seconds", "again", table.seconds),
            Column("help_seconds", "--help", table.seconds),
            Column("mistake_seconds", "a mistake", table.seconds),
            _MEMORY,
        ),
    ),
    "layers": Bench(
        _layers,
        (
            Column("compile_seconds", "compiled in", table.seconds),
            Column("step_bytes", "a step holds", table.gibibytes),
        ),
    ),
    "encode": Bench(
        _encode,
        (
            Column("tokens_per_second", "tokens/s", table.number),
            _MEMORY,
            _SHARE,
            Column("least_cosine_to_ours", "cosine", table.cosine),
            Column("compiled_shapes", "shapes", table.number),
        ),
    ),
}
