"""The commands of tasks: finetune, which learns one from labelled examples, and predict."""

from bertjax.cli.arguments import Parser, add_mesh, check_new, mesh_of, new_file
from bertjax.cli.train import parse_training
from bertjax.storage.paths import user_path


def finetune(argv: list[str]) -> None:
    """Runs `bertjax finetune`."""
    config, how = parse_training(
        argv,
        "bertjax finetune",
        usage="bertjax finetune --config classify --init_from FOLDER --task.train FILE [--KEY VALUE ...] [--resume]",
        description=(
            "Train a model, of a run or from Hugging Face, to tell the labels of texts, or of pairs of texts, from "
            "labelled examples in tables or JSON. Every key of the recipe can be given here too; what is given here "
            "wins."
        ),
    )
    from bertjax.train.finetune import finetune

    finetune(config, **how)


def predict(argv: list[str]) -> None:
    """Runs `bertjax predict`."""
    parser = Parser(
        prog="bertjax predict",
        description=(
            "Write the records of files again, each with the label that a run of 'bertjax finetune' takes to be the "
            "likeliest (prediction), and how likely it takes that to be (probability)."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run, such as runs/classify")
    parser.add_argument(
        "--input",
        metavar="FILE",
        required=True,
        help=".csv, .tsv, .jsonl, .json or .parquet with the columns of the examples, also .gz or .zst; several are "
        "given like data.path",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=user_path, required=True, help="file to write, in .csv, .tsv or .jsonl"
    )
    parser.add_argument("--task.text", dest="text", metavar="COLUMN", help="column of the text; by default the run's")
    parser.add_argument("--task.pair", dest="pair", metavar="COLUMN", help="likewise, of the second text of a pair")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of the inputs of matrix products (default: float32)",
    )
    add_mesh(parser, "each device has the whole model, and texts of its own")
    args = parser.parse_args(argv)
    check_new("--out", args.out)
    import dataclasses

    from bertjax.inference.classifier import Classifier
    from bertjax.inference.predict_file import check_format, predict_file
    from bertjax.runs.folder import RunFolder

    check_format(args.out)
    classifier = Classifier.load(args.run, precision=args.precision, mesh=mesh_of(args))
    task = RunFolder(args.run).config().task
    asked = {name: getattr(args, name) for name in ("text", "pair") if getattr(args, name) is not None}
    with new_file("--out", args.out) as file:
        told = predict_file(classifier, dataclasses.replace(task, **asked), args.input, file, args.out)
    print(told)
