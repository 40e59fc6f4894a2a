"""`bertjax trial`: reads the arguments, has a trial run, prints its report."""

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.recipe import config_parser, parse_config

HELP = """\
usage: bertjax trial TRIAL [--json FILE] [--config FILE] [--KEY VALUE ...]

trials:
  torture  kill a run again and again, resume it each time, and compare it with one left alone, bit for bit

bertjax trial TRIAL --help tells more."""


def trial(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Runs the trial that the arguments name, and tells whether all is well.

    Args:
      environment: in which the runs run.

    Raises:
      BertjaxError: bad input, before anything is run; or a trial could not be made.
    """
    trials = {"torture": _torture}
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
    from bertjax.trials import torture

    signals = (signal.SIGTERM, signal.SIGUSR1) if options.signals else (signal.SIGKILL,)
    folder = Path(tempfile.mkdtemp(prefix="bertjax-torture-"))
    report = torture.torture(config, folder, environment, _say, kills=options.kills, seed=config.seed, signals=signals)
    print(torture.render(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if report["differences"]:
        print(f"the runs are left in {folder}")
        return False
    shutil.rmtree(folder)
    return True


def _parser(name: str, its_own: str, description: str) -> Any:
    parser = config_parser(
        f"bertjax trial {name}",
        usage=f"bertjax trial {name} {its_own}[--json FILE] [--config FILE] [--KEY VALUE ...]",
        description=description,
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    return parser


def _parse(parser: Any, argv: Sequence[str], recipe: str) -> tuple[Config, Any]:
    path = Path(__file__).parents[2] / "configs" / recipe
    if not any(word.partition("=")[0] in ("--config", "-h", "--help") for word in argv):
        if not path.is_file():
            raise BertjaxError(f"there is no {path}: bertjax is installed without its recipes; give --config FILE")
        argv = ["--config", str(path), *argv]
    config, options = parse_config(parser, argv)
    if options.json and Path(options.json).exists():
        raise BertjaxError(f"--json {options.json} exists and is left as it is; give another name")
    return config, options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
