"""The commands of tasks: finetune, which learns one from labelled examples, and predict."""

import argparse
import itertools
import re
from collections.abc import Sequence

from bertjax.cli.arguments import Parser, add_mesh, add_precision, check_new, is_ours, mesh_of, new_file
from bertjax.cli.terminal import say
from bertjax.cli.train import parse_recipe, training_parser
from bertjax.errors import BertjaxError
from bertjax.storage.hub_models import model_folder
from bertjax.storage.outputs import delivered, output


def finetune(argv: list[str]) -> None:
    """Runs `bertjax finetune`."""
    parser = training_parser(
        "bertjax finetune",
        usage="bertjax finetune --config classify --init_from FOLDER --task.train FILE [--KEY VALUE ...] [--resume]",
        description=(
            "Train a model, of a run or from Hugging Face, to tell labels or numbers of texts, or of pairs of texts, "
            "or tags of words, or where in a text the answer to a question stands, or to make vectors by which texts "
            "find each other (--config embed), from examples in tables or JSON. "
            "Every key of the recipe can be given here too; what is given here wins."
        ),
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="make N runs, of the seeds from --seed on, in run_dir/seed-0 and so on; a table tells their mean figures",
    )
    parser.add_argument(
        "--grid",
        action="append",
        metavar="KEY=VALUE,...",
        help="make a run with each value of a key, in folders within run_dir; given again, with each combination",
    )
    from bertjax.config.parser import typed_keys

    config, options = parse_recipe(parser, argv)
    typed = typed_keys(argv)
    if options.seeds is None and options.grid is None:
        from bertjax.train.finetune import finetune

        finetune(config, resume=options.resume, typed=typed)
        return
    from bertjax.train.sweep import Setting, sweep_settings

    grid = parse_grid(options.grid or [])
    settings = []
    for combined in itertools.product(*grid.values()):
        values = dict(zip(grid, combined, strict=True))
        given = [f"--{key}={value}" for key, value in values.items()]
        settings.append(Setting(values, parse_recipe(parser, [*argv, *given])[0]))
    sweep_settings(settings, seeds=options.seeds, resume=options.resume, typed=[*typed, *grid])


def parse_grid(given: Sequence[str]) -> dict[str, list[str]]:
    """Returns the values of each key, from KEY=VALUE,... Raises BertjaxError where a key or a value lacks."""
    from bertjax.train.sweep import check_key

    grid: dict[str, list[str]] = {}
    for text in given:
        key, _, values = text.partition("=")
        check_key(key)
        grid[key] = [value.strip() for value in re.split(r",(?![^\[]*\])", values)]  # lists have commas too
        if not all(grid[key]):
            raise BertjaxError(f"--grid {text} lacks a value; give them as in --grid optim.learning_rate=1e-5,3e-5")
    return grid


def predict(argv: list[str]) -> None:
    """Runs `bertjax predict`."""
    parser = Parser(
        prog="bertjax predict",
        description=(
            "Write the records of files again, each with what a run of 'bertjax finetune' tells of it: the number, or "
            "the likeliest label or the answer (prediction), and how likely the run takes that to be (probability); of "
            "a run of tags those of each word."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run, such as runs/classify, or ORG/NAME on the hub")
    parser.add_argument(
        "--input",
        metavar="FILE",
        required=True,
        help=".csv, .tsv, .jsonl, .json, .parquet or .arrow with the columns of the examples, also .gz or .zst; of "
        "questions also SQuAD's .json; to be tagged lists of words or texts in records, or a word a line; several are "
        "given like data.path; of a folder of splits its test split",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=output,
        required=True,
        help="file or URL to write, in .csv, .tsv, .jsonl or .parquet; of tags in .jsonl, .parquet, or as the input in "
        ".conll, .txt or .tsv; of answers also in .json, their texts by the questions' ids",
    )
    parser.add_argument("--task.text", dest="text", metavar="COLUMN", help="column of the text; by default the run's")
    parser.add_argument("--task.pair", dest="pair", metavar="COLUMN", help="likewise, of the second text of a pair")
    add_precision(parser)
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="probabilities that are right as often as they say, of the examples that the run held out; by default the "
        "model's own",
    )
    add_mesh(parser, "each device has the whole model, and texts of its own")
    args = parser.parse_args(argv)
    if not is_ours(args.out.path):
        return
    with delivered("--out", args.out) as args.out:
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    check_new("--out", args.out)
    import dataclasses

    from bertjax.inference.predict_file import check_format, load_predictor, predict_file, task_of
    from bertjax.inference.record_files import BINARY

    asked = {name: getattr(args, name) for name in ("text", "pair") if getattr(args, name) is not None}
    task = task_of(folder := model_folder(args.run))
    if not {*asked.values()} <= {*(task.columns or ())}:  # those of other files than the run's
        task = dataclasses.replace(task, columns=None)
    task = dataclasses.replace(task, **asked)
    check_format(args.out, task.kind)
    predictor = load_predictor(folder, task, precision=args.precision, mesh=mesh_of(args), calibrated=args.calibrated)
    with new_file("--out", args.out, binary=args.out.suffix in BINARY) as file:
        told = predict_file(predictor, args.input, file, args.out)
    say(told)
