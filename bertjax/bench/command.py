"""`bertjax bench`: reads the arguments, has the contenders run, prints the table, writes the JSON."""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.bench import table
from bertjax.bench.contest import Contender, Figures, ratios, summarise, take_turns
from bertjax.bench.table import Column
from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.recipe import config_parser, flat, parse_config

HELP = """\
usage: bertjax bench BENCH [--rounds N] [--json FILE] [--peers] [--config FILE] [--KEY VALUE ...]

benches:
  train    pretraining steps, data loading included, and the share of the machine's ceiling reached
  data     batches on one core, and how long a corpus takes to build
  start    seconds to a run's first step, the first time and again; to a help text; to a mistake's message
  encode   texts to vectors
  growth   time against batch, length, layers, hidden size and corpus, as exponents

bertjax bench BENCH --help tells more."""


class Bench(NamedTuple):
    """What is run, and what is shown of it."""

    recipe: str  # in configs/, unless another is given
    description: str
    columns: tuple[Column, ...]
    contenders: Callable[["Setting"], dict[str, Contender]]  # "ours" first
    peers: tuple[str, ...] = ()  # packages that --peers needs


class Setting(NamedTuple):
    """What every contender of a bench is given."""

    config: str  # resolved recipe, its corpus built
    folder: Path  # for files that contenders share; gone afterwards
    environment: Mapping[str, str]  # of ours
    peers: bool


def _train(setting: Setting) -> dict[str, Contender]:
    pace = {"config": setting.config, "warm": 2, "steps": 8}
    contenders = {"ours": Contender("train", pace, setting.environment)}
    if setting.peers:
        for model in ("textbook", "transformers"):
            for precision in ("float32", "bf16"):
                arguments = {**pace, "model": model, "bf16": precision == "bf16", "patience": 15.0}
                contenders[f"{model}_{precision}"] = Contender("train_peer", arguments, _OFFLINE)
    return contenders


_OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1"}  # peers never fetch anything
_RATES = (
    Column("peak_memory_bytes", "peak memory", table.gibibytes),
    Column("share_of_ceiling", "of the ceiling", table.share, compared=False),
)
BENCHES = {
    "train": Bench(
        "textbook.yaml",
        "Time pretraining steps as a recipe says, data loading included.",
        (Column("pairs_per_second", "pairs/s", table.number), *_RATES),
        _train,
        peers=("torch", "transformers"),
    ),
}


def bench(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs the bench that the arguments name.

    Args:
      environment: in which our contenders run, as `bertjax` would itself; peers have the plain one.

    Raises:
      BertjaxError: bad input, before anything is run; or a contender fails.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return
    name = argv[0]
    if name not in BENCHES:
        raise BertjaxError(f"there is no bench {name!r}; give one of {', '.join(BENCHES)}")
    config, options = _parse(name, argv[1:])
    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        report = measure(name, config, Path(folder), environment, rounds=options.rounds, peers=options.peers)
    print(table.render(report, BENCHES[name].columns))
    if options.json:
        _write(options.json, report)


def _parse(name: str, argv: Sequence[str]) -> tuple[Config, Any]:
    its = BENCHES[name]
    parser = config_parser(
        f"bertjax bench {name}",
        usage=f"bertjax bench {name} [--rounds N] [--json FILE] [--peers] [--config FILE] [--KEY VALUE ...]",
        description=f"{its.description} Without --config, the recipe is configs/{its.recipe}.",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that every contender runs, in turn")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    parser.add_argument("--peers", action="store_true", help="run PyTorch's contenders too, in turn with ours")
    if not any(word == "--config" or word.startswith("--config=") for word in argv):
        recipe = Path(__file__).parents[2] / "configs" / its.recipe
        if not recipe.is_file() and not {"-h", "--help"} & set(argv):
            raise BertjaxError(
                f"there is no {recipe}, for bertjax is installed without its recipes; give --config FILE"
            )
        argv = ["--config", str(recipe), *argv] if recipe.is_file() else argv
    config, options = parse_config(parser, argv)
    if options.rounds < 1:
        raise BertjaxError(f"--rounds {options.rounds} is impossible; give 1 or more")
    if options.json:
        _check_free("--json", Path(options.json))
    if options.peers:
        _check_installed(name, its.peers)
    return config, options


def _check_free(option: str, path: Path) -> None:
    if path.exists():
        raise BertjaxError(f"{option} {path} exists and is left as it is; give another name")
    if not path.parent.is_dir():
        raise BertjaxError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _check_installed(name: str, packages: Sequence[str]) -> None:
    if not packages:
        with_peers = ", ".join(other for other, its in BENCHES.items() if its.peers)
        raise BertjaxError(f"bench {name} has no peers; leave out --peers, or give one of {with_peers}")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise BertjaxError(f"--peers needs {', '.join(missing)}; pip install 'bertjax[peers]'")


def measure(
    name: str, config: Config, folder: Path, environment: Mapping[str, str], *, rounds: int, peers: bool
) -> dict[str, Any]:
    """The report: what `--json` writes."""
    from bertjax.bench.text import prepare_text  # tokenizers are slow to import

    _say("preparing the text")
    prepared, text = prepare_text(config, folder)
    setting = Setting(str(folder / "config.yaml"), folder, environment, peers)
    contenders = BENCHES[name].contenders(setting)
    runs = take_turns({"ceiling": Contender("ceiling", {}, environment), **contenders}, rounds, _say)
    ceiling = _highest(runs.pop("ceiling"))
    for contender, its in runs.items():
        _add_share(its, ceiling, bf16=contender.endswith("bf16"))
    ours = runs.pop("ours")
    report: dict[str, Any] = {
        "bench": name,
        "rounds": rounds,
        "machine": table.describe_machine(BENCHES[name].peers if peers else ()),
        "text": {
            "name": text,
            "tokens": int(prepared.train.ids.size),
            "vocabulary": prepared.tokenizer.vocab_size,
            "tokens_per_pair": _tokens_per_pair(prepared.train_batches.batch_at(0)),
            "max_length": config.data.max_length,
        },
        "model": _describe_model(prepared.config),
        "recipe": flat(config),
        "ceiling": ceiling,
        name: summarise(ours),
    }
    if peers:
        report["peers"] = {peer: {name: summarise(theirs)} for peer, theirs in runs.items()}
        report["ratios"] = {peer: ratios(ours, theirs) for peer, theirs in runs.items()}
    return report


def _highest(runs: Sequence[Figures]) -> Figures:
    """The ceiling is the best that any round saw."""
    return {key: max(run[key] for run in runs) if isinstance(value, float) else value for key, value in runs[0].items()}


def _add_share(runs: Sequence[Figures], ceiling: Figures, *, bf16: bool) -> None:
    flops = ceiling["bf16_flops" if bf16 else "float32_flops"]
    for run in runs:
        if "useful_flops" in run:
            run["share_of_ceiling"] = run["useful_flops"] / (flops * run.get("devices", 1))


def _tokens_per_pair(batch: Any) -> float:
    return float((batch.sequences_bt > 0).sum() / batch.nsp_weights_bk.sum())


def _describe_model(config: Config) -> str:
    model = config.model
    return (
        f"{model.num_layers} layers, {model.hidden_size} hidden, {model.num_heads} heads, "
        f"{model.intermediate_size} intermediate; {config.train.batch_size} pairs a step"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(path: str, report: dict[str, Any]) -> None:
    try:
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BertjaxError(f"cannot write --json {path}: {error.strerror}; give another place") from error
