"""`bertjax bench`: reads the arguments, has a bench run, prints its table, writes its JSON and its plot."""

import contextlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.config.parser import config_parser, parse_config
from bertjax.errors import BertjaxError

HELP = """\
usage: bertjax bench BENCH [--rounds N] [--json FILE] [--peers] [--config FILE] [--KEY VALUE ...]

benches:
  train    pretraining steps, data loading included, and the share of the machine's ceiling reached
  data     batches on one core, and how long a corpus takes to build
  start    seconds to a run's first step, the first time and again; to a help text; to a mistake's message
  layers   how long a deep model takes to compile and what a step holds, with train.remat and train.scan_layers
  encode   texts to vectors
  growth   time against batch, length, layers, hidden size and corpus, as exponents
  scaling  what devices send each other in a step on each mesh, and what that means for up to 1,024 of them

bertjax bench BENCH --help tells more."""


_WORDS = ("--tokenizer.kind", "word")  # quickly found, and most of WikiText-2's: its figures are of words


class _Door(NamedTuple):
    """What the arguments of a bench may be. Which contenders run is in `benches`, too slow to import for a mistake."""

    recipe: str  # in configs/, unless another is given
    description: str
    peers: tuple[str, ...] = ()  # packages that --peers needs
    settings: tuple[str, ...] = ()  # of that recipe, unless others are given


_DOORS = {
    "train": _Door(
        "textbook.yaml",
        "Time pretraining steps as a recipe says, data loading included.",
        peers=("torch", "transformers"),
    ),
    "data": _Door("textbook.yaml", "Time batches on one core, and the building of a corpus with its vocabulary."),
    "start": _Door(
        "textbook.yaml", "Time a run's start to its first step, the corpus being built, and what is quicker."
    ),
    "layers": _Door(
        "large.yaml",
        "Compile a training step with layers kept or computed again, written out or scanned; run nothing.",
        settings=_WORDS,
    ),
    "encode": _Door(
        "base.yaml",
        "Time 512 sentences of the text through the recipe's model with fresh weights, mean pooling.",
        peers=("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime"),
        settings=_WORDS,
    ),
    "growth": _Door("textbook.yaml", "Time steps and data at several sizes, and fit exponents."),
    "scaling": _Door(
        "base.yaml",
        "Compile a step on meshes of 8 simulated devices and count what is sent; run nothing, in one round.",
        settings=_WORDS,
    ),
}


def bench(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs the bench that the arguments name.

    Args:
      environment: in which our contenders run, as `bertjax` would itself; peers have the plain one.

    Raises:
      BertjaxError: bad input, before anything is run; or a contender fails.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(HELP)
        return
    if not argv or argv[0] not in _DOORS:
        given = f"there is no bench {argv[0]!r}" if argv else "no bench is named"
        raise BertjaxError(f"{given}; give one of {', '.join(_DOORS)}")
    name, door = argv[0], _DOORS[argv[0]]
    config, options = _parse(name, door, argv[1:])
    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        if name == "growth":
            from benchmarks.speed import growth

            report = growth.measure(config, Path(folder), environment, _say, rounds=options.rounds)
            print(growth.render(report))
        elif name == "scaling":
            from benchmarks.speed import scaling

            report = scaling.measure(config, Path(folder), environment, _say)
            print(scaling.render(report))
        else:
            from benchmarks.speed import benches, table

            peers = door.peers if options.peers else ()
            report = benches.measure(
                name, config, Path(folder), environment, _say, rounds=options.rounds, peer_packages=peers
            )
            print(table.render(report, benches.BENCHES[name].columns))
    if options.json:
        with _writing("--json", options.json):
            Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        with _writing("--plot", options.plot):
            growth.draw(report).savefig(options.plot, dpi=120)


def _parse(name: str, door: _Door, argv: Sequence[str]) -> tuple[Config, Any]:
    its_own = "[--peers] " if door.peers else "[--plot FILE.png] " if name == "growth" else ""
    parser = config_parser(
        f"bertjax bench {name}",
        usage=f"bertjax bench {name} [--rounds N] [--json FILE] {its_own}[--config FILE] [--KEY VALUE ...]",
        description=f"{door.description} Without --config, the recipe is configs/{door.recipe}.",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that every contender runs, in turn")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    parser.add_argument("--peers", action="store_true", help="run other libraries too, in turn with ours")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the growth there")
    recipe = Path(__file__).parents[2] / "configs" / door.recipe
    if not any(word.partition("=")[0] in ("--config", "-h", "--help") for word in argv):
        if not recipe.is_file():
            raise BertjaxError(f"there is no {recipe}: bertjax is installed without its recipes; give --config FILE")
        argv = ["--config", str(recipe), *door.settings, *argv]
    config, options = parse_config(parser, argv)
    if options.rounds < 1:
        raise BertjaxError(f"--rounds {options.rounds} is impossible; give 1 or more")
    for option in ("json", "plot"):
        if getattr(options, option):
            _check_free(f"--{option}", Path(getattr(options, option)))
    if options.plot and (name != "growth" or not options.plot.endswith(".png")):
        raise BertjaxError(f"--plot {options.plot}: only bench growth draws, and into a FILE.png")
    if options.peers:
        if name == "train" and config.data.objective == "mlm":
            raise BertjaxError("--peers learn from pairs, and data.objective=mlm has none; give another, or no --peers")
        _check_peers(name, door)
    return config, options


def _check_free(option: str, path: Path) -> None:
    if path.exists():
        raise BertjaxError(f"{option} {path} exists and is left as it is; give another name")
    if not path.parent.is_dir():
        raise BertjaxError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _check_peers(name: str, door: _Door) -> None:
    if not door.peers:
        with_peers = " or ".join(other for other in _DOORS if _DOORS[other].peers)
        raise BertjaxError(f"bench {name} has no peers; leave out --peers, or bench {with_peers}")
    missing = [package for package in door.peers if importlib.util.find_spec(package) is None]
    if missing:
        raise BertjaxError(f"--peers needs {', '.join(missing)}; pip install 'bertjax[peers]'")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _writing(option: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BertjaxError(f"cannot write {option} {path}: {error.strerror}; give another place") from error
