"""`bertjax trial`: reads the arguments, has a trial run, prints its report."""

import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.config.parser import config_parser, parse_config
from bertjax.config.recipes import save_config
from bertjax.errors import BertjaxError

HELP = """\
usage: bertjax trial TRIAL [--json FILE] [--config FILE] [--KEY VALUE ...]

trials:
  torture  kill a run again and again, resume it each time, and compare it with one left alone, bit for bit
  corpus   a large corpus built, killed on the way, and drawn from: how fast, and whether memory stays flat
  ablate   a recipe and variants of it with one option flipped, over several seeds: the table of what each is worth
  speedrun seconds, pairs and joules until a held-out loss is reached
  soak     a long run and a long stream of texts: whether memory, open files and threads stay flat

bertjax trial TRIAL --help tells more."""


def trial(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Runs the trial that the arguments name, and tells whether all is well.

    Args:
      environment: in which the runs run.

    Raises:
      BertjaxError: bad input, before anything is run; or a trial could not be made.
    """
    trials = {"torture": _torture, "soak": _soak, "corpus": _corpus, "ablate": _ablate, "speedrun": _speedrun}
    if argv and argv[0] in ("-h", "--help"):
        print(HELP)
        return True
    if not argv or argv[0] not in trials:
        given = f"there is no trial {argv[0]!r}" if argv else "no trial is named"
        raise BertjaxError(f"{given}; give one of {', '.join(trials)}")
    return trials[argv[0]](argv[1:], environment)


def _torture(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = _parser(
        "torture",
        "[--kills N] [--signals] ",
        "Kill a short run at random moments, resume it each time, and compare parameters, optimiser state and "
        "metrics.jsonl with those of a run left alone, bit for bit. Without --config, the recipe is "
        "configs/torture.yaml.",
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="in all, over as many runs as it takes")
    parser.add_argument("--signals", action="store_true", help="send SIGTERM and SIGUSR1 in turn, not SIGKILL")
    config, options = _parse(parser, argv, "torture.yaml")
    if options.kills < 1:
        raise BertjaxError(f"--kills {options.kills} is impossible; give 1 or more")
    if config.train.log_every != 1:
        raise BertjaxError(f"train.log_every={config.train.log_every} hides steps from the trial; give 1")
    from benchmarks.stress import torture

    signals = (signal.SIGTERM, signal.SIGUSR1) if options.signals else (signal.SIGKILL,)
    folder = Path(tempfile.mkdtemp(prefix="bertjax-torture-"))
    report = torture.torture(config, folder, environment, _say, kills=options.kills, seed=config.seed, signals=signals)
    print(torture.render(report))
    _write_json(report, options)
    if report["differences"]:
        print(f"the runs are left in {folder}")
        return False
    shutil.rmtree(folder)
    return True


def _soak(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = _parser(
        "soak",
        "[--texts N] [--plot FILE.png] ",
        "Train for long and encode a long stream of texts, and fit how memory, open files and threads grow after the "
        "warm-up. Without --config, the recipe is configs/tiny.yaml, for 10,000 steps.",
    )
    parser.add_argument("--texts", type=int, default=1_000_000, metavar="N", help="short ones, to encode")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves there")
    config, options = _parse(parser, argv, "tiny.yaml", "--train.steps", "10000")
    if options.texts < 1:
        raise BertjaxError(f"--texts {options.texts} is impossible; give 1 or more")
    _check_plot(options)
    from benchmarks.stress import soak

    with tempfile.TemporaryDirectory(prefix="bertjax-soak-") as folder:
        report = soak.soak(config, Path(folder), environment, _say, texts=options.texts)
    print(soak.render(report))
    _write_json(report, options)
    if options.plot:
        soak.draw(report).savefig(options.plot, dpi=120)
    return report["training"]["flat"] and report["encoding"]["flat"]


def _corpus(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = _parser(
        "corpus",
        "[--gigabytes N] [--kills N] [--plot FILE.png] ",
        "Write text of so many gigabytes into the folder for temporary files, build a corpus from it, kill that on the "
        "way, and watch all its processes' memory; then draw batches from all over it. Without --config, the recipe is "
        "configs/base.yaml.",
    )
    parser.add_argument(
        "--gigabytes", type=float, default=5.0, metavar="N", help="of text; three times the room is needed"
    )
    parser.add_argument("--kills", type=int, default=1, metavar="N", help="on the way")
    parser.add_argument("--plot", metavar="FILE.png", help="draw memory against time there")
    config, options = _parse(parser, argv, "base.yaml")
    if not (0 < options.gigabytes < math.inf and options.kills >= 0):
        raise BertjaxError(
            f"--gigabytes {options.gigabytes} --kills {options.kills} is impossible; give more than nothing"
        )
    _check_plot(options)
    from benchmarks.stress import corpus

    with tempfile.TemporaryDirectory(prefix="bertjax-corpus-") as folder:
        report = corpus.build_and_draw(
            config, Path(folder), environment, _say, gigabytes=options.gigabytes, kills=options.kills
        )
    print(corpus.render(report))
    _write_json(report, options)
    if options.plot:
        corpus.draw(report).savefig(options.plot, dpi=120)
    return True


def _ablate(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = _parser(
        "ablate",
        "[--flip KEY=VALUE[,KEY=VALUE ...] ...] [--seeds N] [--table FILE.md] ",
        "Run a recipe and variants of it, each flip being one, with several seeds and the recipe's own text and steps, "
        "one after the other; then compare their held-out figures. What --json FILE holds already is not run again: "
        "the same command goes on where it was stopped, and may ask for more. Without --config, the recipe is "
        "configs/textbook.yaml.",
    )
    parser.add_argument(
        "--flip", action="append", default=[], metavar="KEY=VALUE", help="what a variant changes; give several"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, from the recipe's seed on")
    parser.add_argument("--table", metavar="FILE.md", help="write the table there too")
    config, options = _parse(parser, argv, "textbook.yaml", goes_on=True)
    if not 1 <= options.seeds <= 2**32 - config.seed:
        raise BertjaxError(f"--seeds {options.seeds} is impossible; give 1 or more")
    for name in ("json", "table"):
        path = getattr(options, name)
        if path and not Path(path).parent.is_dir():
            raise BertjaxError(f"--{name} {path}: there is no folder {Path(path).parent}; make it first")
    from benchmarks.learning import ablate

    wanted = ablate.variants(config, options.flip)
    keep = Path(options.json) if options.json else None
    table = ablate.render(ablate.ablate(wanted, options.seeds, environment, _say, keep=keep), wanted)
    print(table)
    if options.table:
        Path(options.table).write_text(table + "\n", encoding="utf-8")
    return True


def _speedrun(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = _parser(
        "speedrun",
        "--target LOSS ",
        "Train until the held-out MLM loss is at the target, looked at every eval.every steps (10 where that is 0), "
        "and tell how many seconds, pairs and joules it took; exit code 1 where the recipe's steps do not get there. "
        "Without --config, the recipe is configs/textbook.yaml.",
    )
    parser.add_argument("--target", type=float, required=True, metavar="LOSS", help="held-out MLM loss, such as 5.0")
    config, options = _parse(parser, argv, "textbook.yaml")
    if not 0 < options.target < math.inf:
        raise BertjaxError(f"--target {options.target} is no loss; give a positive number")
    if config.init_from is not None:
        raise BertjaxError(f"init_from={config.init_from} is no start for a speed run; leave it out")
    with tempfile.TemporaryDirectory(prefix="bertjax-speedrun-") as folder:
        recipe, out = Path(folder) / "recipe.yaml", Path(folder) / "report.json"
        save_config(config, recipe)
        arguments = [str(recipe), str(options.target), str(time.time()), str(out)]
        command = [sys.executable, "-m", "benchmarks.learning.speedrun", *arguments]
        done = subprocess.run(command, env=dict(environment), stderr=subprocess.PIPE, text=True)
        if done.returncode or not out.exists():
            said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            raise BertjaxError(f"the speed run failed: {said[-1].removeprefix('bertjax.errors.BertjaxError: ')}")
        report = json.loads(out.read_text(encoding="utf-8"))
    _write_json(report, options)
    return report["reached"]


def _check_plot(options: Any) -> None:
    if options.plot and not options.plot.endswith(".png"):
        raise BertjaxError(f"--plot {options.plot} does not end in .png; give a name that does")


def _write_json(report: dict[str, Any], options: Any) -> None:
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _parser(name: str, its_own: str, description: str) -> Any:
    parser = config_parser(
        f"bertjax trial {name}",
        usage=f"bertjax trial {name} {its_own}[--json FILE] [--config FILE] [--KEY VALUE ...]",
        description=description,
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    return parser


def _parse(parser: Any, argv: Sequence[str], recipe: str, *settings: str, goes_on: bool = False) -> tuple[Config, Any]:
    ours = Path(__file__).parents[2] / "configs" / recipe
    if not any(word.partition("=")[0] in ("--config", "-h", "--help") for word in argv):
        if not ours.is_file():
            raise BertjaxError(f"there is no {ours}: bertjax is installed without its recipes; give --config FILE")
        argv = ["--config", str(ours), *settings, *argv]
    config, options = parse_config(parser, argv)
    for name in ("plot", "table") if goes_on else ("json", "plot"):
        if (path := getattr(options, name, None)) and Path(path).exists():
            raise BertjaxError(f"--{name} {path} exists and is left as it is; give another name")
    return config, options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
