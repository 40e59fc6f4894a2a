"""The command line. Each command imports what it needs when it is called: help and mistakes answer at once."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bertjax.cli.arguments import Parser
from bertjax.errors import BertjaxError


def program(*leading: str) -> int:
    """`main` as a process of its own, in the environment that suits it; `leading` go before the arguments given."""
    argv = [*leading, *sys.argv[1:]]
    if argv[:1] in (["pretrain"], ["evaluate"], ["encode"], ["fill-mask"], ["neighbours"]):
        environment = tuned_environment(os.environ)
        # malloc reads its settings when a process starts, so this one starts again, once.
        if environment.get(_MALLOC) != os.environ.get(_MALLOC) and sys.executable:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        os.environ.update(environment)  # jax is not imported yet
    return main(argv)


_MALLOC = "GLIBC_TUNABLES"


def tuned_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """With huge pages for large arrays on Linux, and compiled programs kept in the user's cache folder.

    What is set already stays. Without huge pages each step's arrays are handed out by the system in pages of 4 KiB: the
    textbook recipe took 1.3 times as long on two CPU cores.
    """
    from bertjax.storage.cache import cache_folder

    ours = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with contextlib.suppress(BertjaxError):  # no home folder: nothing is kept
        ours["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder() / "compiled")
    if sys.platform == "linux":
        ours[_MALLOC] = "glibc.malloc.hugetlb=1"
    return ours | dict(environment)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
        return 0 if argv else 2
    if argv[0] == "--version":
        import importlib.metadata

        print(f"bertjax {importlib.metadata.version('bertjax')}")
        return 0
    with warnings.catch_warnings(), _logs_printed():
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        try:
            if argv[0] not in _COMMANDS:
                raise BertjaxError(f"there is no command {argv[0]!r}; give one of {', '.join(_COMMANDS)}")
            code = _COMMANDS[argv[0]](argv[1:])
            sys.stdout.flush()
            return code or 0
        except BertjaxError as error:
            print(f"bertjax: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # as with `bertjax encode ... | head -1`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


@contextlib.contextmanager
def _logs_printed() -> Iterator[None]:
    """Inside, what the library logs for people to read is printed as plain lines."""
    log, printer = logging.getLogger("bertjax"), _Printer(logging.INFO)
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(printer)
    try:
        yield
    finally:
        log.removeHandler(printer)
        log.setLevel(level)


_HELP = """\
usage: bertjax COMMAND ...

Pretrain BERT encoders in JAX.

commands:
  pretrain   train on a corpus as a recipe says:   bertjax pretrain --config configs/textbook.yaml
  encode     text to vectors with a trained run:   bertjax encode runs/textbook "a crane is flying"
  fill-mask  words for the masks in a text:        bertjax fill-mask runs/bert "the <mask> sat on the mat"
  neighbours how near the uses of a word are:      bertjax neighbours runs/bert --word crane --text ... --text ...
  export     for transformers, or as StableHLO:    bertjax export runs/bert my-bert
  evaluate   held-out figures of a run:            bertjax evaluate runs/textbook
  prepare    fetch and tokenise a corpus only:     bertjax prepare --config configs/textbook.yaml
  launch     several processes on this machine:    bertjax launch -n 4 -- pretrain --config configs/tiny.yaml

