"""`python -m benchmarks torture|soak|corpus|siege`: reads the arguments, tries it, prints the report."""

import math
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.options import check_new, check_plot, make_parser, parse, say, write_json, writing
from bertjax.cli.arguments import Parser
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path


def run(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Runs one and returns whether all is well.

    Args:
      environment: of the processes that are started.

    Raises:
      BertjaxError: bad input, before anything is run; or it cannot be tried.
    """
    return {"torture": _torture, "soak": _soak, "corpus": _corpus, "siege": _siege}[name](argv, environment)


def _torture(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    recipe = "torture"
    parser = make_parser(
        "torture",
        "[--kills N] [--signals]",
        "Kill a short run at random moments, resume it each time, and compare parameters, optimiser state and "
        "metrics.jsonl with those of a run left alone, bit for bit.",
        recipe,
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="in all, over as many runs as it takes")
    parser.add_argument("--signals", action="store_true", help="send SIGTERM and SIGUSR1 in turn, not SIGKILL")
    config, options = parse(parser, argv, recipe)
    if options.kills < 1:
        raise BertjaxError(f"--kills {options.kills} is impossible; give 1 or more")
    if config.train.log_every != 1:
        raise BertjaxError(f"train.log_every={config.train.log_every} hides steps from the trial; give 1")
    from benchmarks.stress import torture

    signals = (signal.SIGTERM, signal.SIGUSR1) if options.signals else (signal.SIGKILL,)
    folder = Path(tempfile.mkdtemp(prefix="bertjax-torture-"))
    report = torture.torture(config, folder, environment, say, kills=options.kills, seed=config.seed, signals=signals)
    print(torture.render(report))
    write_json(report, options.json)
    if report["differences"]:
        print(f"the runs are left in {folder}")
        return False
    shutil.rmtree(folder)
    return True


def _soak(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    recipe = "tiny"
    parser = make_parser(
        "soak",
        "[--texts N] [--plot FILE.png]",
        "Train for long and encode a long stream of texts, and fit how memory, open files and threads grow after the "
        "warm-up; the recipe below is trained for 10,000 steps.",
        recipe,
    )
    parser.add_argument("--texts", type=int, default=1_000_000, metavar="N", help="short ones, to encode")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves there")
    config, options = parse(parser, argv, recipe, ("--train.steps", "10000"), new=("json", "plot"))
    if options.texts < 1:
        raise BertjaxError(f"--texts {options.texts} is impossible; give 1 or more")
    check_plot(options.plot)
    from benchmarks.stress import soak

    with tempfile.TemporaryDirectory(prefix="bertjax-soak-") as folder:
        report = soak.soak(config, Path(folder), environment, say, texts=options.texts)
    print(soak.render(report))
    write_json(report, options.json)
    if options.plot:
        with writing("--plot", options.plot):
            soak.draw(report).savefig(options.plot, dpi=120)
    return report["training"]["flat"] and report["encoding"]["flat"]


def _corpus(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    recipe = "base"
    parser = make_parser(
        "corpus",
        "[--gigabytes N] [--kills N] [--plot FILE.png]",
        "Write text of so many gigabytes into the folder for temporary files, build a corpus from it, kill that on the "
        "way, and watch all its processes' memory; then draw batches from all over it.",
        recipe,
    )
    parser.add_argument(
        "--gigabytes", type=float, default=5.0, metavar="N", help="of text; three times the room is needed"
    )
    parser.add_argument("--kills", type=int, default=1, metavar="N", help="on the way")
    parser.add_argument("--plot", metavar="FILE.png", help="draw memory against time there")
    config, options = parse(parser, argv, recipe, new=("json", "plot"))
    if not (0 < options.gigabytes < math.inf and options.kills >= 0):
        raise BertjaxError(
            f"--gigabytes {options.gigabytes} --kills {options.kills} is impossible; give more than nothing"
        )
    check_plot(options.plot)
    from benchmarks.stress import corpus

    with tempfile.TemporaryDirectory(prefix="bertjax-corpus-") as folder:
        report = corpus.build_and_draw(
            config, Path(folder), environment, say, gigabytes=options.gigabytes, kills=options.kills
        )
    print(corpus.render(report))
    write_json(report, options.json)
    if options.plot:
        with writing("--plot", options.plot):
            corpus.draw(report).savefig(options.plot, dpi=120)
    return True


def _siege(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    parser = Parser(
        prog="python -m benchmarks siege",
        description="Serve a model on loopback to clients of which one in ten vanishes, trickles or sends garbage; "
        "kill the server once and ask it to end once, within two minutes; then leave it alone. Each answer is compared "
        "with the library's. With --replicas it is one of several behind haproxy, and whatever becomes of it every "
        "request is to be answered.",
    )
    parser.add_argument("--model", metavar="FOLDER", type=user_path, help="by default MiniLM, which pip fetches once")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="in all (default: 120)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what the clients do (default: 0)")
    parser.add_argument(
        "--load",
        type=float,
        metavar="SHARE",
        help="of the texts a second answered before the first stop; by default all that can be",
    )
    parser.add_argument("--replicas", type=int, metavar="N", help="besiege as many servers behind haproxy")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    options = parser.parse_args(argv)
    if options.replicas is not None and not 2 <= options.replicas <= 64:
        raise BertjaxError(f"--replicas {options.replicas} is impossible; give 2 to 64")
    if not 3 <= options.seconds < math.inf:
        raise BertjaxError(f"--seconds {options.seconds:g} is impossible; give 3 or more")
    if options.load is not None and not 0 < options.load <= 1:
        raise BertjaxError(f"--load {options.load:g} is impossible; give a share, such as 0.8")
    if options.json:
        check_new("--json", Path(options.json))
    from benchmarks.balanced import check_haproxy
    from benchmarks.films import minilm, sentences
    from benchmarks.serving_process import free_port
    from benchmarks.stress import serve

    if options.replicas is not None:
        check_haproxy()
    with tempfile.TemporaryDirectory(prefix="bertjax-siege-") as folder:
        report = serve.besiege(
            *(options.model or minilm(), sentences()[:500], Path(folder), environment, say),
            port=free_port(),
            seconds=options.seconds,
            seed=options.seed,
            load=options.load,
            replicas=options.replicas,
        )
    print(serve.render(report))
    write_json(report, options.json)
    return bool(report["well"])
