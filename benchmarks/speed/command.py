"""`python -m benchmarks train` and the others of speed: reads the arguments, runs it, prints a table."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.options import FINETUNING_PEERS, check_new, check_packages, make_parser, parse, say, write_json, writing
from bertjax.cli.arguments import Parser
from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path

_WORDS = ("--tokenizer.kind", "word")  # quickly found, and most of WikiText-2's: its figures are of words


class _Options(NamedTuple):
    """The arguments that a benchmark may have; its contenders are in `benches`, too slow to import for a mistake."""

    recipe: str  # its name, taken unless another is given
    description: str
    peers: tuple[str, ...] = ()  # packages that --peers needs
    settings: tuple[str, ...] = ()  # of that recipe, unless others are given


_OPTIONS = {
    "train": _Options(
        "textbook",
        "Time pretraining steps as a recipe says, data loading included.",
        peers=("torch", "transformers"),
    ),
    "data": _Options("textbook", "Time batches on one core, and the building of a corpus with its vocabulary."),
    "start": _Options("textbook", "Time a run's start to its first step, the corpus being built, and what is quicker."),
    "layers": _Options(
        "large",
        "Compile a training step with layers kept or computed again, written out or scanned; run nothing.",
        settings=_WORDS,
    ),
    "encode": _Options(
        "base",
        "Time 512 sentences of the text through the recipe's model with fresh weights, mean pooling.",
        peers=("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime"),
        settings=_WORDS,
    ),
    "finetune": _Options(
        "classify",
        "Time fine-tuning steps and labels told, the first figure from cold, and memory. Without --init_from and "
        "--task.train, of MiniLM on sentences about films, which pip fetches once.",
        peers=FINETUNING_PEERS,
        settings=("--train.epochs", "2"),
    ),
    "embed": _Options(
        "embed",
        "Time steps that learn embeddings. Without --init_from and --task.train, of MiniLM on pairs of sentences about "
        "films, which pip fetches once.",
        peers=("torch", "transformers", "accelerate", "sentence_transformers", "datasets"),
    ),
    "profile": _Options(
        "textbook",
        "Show where a training step's time goes on one core of a CPU, beside what it allows at best, in one round. A "
        "recipe of fine-tuning has MiniLM and sentences about films unless it names others.",
    ),
    "growth": _Options("textbook", "Time steps and data at several sizes, and fit exponents."),
    "scaling": _Options(
        "base",
        "Compile a step on meshes of 8 simulated devices and count what is sent; run nothing, in one round.",
        settings=_WORDS,
    ),
}


def run(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Runs one; returns True.

    Args:
      environment: of our own contenders; other libraries have the plain one.

    Raises:
      BertjaxError: bad input, before anything is run; or a contender fails.
    """
    if name == "serve":
        return _serve(argv, environment)
    if name == "search":
        return _search(argv)
    if name == "quick":
        return _quick(argv)
    known = _OPTIONS[name]
    config, options = _parse(name, known, argv)
    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        if name == "growth":
            from benchmarks.speed import growth

            report = growth.measure(config, Path(folder), environment, say, rounds=options.rounds)
            print(growth.render(report))
        elif name == "scaling":
            from benchmarks.speed import scaling

            report = scaling.measure(config, Path(folder), environment, say)
            print(scaling.render(report))
        elif name == "profile":
            from benchmarks.speed import profiling

            report = profiling.measure(config, Path(folder), environment, say)
            print(profiling.render(report))
        elif name == "finetune":
            from benchmarks.speed import finetune, table

            peers = known.peers if options.peers else ()
            report = finetune.measure(
                config, Path(folder), environment, say, rounds=options.rounds, peer_packages=peers
            )
            print(table.render(report, finetune.COLUMNS))
        elif name == "embed":
            from benchmarks.speed import embedding, table

            peers = known.peers if options.peers else ()
            report = embedding.measure(
                config, Path(folder), environment, say, rounds=options.rounds, peer_packages=peers
            )
            print(table.render(report, embedding.COLUMNS))
        else:
            from benchmarks.speed import benches, table

            peers = known.peers if options.peers else ()
            report = benches.measure(
                name, config, Path(folder), environment, say, rounds=options.rounds, peer_packages=peers
            )
            print(table.render(report, benches.BENCHES[name].columns))
    write_json(report, options.json)
    if options.plot:
        with writing("--plot", options.plot):
            growth.draw(report).savefig(options.plot, dpi=120)
    return True


