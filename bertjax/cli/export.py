"""The commands that give a trained model to other tools: export, and push, which uploads it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bertjax.cli.arguments import Parser, is_ours
from bertjax.cli.terminal import say
from bertjax.config.model import Family
from bertjax.errors import BertjaxError, shown
from bertjax.storage.hub_models import model_folder
from bertjax.storage.outputs import delivered, output
from bertjax.storage.paths import check_no_url, user_path

if TYPE_CHECKING:
    from bertjax.hub.onnx import Weights


def export(argv: list[str]) -> None:
    """Runs `bertjax export`."""
    parser = Parser(prog="bertjax export", description="Write a trained model in a form that other tools load.")
    parser.add_argument("run", metavar="RUN", help="folder of a trained run or of a BERT, or ORG/NAME on the hub")
    parser.add_argument("out", metavar="OUT", type=output, help="folder or URL to make, or for stablehlo the file")
    parser.add_argument(
        "--format",
        choices=("hf", "onnx", "stablehlo"),
        default="hf",
        help="hf: a folder for transformers and sentence-transformers (default); "
        "onnx: the same, with the model as onnx/model.onnx too, which onnxruntime runs; "
        "stablehlo: the encoder with its weights as one file, which JAX alone runs",
    )
    parser.add_argument(
        "--int8", action="store_true", help="of onnx: write onnx/model_quantized.onnx too, with weights of 8 bits"
    )
    _add_family(parser)
    args = parser.parse_args(argv)
    if args.int8 and args.format != "onnx":
        raise BertjaxError(f"--int8 is of --format onnx, not of {args.format}; leave it out, or give that")
    if not is_ours(args.out.path):
        return
    if args.format == "stablehlo":
        if args.family is not None:
            raise BertjaxError(
                f"--family {args.family} is of --format hf and onnx, not of stablehlo; leave one of them out"
            )
        check_no_url(args.out.url or "", "OUT")
        _export_stablehlo(args.run, args.out.path)
        return
    onnx: Weights | None = None if args.format == "hf" else "int8" if args.int8 else "float32"
    with delivered("OUT", args.out) as folder:
        _export(model_folder(args.run), folder, args.family, onnx)
        sizes = {file.relative_to(folder): file.stat().st_size for file in sorted(folder.glob("onnx/*.onnx"))}
    place = shown(args.out.url or args.out.path)
    say(f"exported to {place}; transformers, sentence-transformers and 'bertjax encode' load it")
    for file, size in sizes.items():
        say(f"onnxruntime runs {place}/{file.as_posix()}, {size / 1e6:,.1f} MB")


def push(argv: list[str]) -> None:
    """Runs `bertjax push`."""
    parser = Parser(
        prog="bertjax push",
        description="Export a trained model, with its card, and upload that to the hub. Without --yes it is only shown "
        "what would be uploaded. Checkpoints, text and the run's own files stay here.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained run, or of a BERT")
    parser.add_argument("repository", metavar="ORG/NAME", help="repository on the hub, made where there is none")
    visibility = parser.add_mutually_exclusive_group()
    for name, private, whose in (("--private", True, "its owner"), ("--public", False, "everyone")):
        where = f"where a repository is made, it is for {whose}; by default as the owner's settings have it"
        visibility.add_argument(name, dest="private", action="store_const", const=private, help=where)
    parser.add_argument("--yes", action="store_true", help="upload it")
    _add_family(parser)
    args = parser.parse_args(argv)
    from bertjax.hub import push

    push.check_repository(args.repository)
    if args.yes:
        push.check_login()
    with tempfile.TemporaryDirectory(prefix="bertjax-push-") as temporary:
        folder = Path(temporary, "model")
        if _export(user_path(args.run), folder, args.family):
            card = folder / "README.md"
            card.write_text(card.read_text(encoding="utf-8").replace("FOLDER", args.repository), encoding="utf-8")
        say(push.plan_upload(folder, args.repository).described(private=args.private))
        if args.yes:
            say(f"uploaded: {push.upload(folder, args.repository, private=args.private)}")
        else:
            say("nothing is uploaded yet; --yes does it")


def _add_family(parser: Parser) -> None:
    parser.add_argument(
        "--family",
        choices=get_args(Family),
        help="family of models as which it is written; by default that of the folder it began with, or the first that "
        "carries it",
    )


def _export(source: Path, out: Path, family: Family | None, onnx: "Weights | None" = None) -> bool:
    """Writes a folder for other tools, and returns whether it is of a run."""
    from bertjax.hub.export import export_folder, export_run
    from bertjax.hub.folder import is_hub_folder
    from bertjax.inference.pretrained import run_at

    if is_hub_folder(source):
        export_folder(source, out, family, onnx=onnx)
        return False
    export_run(run_at(source), out, family, onnx=onnx)
    return True


def _export_stablehlo(run: str, out: Path) -> None:
    from bertjax.hub import stablehlo
    from bertjax.inference.pretrained import load

    stablehlo.export(*load(run), out)
    vocabulary, megabytes = stablehlo.vocabulary_beside(out), out.stat().st_size / 1e6
    say(_HOW_TO_RUN.format(file=str(out), vocabulary=str(vocabulary), megabytes=megabytes))


_HOW_TO_RUN = """\
exported to {file}, {megabytes:,.1f} MB, its vocabulary to {vocabulary}; with jax, flatbuffers and tokenizers:
  import jax.export, numpy, tokenizers
  encode = jax.jit(jax.export.deserialize(open({file!r}, "rb").read()).call)
  text = tokenizers.Tokenizer.from_file({vocabulary!r}).encode("a crane is flying")
  encode(*numpy.array([[text.ids], [text.type_ids], [text.attention_mask]], "int32"))  # float32 [1, tokens, hidden]"""
