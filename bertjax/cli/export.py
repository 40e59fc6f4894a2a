"""The command that writes a trained model for other tools: export."""

from pathlib import Path

from bertjax.cli.arguments import Parser
from bertjax.storage.hub_models import model_folder
from bertjax.storage.paths import user_path


def export(argv: list[str]) -> None:
    """Runs `bertjax export`."""
    parser = Parser(prog="bertjax export", description="Write a trained model in a form that other tools load.")
    parser.add_argument("run", metavar="RUN", help="folder of a trained run or of a BERT, or ORG/NAME on the hub")
    parser.add_argument("out", metavar="OUT", type=user_path, help="folder to make, or for stablehlo the file")
    parser.add_argument(
        "--format",
        choices=("hf", "stablehlo"),
        default="hf",
        help="hf: a folder for transformers and sentence-transformers (default); "
        "stablehlo: the encoder with its weights as one file, which JAX alone runs",
    )
    args = parser.parse_args(argv)
    if args.format == "stablehlo":
        _export_stablehlo(args.run, args.out)
        return
    from bertjax.hub.export import export_folder, export_run
    from bertjax.hub.folder import is_hub_folder
    from bertjax.runs.folder import RunFolder

    if is_hub_folder(source := model_folder(args.run)):
        export_folder(source, args.out)
    else:
        export_run(RunFolder(source), args.out)
    print(f"exported to {args.out}; transformers, sentence-transformers and 'bertjax encode' load it")


def _export_stablehlo(run: str, out: Path) -> None:
    from bertjax.hub import stablehlo
    from bertjax.inference.pretrained import load

    stablehlo.export(*load(run), out)
    vocabulary, megabytes = stablehlo.vocabulary_beside(out), out.stat().st_size / 1e6
    print(_HOW_TO_RUN.format(file=str(out), vocabulary=str(vocabulary), megabytes=megabytes))


_HOW_TO_RUN = """\
exported to {file}, {megabytes:,.1f} MB, its vocabulary to {vocabulary}; with jax, flatbuffers and tokenizers:
  import jax.export, numpy, tokenizers
  encode = jax.jit(jax.export.deserialize(open({file!r}, "rb").read()).call)
  text = tokenizers.Tokenizer.from_file({vocabulary!r}).encode("a crane is flying")
  encode(*numpy.array([[text.ids], [text.type_ids], [text.attention_mask]], "int32"))  # float32 [1, tokens, hidden]"""
