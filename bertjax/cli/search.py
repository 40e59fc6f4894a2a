"""The command that finds texts in an index: search."""

import argparse

from bertjax.cli.arguments import Parser, add_mesh, mesh_of
from bertjax.cli.terminal import say
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path


def search(argv: list[str]) -> None:
    """Runs `bertjax search`."""
    parser = Parser(
        prog="bertjax search",
        usage="bertjax search INDEX QUERY [QUERY ...] [--top N] [--exact] [--column NAME ...]\n"
        "       bertjax search INDEX --recall [--top N]",
        description=(
            "Print the texts of an index that are nearest to a query, with their cosines, the nearest first. "
            "'bertjax encode RUN --input FILES --out NAME.index' makes one; the model is the one that made it."
        ),
    )
    parser.add_argument("index", metavar="INDEX", type=user_path, help="folder that 'bertjax encode' made")
    parser.add_argument("query", metavar="QUERY", nargs="*", help='such as "birds in the air"')
    parser.add_argument("--top", type=int, default=10, metavar="N", help="texts for each query (default: 10)")
    parser.add_argument("--exact", action="store_true", help="look at every vector, not where the index leads to")
    parser.add_argument(
        "--column", metavar="NAME", action="append", help="column to show of each text; by default that of the text"
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="put before each query; by default the model's prompt of the name query, else what the texts had",
    )
    parser.add_argument("--model", metavar="RUN", help="where the model is now, if it was moved")
    parser.add_argument(
        "--recall",
        action="store_true",
        help="tell how much of what exact search finds the index finds too, for some of its own vectors",
    )
    add_mesh(parser, "each device has the whole model, and texts of its own")
    args = parser.parse_args(argv)
    if args.top < 1:
        raise BertjaxError(f"--top {args.top} is no number of texts; give 1 or more")
    if bool(args.query) == args.recall:
        raise BertjaxError(f"{'a query and --recall are' if args.recall else 'nothing is'} given; give one of both")
    if args.recall:
        _tell_recall(args)
    else:
        _find(args)


def _find(args: argparse.Namespace) -> None:
    from bertjax.inference.search import load_encoder, query_vectors, shown_columns
    from bertjax.inference.vector_files import check_usearch
    from bertjax.inference.vector_index import VectorIndex

    index = VectorIndex(args.index)
    if not args.exact:
        check_usearch("give --exact")
    columns = shown_columns(index, args.column)
    encoder = load_encoder(index, args.model, mesh_of(args))
    found = index.search(query_vectors(index, encoder, args.query, args.prompt), args.top, exact=args.exact)
    for query, numbers_k, scores_k in zip(args.query, *found, strict=True):
        if len(args.query) > 1:
            say(query)
        for number, score in zip(numbers_k.tolist(), scores_k, strict=True):
            record = index.record(number)
            say(f"{score:8.4f}  {'  '.join(str(record.get(column, '')) for column in columns)}")


def _tell_recall(args: argparse.Namespace) -> None:
    from bertjax.inference.vector_files import check_usearch
    from bertjax.inference.vector_index import VectorIndex

    index = VectorIndex(args.index)
    check_usearch()
    recall = index.recall(args.top)
    say(
        f"recall@{recall.top} {recall.share:.4f} of {recall.queries} vectors of {args.index}, each among the others; "
        f"a query takes {recall.graph_seconds * 1e3:,.2f} ms, and {recall.exact_seconds * 1e3:,.2f} ms with --exact, "
        "where many are asked together"
    )
