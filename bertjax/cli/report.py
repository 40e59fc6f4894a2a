"""The command that shows runs as a page: report."""

from pathlib import Path

from bertjax.cli.arguments import Parser, check_new, new_file
from bertjax.cli.terminal import say
from bertjax.errors import BertjaxError, shown
from bertjax.storage.atomic import atomic_write
from bertjax.storage.paths import user_path


def report(argv: list[str]) -> None:
    """Runs `bertjax report`."""
    parser = Parser(
        prog="bertjax report",
        usage="bertjax report RUN [RUN ...] [--out FILE.html]",
        description=(
            "Write a page about a run, as training does at its end, or about several side by side: one file that a "
            "browser opens from disk."
        ),
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, such as runs/textbook")
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        type=user_path,
        help="page to write; by default report.html, of one run in its folder, where it takes the older one's place",
    )
    args = parser.parse_args(argv)
    own = args.out is None and len(args.runs) == 1
    out = user_path(args.runs[0]) / "report.html" if own else args.out or Path("report.html")
    if not own:
        check_new("--out", out, ".html")
    from bertjax.evaluation.report import report_runs

    page = report_runs(args.runs)
    if own:
        try:
            with atomic_write(out) as file:
                file.write(page)
        except OSError as error:
            raise BertjaxError(f"cannot write {out}: {error.strerror}; give another place by --out") from error
    else:
        with new_file("--out", out) as file:
            file.write(page)
    say(f"written to {shown(out)}; a browser opens it")