def _parse(name: str, known: _Options, argv: Sequence[str]) -> tuple[Config, Any]:
    its_own = " [--peers]" if known.peers else " [--plot FILE.png]" if name == "growth" else ""
    parser = make_parser(name, f"[--rounds N]{its_own}", known.description, known.recipe)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that every contender runs, in turn")
    parser.add_argument("--peers", action="store_true", help="run other libraries too, in turn with ours")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the growth there")
    config, options = parse(parser, argv, known.recipe, known.settings, new=("json", "plot"))
    if options.rounds < 1:
        raise BertjaxError(f"--rounds {options.rounds} is impossible; give 1 or more")
    if options.plot and (name != "growth" or not options.plot.endswith(".png")):
        raise BertjaxError(f"--plot {options.plot}: only growth draws, and into a FILE.png")
    if options.peers:
        if name == "train" and config.data.objective == "mlm":
            raise BertjaxError("--peers learn from pairs, and data.objective=mlm has none; give another, or no --peers")
        _check_peers(name, known)
    return config, options


def _check_peers(name: str, known: _Options) -> None:
    if not known.peers:
        with_peers = " or ".join(other for other in _OPTIONS if _OPTIONS[other].peers)
        raise BertjaxError(f"{name} has no peers; leave out --peers, or run {with_peers}")
    check_packages(known.peers)


def _serve(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = Parser(
        prog="python -m benchmarks serve",
        description="Time `bertjax serve` of MiniLM, which pip fetches once, on loopback: one request at a time, 32 at "
        "once, and 64 texts a request. hey makes the load.",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that every server runs, in turn")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each of the three loads")
    parser.add_argument("--peers", action="store_true", help="run infinity-emb too, in an environment of its own")
    parser.add_argument("--infinity", metavar="FOLDER", type=user_path, help="that environment; by default made once")
    parser.add_argument(
        "--replicas", type=int, metavar="N", help="run as many behind haproxy too, on cores of their own"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(argv)
    if options.rounds < 1 or not 0 < options.seconds < 3600:
        raise BertjaxError(
            f"--rounds {options.rounds} --seconds {options.seconds:g} is impossible; give more than none"
        )
    if options.json:
        check_new("--json", Path(options.json))
    if options.replicas is not None and not 1 <= options.replicas <= 64:
        raise BertjaxError(f"--replicas {options.replicas} is impossible; give 1 to 64")
    from benchmarks import balanced
    from benchmarks.speed import serve

    serve.check_hey()
    if options.replicas is not None:
        balanced.check_haproxy()
    infinity = (options.infinity or serve.infinity_environment(say)) if options.peers else None
    how = {"rounds": options.rounds, "seconds": options.seconds, "infinity": infinity, "replicas": options.replicas}
    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        report = serve.measure(Path(folder), environment, say, **how)
    print(serve.render(report))
    write_json(report, options.json)
    return True


def _search(argv: Sequence[str]) -> bool:
    parser = Parser(
        prog="python -m benchmarks search",
        description="Build an index of made-up vectors in clusters of a hundred, and time queries near their centres "
        "against exact search; it needs twice the vectors' room in the folder for temporary files.",
    )
    parser.add_argument("--vectors", type=int, default=1_000_000, metavar="N", help="in the index")
    parser.add_argument("--size", type=int, default=384, metavar="N", help="numbers in a vector")
    parser.add_argument("--queries", type=int, default=1_000, metavar="N", help="none of them in the index")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(argv)
    if not (options.vectors > 10 and options.size > 0 and options.queries > 0):
        raise BertjaxError(f"--vectors {options.vectors} --size {options.size} --queries {options.queries}: too few")
    if options.json:
        check_new("--json", Path(options.json))
    from benchmarks.speed import search
    from bertjax.inference.vector_files import check_usearch

    check_usearch()

    how = {"vectors": options.vectors, "size": options.size, "queries": options.queries}
    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        report = search.measure(Path(folder), say, **how)
    print(search.render(report))
    write_json(report, options.json)
    return True


def _quick(argv: Sequence[str]) -> bool:
    parser = Parser(
        prog="python -m benchmarks quick",
        description="Time a few parts beside a product of matrices, in under two minutes, and say which have become "
        "slower or faster than what benchmarks/speed/quick.json keeps.",
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="times that every part runs, in turn")
    parser.add_argument("--keep", action="store_true", help="keep this profile for later ones to be compared with")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise BertjaxError(f"--rounds {options.rounds} is impossible; give 1 or more")
    if options.json:
        check_new("--json", Path(options.json))
    from benchmarks.speed import quick

    with tempfile.TemporaryDirectory(prefix="bertjax-bench-") as folder:
        report = quick.measure(Path(folder), say, rounds=options.rounds)
    print(quick.render(report, report if options.keep else quick.kept()))
    if options.keep:
        quick.keep(report)
    write_json(report, options.json)
    return True
