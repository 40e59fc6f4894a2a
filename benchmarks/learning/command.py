"""`python -m benchmarks ablate` and the others of learning: reads the arguments, runs it, prints the report."""

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.options import (
    FINETUNING_PEERS,
    check_folder,
    check_packages,
    check_seeds,
    make_parser,
    parse,
    say,
    write_json,
)
from bertjax.config.recipes import save_config
from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

_RECIPE = "textbook"


def run(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Runs one and returns whether it got where it was to get.

    Args:
      environment: of the processes that are started.

    Raises:
      BertjaxError: bad input, before anything is run; or it cannot be run.
    """
    trials = {"ablate": _ablate, "speedrun": _speedrun, "retrieval": _retrieval, "distill": _distill}
    return (trials | {"finetune-accuracy": _finetune})[name](argv, environment)


def _ablate(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = make_parser(
        "ablate",
        "[--flip KEY=VALUE[,KEY=VALUE ...] ...] [--seeds N] [--table FILE.md]",
        "Run a recipe and variants of it, each flip being one, with several seeds and the recipe's own text and steps, "
        "one after the other; then compare their held-out figures. What --json FILE holds already is not run again: "
        "the same command goes on where it was stopped, and may ask for more.",
        _RECIPE,
    )
    parser.add_argument(
        "--flip", action="append", default=[], metavar="KEY=VALUE", help="what a variant changes; give several"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, from the recipe's seed on")
    parser.add_argument("--table", metavar="FILE.md", help="write the table there too")
    config, options = parse(parser, argv, _RECIPE, new=("table",))
    check_seeds(options.seeds, config.seed)
    if options.json:
        check_folder("--json", Path(options.json))
    from benchmarks.learning import ablate

    wanted = ablate.variants(config, options.flip)
    keep = Path(options.json) if options.json else None
    table = ablate.render(ablate.ablate(wanted, options.seeds, environment, say, keep=keep), wanted)
    print(table)
    if options.table:
        Path(options.table).write_text(table + "\n", encoding="utf-8")
    return True


def _speedrun(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = make_parser(
        "speedrun",
        "--target LOSS",
        "Train until the held-out MLM loss is at the target, looked at every eval.every steps (10 where that is 0), "
        "and tell how many seconds, pairs and joules it took; exit code 1 where the recipe's steps do not get there.",
        _RECIPE,
    )
    parser.add_argument("--target", type=float, required=True, metavar="LOSS", help="held-out MLM loss, such as 5.0")
    config, options = parse(parser, argv, _RECIPE)
    if not 0 < options.target < math.inf:
        raise BertjaxError(f"--target {options.target} is no loss; give a positive number")
    if config.init_from is not None:
        raise BertjaxError(f"init_from={config.init_from} is no start for a speed run; leave it out")
    with tempfile.TemporaryDirectory(prefix="bertjax-speedrun-") as folder:
        recipe, out = Path(folder) / "recipe", Path(folder) / "report.json"
        save_config(config, recipe)
        arguments = [str(recipe), str(options.target), str(time.time()), str(out)]
        command = module_command("benchmarks.learning.speedrun", *arguments)
        done = subprocess.run(command, env=dict(environment), stderr=subprocess.PIPE, text=True)
        if done.returncode or not out.exists():
            said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            raise BertjaxError(f"the speed run failed: {said[-1].removeprefix('bertjax.errors.BertjaxError: ')}")
        report = json.loads(out.read_text(encoding="utf-8"))
    write_json(report, options.json)
    return report["reached"]


def _retrieval(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = make_parser(
        "retrieval",
        "--init_from RUN [--seeds N]",
        "Tune a pretrained model on sentences that follow each other in its text, and tell how well a held-out "
        "sentence finds the next one, before and after.",
        "embed",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs, from the recipe's seed on")
    config, options = parse(parser, argv, "embed")
    check_seeds(options.seeds, config.seed)
    from benchmarks.learning import retrieval

    told = retrieval.compare(config, options.seeds, say)
    print(retrieval.render(told))
    write_json(told, options.json)
    return True


def _distill(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = make_parser(
        "distill",
        "--distill.teacher RUN [--seeds N]",
        "Train a student with a teacher, and the same student without one, with several seeds, and tell how well each "
        "predicts held-out words.",
        "distill",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, from the recipe's seed on")
    config, options = parse(parser, argv, "distill")
    check_seeds(options.seeds, config.seed)
    from benchmarks.learning import distill

    told = distill.compare(config, options.seeds, say)
    print(distill.render(told))
    write_json(told, options.json)
    return True


def _finetune(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = make_parser(
        "finetune-accuracy",
        "[--seeds N] [--peers]",
        "Fine-tune in whole runs with several seeds, and tell how well each does on examples that are held out: the "
        "accuracy, or with --config score the correlation. Without --init_from and --task.train, it is MiniLM on "
        "sentences that people rated, which pip fetches once.",
        "classify",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, from the recipe's seed on")
    parser.add_argument("--peers", action="store_true", help="run transformers' Trainer too, in turn with ours")
    config, options = parse(parser, argv, "classify", ("--train.epochs", "2"))
    check_seeds(options.seeds, config.seed)
    if options.peers:
        check_packages(FINETUNING_PEERS)
    from benchmarks.learning import finetune

    if config.task.kind not in finetune.FIGURES:
        raise BertjaxError(f"task.kind={config.task.kind} is not compared; give {' or '.join(finetune.FIGURES)}")
    report = finetune.compare(config, options.seeds, environment, say, peers=options.peers)
    print(finetune.render(report))
    write_json(report, options.json)
    return True