bertjax COMMAND --help tells more; bertjax --version tells the version."""


def _pretrain(argv: list[str]) -> None:
    from bertjax.config.parser import config_parser, parse_config

    parser = config_parser(
        "bertjax pretrain",
        usage="bertjax pretrain [--config FILE] [--KEY VALUE ...] [--resume]",
        description=(
            "Train a BERT as a recipe says. Every key of the recipe can be given here too, "
            "as in --train.steps 200 or --data.train_split test; what is given here wins."
        ),
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in run_dir, exactly where it stopped; begin where there is none",
    )
    config, namespace = parse_config(parser, argv)
    from bertjax.train.pretrain import pretrain

    pretrain(config, resume=namespace.resume)


def _prepare(argv: list[str]) -> None:
    from bertjax.config.parser import config_parser, parse_config

    parser = config_parser(
        "bertjax prepare",
        usage="bertjax prepare [--config FILE] [--KEY VALUE ...]",
        description="Fetch a corpus, build its vocabulary and tokenise it, as 'bertjax pretrain' would first of all.",
    )
    config, _ = parse_config(parser, argv)
    from bertjax.data.prepare import describe, prepare

    print(describe(prepare(config)))


def _encode(argv: list[str]) -> None:
    from bertjax.cli.encode import encode

    encode(argv)


def _fill_mask(argv: list[str]) -> None:
    from bertjax.cli.encode import fill_mask

    fill_mask(argv)


def _neighbours(argv: list[str]) -> None:
    from bertjax.cli.encode import neighbours

    neighbours(argv)


def _export(argv: list[str]) -> None:
    parser = Parser(prog="bertjax export", description="Write a trained model in a form that other tools load.")
    parser.add_argument(
        "run", metavar="RUN", help="folder of a trained run; for stablehlo a Hugging Face one will do too"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make, or for stablehlo file")
    parser.add_argument(
        "--format",
        choices=("hf", "stablehlo"),
        default="hf",
        help="hf: a folder for transformers and sentence-transformers (the default); "
        "stablehlo: the encoder, weights and all, as one file that JAX alone runs",
    )
    args = parser.parse_args(argv)
    if args.format == "stablehlo":
        from bertjax.hub import stablehlo
        from bertjax.inference.pretrained import load

        stablehlo.export(*load(args.run), args.out)
        vocabulary = stablehlo.vocabulary_beside(args.out)
        megabytes = args.out.stat().st_size / 1e6
        print(_HOW_TO_RUN.format(file=str(args.out), vocabulary=str(vocabulary), megabytes=megabytes))
        return
    from bertjax.hub.export import export_run
    from bertjax.runs.folder import RunFolder

    export_run(RunFolder(args.run), args.out)
    print(f"exported to {args.out}; transformers, sentence-transformers and 'bertjax encode' load it")


_HOW_TO_RUN = """\
exported to {file}, {megabytes:,.1f} MB, its vocabulary to {vocabulary}; with jax, flatbuffers and tokenizers:
  import jax.export, numpy, tokenizers
  encode = jax.jit(jax.export.deserialize(open({file!r}, "rb").read()).call)
  text = tokenizers.Tokenizer.from_file({vocabulary!r}).encode("a crane is flying")
  encode(*numpy.array([[text.ids], [text.type_ids], [text.attention_mask]], "int32"))  # float32 [1, tokens, hidden]"""


def _evaluate(argv: list[str]) -> None:
    parser = Parser(prog="bertjax evaluate", description="Print the held-out losses and accuracies of a run.")
    parser.add_argument("run", metavar="RUN", help="folder of a trained run, such as runs/textbook")
    parser.add_argument("--split", choices=("train", "valid", "test"), help="another split than the run held out")
    parser.add_argument(
        "--half", choices=("even", "odd"), help="every other pair alone: choose recipes by one half, tell of the other"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    parser.add_argument("--data.path", dest="path", help="folder with the text, if the run's own has moved")
    parser.add_argument(
        "--eval.mlm_probability",
        dest="mlm_probability",
        type=float,
        help="share of the words to predict, in place of the run's own",
    )
    for name, kind in (("coordinator", str), ("num_processes", int), ("process_id", int), ("bind_address", str)):
        parser.add_argument(f"--distributed.{name}", dest=name, type=kind, help="as for 'bertjax pretrain'")
    args = parser.parse_args(argv)
    if args.json is not None:
        _check_new("--json", args.json)
    from bertjax.config import DistributedConfig
    from bertjax.evaluation.evaluate import as_json, evaluate_run, render
    from bertjax.parallel.distributed import joined

    with joined(
        DistributedConfig(args.coordinator, args.num_processes, args.process_id, args.bind_address)
    ) as processes:
        evaluation = evaluate_run(
            args.run, split=args.split, path=args.path, half=args.half, mlm_probability=args.mlm_probability
        )
    if not processes.first:
        return
    print(render(evaluation))
    if args.json is not None:
        _write("--json", args.json, as_json(evaluation))


def _check_new(option: str, path: Path) -> None:
    if os.path.lexists(path):
        raise BertjaxError(f"{option} {path} exists and is left as it is; give another name")
    if not path.parent.is_dir():
        raise BertjaxError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _write(option: str, path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise BertjaxError(f"cannot write {option} {path}: {error.strerror}; give another place") from error


def _launch(argv: list[str]) -> int:
    parser = Parser(
        prog="bertjax launch",
        usage="bertjax launch -n PROCESSES -- COMMAND ...",
        description="Run a command as several processes of this machine, which find each other on loopback.",
    )
    parser.add_argument("-n", metavar="PROCESSES", type=int, required=True, help="how many")
    parser.add_argument("command", metavar="COMMAND ...", nargs="+", help="such as pretrain --config configs/tiny.yaml")
    args = parser.parse_args(argv)
    if args.n < 1:
        raise BertjaxError(f"-n {args.n} is no number of processes; give 1 or more")
    from bertjax.parallel.launch import launch

    return launch([sys.executable, "-m", "bertjax", *args.command], args.n, environment=tuned_environment(os.environ))


_COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "pretrain": _pretrain,
    "encode": _encode,
    "fill-mask": _fill_mask,
    "neighbours": _neighbours,
    "export": _export,
    "evaluate": _evaluate,
    "prepare": _prepare,
    "launch": _launch,
}
