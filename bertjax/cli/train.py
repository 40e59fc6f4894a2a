"""The commands that a recipe is given to: pretrain, prepare; and launch, which runs one as several processes."""

import os
from collections.abc import Sequence
from typing import Any

from bertjax.cli.arguments import Parser
from bertjax.cli.environment import tuned_environment
from bertjax.cli.terminal import say
from bertjax.config import Config
from bertjax.errors import BertjaxError, shown
from bertjax.storage.interpreter import module_command


def pretrain(argv: list[str]) -> None:
    """Runs `bertjax pretrain`."""
    config, how = parse_training(
        argv,
        "bertjax pretrain",
        usage="bertjax pretrain --config RECIPE [--KEY VALUE ...] [--resume]",
        description=(
            "Train a BERT as a recipe says. Every key of the recipe can be given here too, "
            "as in --train.steps 200 or --data.train_split test; what is given here wins."
        ),
    )
    from bertjax.train.pretrain import pretrain

    pretrain(config, **how)


def prepare(argv: list[str]) -> None:
    """Runs `bertjax prepare`."""
    from bertjax.config.parser import config_parser

    parser = config_parser(
        "bertjax prepare",
        usage="bertjax prepare --config RECIPE [--KEY VALUE ...] [--shard I/N | --merge | --engine ray]",
        description="Fetch a corpus, build its vocabulary and tokenise it, as 'bertjax pretrain' does before training.",
    )
    shard = "make only share I of N, 0/N to N-1/N, of the parts of a corpus of files, in a data.cache that all share"
    parser.add_argument("--shard", metavar="I/N", help=shard)
    parser.add_argument("--merge", action="store_true", help="join the parts, all of which must be there")
    parser.add_argument("--engine", choices=["ray"], help="have the parts made by a cluster of Ray, then join them")
    config, options = parse_recipe(parser, argv)
    index, of = _share(options.shard) if options.shard is not None else (0, 1)
    if (options.shard is not None) + options.merge + (options.engine is not None) > 1:
        raise BertjaxError("--shard makes parts, --merge joins them, and --engine does both; give one of the three")
    from bertjax.data.prepare import describe, prepare
    from bertjax.data.prepare_share import check_parts, prepare_share

    if config.init_from is not None:
        from bertjax.config.parser import typed_keys
        from bertjax.runs.folder import RunFolder
        from bertjax.runs.remote_run import run_path
        from bertjax.train.open_run import with_model_of_init

        config = with_model_of_init(config, RunFolder(run_path(config)), resume=False, typed=typed_keys(argv))
    if options.engine is not None:
        from bertjax.data.corpus.on_ray import each_done

        prepare_share(config, index, of, each=each_done)
    if options.shard is not None:
        say(prepare_share(config, index, of))
        return
    if options.merge:
        check_parts(config)
    say(describe(prepare(config)))


def _share(given: str) -> tuple[int, int]:
    index, slash, of = str(given).partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise BertjaxError(f"--shard {shown(given)} is no share; give I/N, from 0/N to N-1/N, as in --shard 0/8")
    return int(index), int(of)


def launch(argv: list[str]) -> int:
    """Runs `bertjax launch` and returns the exit code of its processes."""
    parser = Parser(
        prog="bertjax launch",
        usage="bertjax launch -n PROCESSES -- COMMAND ...",
        description="Run a command as several processes on this machine, which find each other on loopback.",
    )
    parser.add_argument("-n", metavar="PROCESSES", type=int, required=True, help="number of processes")
    # What stands after -- is another parser's; ours would take out a second one.
    ours, command = argv, list[str]()
    if "--" in argv:
        ours, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    args, rest = parser.parse_known_args(ours)
    if rest:
        raise BertjaxError(
            f"{shown(rest[0])} is nothing that launch takes; give the command after --: bertjax launch -n 2 -- "
            "pretrain --config tiny, and see bertjax launch --help"
        )
    if not command:
        raise BertjaxError("there is no command to launch; give one after --, such as -- pretrain --config tiny")
    if args.n < 1:
        raise BertjaxError(f"-n {args.n} is no number of processes; give 1 or more")
    from bertjax.parallel.launch import launch

    return launch(module_command("bertjax", *command), args.n, environment=tuned_environment(os.environ))


def parse_training(argv: list[str], prog: str, **texts: str) -> tuple[Config, dict[str, Any]]:
    """Returns the configuration that is asked for, and the other arguments of what trains by it.

    Args:
      prog: the command.
      texts: its usage and description, for --help.

    Raises:
      BertjaxError: no recipe is given.
    """
    from bertjax.config.parser import typed_keys

    config, options = parse_recipe(training_parser(prog, **texts), argv)
    return config, {"resume": options.resume, "typed": typed_keys(argv)}


def training_parser(prog: str, **texts: str) -> Any:
    """Returns the parser of a command that trains by a recipe; the arguments are those of `parse_training`."""
    from bertjax.config.parser import config_parser

    parser = config_parser(prog, **texts)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in run_dir, exactly where it stopped; start anew if there is none",
    )
    return parser


def parse_recipe(parser: Any, argv: Sequence[str]) -> tuple[Config, Any]:
    """Returns the configuration that is asked for, and all options. Raises BertjaxError where no recipe is given."""
    from bertjax.config.parser import parse_config
    from bertjax.config.recipes import recipe_names

    config, options = parse_config(parser, argv)
    if options.config is None:
        raise BertjaxError(
            f"no recipe is given; give --config with a file of yours or with one of {', '.join(recipe_names())}"
        )
    return config, options
