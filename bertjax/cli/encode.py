"""The commands that give text to a trained model: encode, fill-mask, neighbours."""

import argparse
import os
from pathlib import Path
from typing import Any

from bertjax.cli.arguments import Parser, add_mesh, add_precision, check_new, is_ours, mesh_of, new_file
from bertjax.cli.terminal import say
from bertjax.errors import BertjaxError, shown
from bertjax.storage.fetch import here
from bertjax.storage.outputs import delivered, output
from bertjax.storage.paths import url_of, user_path

# Those of `inference.engine`, for which --help does not wait.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "tokens")


def encode(argv: list[str]) -> None:
    """Runs `bertjax encode`."""
    args = _encode_parser().parse_args(argv)
    if (args.text is None) == (args.input is None):
        given = "both a text and --input are given" if args.text is not None else "there is no text"
        raise BertjaxError(f"{given}; give TEXT, or --input FILES for one on every line")
    if args.input is not None and args.out is None:
        raise BertjaxError("--input needs --out; give a name in .npy, .safetensors, .parquet or .index")
    if args.out is not None and not is_ours(args.out.path):
        return
    with delivered("--out", args.out) as args.out:
        (_encode_one if args.input is None else _encode_files)(args)


def _encode_parser() -> Parser:
    parser = Parser(
        prog="bertjax encode",
        usage="bertjax encode RUN TEXT [TEXT_PAIR] [--out FILE.npy] [--truncate]\n"
        "       bertjax encode RUN --input FILES --out OUT [--column NAME] [--keep NAME ...] [--split I/N]\n"
        "                      [--pooling HOW] [--normalize] [--prompt TEXT] [--truncate]",
        description=(
            "Print the representations of a text, or of a pair of texts; or write a vector for every row of files. "
            "Of plain text a line is a row: one with a tab in it is a pair, an empty one an empty text, and vector n "
            "is always of line n. Given again after a kill, the same command continues where it stopped."
        ),
    )
    _add_run(parser)
    parser.add_argument("text", metavar="TEXT", nargs="?", help='such as "a crane is flying"')
    parser.add_argument("pair", metavar="TEXT_PAIR", nargs="?", help="a second text, read together with the first")
    _add_files(parser)
    _add_how(parser)
    return parser


def _add_files(parser: Parser) -> None:
    parser.add_argument(
        "--input",
        metavar="FILES",
        help="UTF-8 text with a text or a pair on each line, or .jsonl, .json, .csv, .tsv, .parquet or .arrow, also "
        ".gz or .zst; several, folders and patterns as in data.path; - for standard input",
    )
    parser.add_argument(
        "--column",
        metavar="NAME",
        action="append",
        default=[],
        help="with --input: the column of the text, where files have columns (default: text); twice for pairs",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=output,
        help="save the vectors, also at a URL: for one text as .npy, float32 [1, tokens, hidden]; for --input as .npy "
        "or .safetensors (vectors), float32 [rows, size], as .parquet (what is kept, vector), or as an .index for "
        "'bertjax search'",
    )
    parser.add_argument(
        "--keep",
        metavar="NAME",
        action="append",
        help="with --input: a column to write beside each vector in .parquet or .index, of lines file, line, text or "
        "pair; by default all columns, and of lines their numbers",
    )
    parser.add_argument(
        "--split",
        metavar="I/N",
        default="1/1",
        help="with --input: only the I-th of N parts of the rows, every N-th row, so that N jobs share the work",
    )


def _add_how(parser: Parser) -> None:
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        metavar="HOW",
        help="with --input: a vector a row of the model alone: cls, max, mean, mean_sqrt_len_tokens, weightedmean or "
        "lasttoken; or tokens, the vectors of all, as .safetensors (vectors, and offsets of each row's first) or "
        ".parquet (vectors). By default a folder of sentence-transformers is followed, and for others it is mean",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="with --input: scale every vector to length 1, or don't; by default as --pooling says",
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="with --input: put before every text; by default as --pooling says"
    )
    parser.add_argument("--truncate", action="store_true", help="shorten a text that is longer than the model can read")
    add_precision(parser)


def _encode_files(args: argparse.Namespace) -> None:
    from bertjax.inference.encode_file import check_out, encode_file
    from bertjax.inference.encoder import Encoder
    from bertjax.inference.rows import find_sources, parse_part

    if len(args.column) > 2:
        raise BertjaxError(f"--column is given {len(args.column)} times; give one for texts, or two for pairs")
    part, keep = parse_part(args.split), None if args.keep is None else tuple(args.keep)
    check_out(args.out, args.pooling, keep)
    source = args.input if args.input == "-" else here(url_of(args.input) or args.input)
    find_sources(source)
    encoder = Encoder.load(args.run, precision=args.precision, mesh=mesh_of(args))
    how = {key: getattr(args, key) for key in ("pooling", "normalize", "truncate", "prompt")}
    columns, model = tuple(args.column), _lasting_name(args.run)
    encode_file(encoder, source, args.out, **how, columns=columns, keep=keep, part=part, model=model)


def _lasting_name(run: str) -> str:
    """Returns a name of the model that is as good in another folder."""
    there = url_of(run) is None and user_path(run).exists()
    return os.path.abspath(user_path(run)) if there else run


def fill_mask(argv: list[str]) -> None:
    """Runs `bertjax fill-mask`."""
    parser = Parser(
        prog="bertjax fill-mask",
        description="Print the words that a trained model predicts for each mask in a text, likeliest first.",
    )
    _add_run(parser)
    parser.add_argument("text", metavar="TEXT", help='such as "the <mask> sat on the mat"; [MASK] is a mask too')
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of words for each mask (default: 5)")
    args = parser.parse_args(argv)
    if args.top < 1:
        raise BertjaxError(f"--top {args.top} is no number of words; give 1 or more")
    from bertjax.inference.encoder import Encoder

    guessed = Encoder.load(args.run, mesh=mesh_of(args)).fill_mask(args.text, top=args.top)
    width = max(len(guess.word) for guesses in guessed for guess in guesses)
    for number, guesses in enumerate(guessed, 1):
        if len(guessed) > 1:
            say(f"{'' if number == 1 else chr(10)}mask {number} of {len(guessed)}")
        for word, probability in guesses:
            say(f"  {word:<{width}}  {probability:7.2%}")


def neighbours(argv: list[str]) -> None:
    """Runs `bertjax neighbours`."""
    parser = Parser(
        prog="bertjax neighbours",
        usage="bertjax neighbours RUN --word WORD --text TEXT --text TEXT ... [--instead WORD ...] [--out FILE.png]",
        description=(
            "Show how similar the uses of one word are in different texts: the cosines between the word's vectors, "
            "as a table, and with --out as a picture."
        ),
    )
    _add_run(parser)
    parser.add_argument("--word", required=True, metavar="WORD", help="such as crane")
    parser.add_argument(
        "--text", required=True, action="append", metavar="TEXT", help='such as "a crane is flying"; give several'
    )
    parser.add_argument(
        "--out",
        metavar="FILE.png",
        type=user_path,
        help="picture to draw; by default none is drawn",
    )
    parser.add_argument(
        "--instead",
        action="append",
        default=[],
        metavar="WORD",
        help="word to read in the place of --word, in all the texts, where the vocabulary lacks that; of several the "
        "first that is known",
    )
    parser.add_argument("--truncate", action="store_true", help="shorten a text that is longer than the model can read")
    args = parser.parse_args(argv)
    if args.out:
        check_new("--out", args.out, ".png")
    import numpy as np

    from bertjax.inference.encoder import Encoder
    from bertjax.inference.neighbours import contexts, cosines, first_known, render, replaced

    encoder, word, texts = Encoder.load(args.run, mesh=mesh_of(args)), args.word, args.text
    if args.instead and (known := first_known([word, *args.instead], encoder.tokenizer)) != word:
        if known is None:
            raise BertjaxError(
                f"the vocabulary lacks {word!r}, and {', '.join(map(repr, args.instead))} too; give another --instead"
            )
        say(f"the vocabulary lacks {word!r}: {known!r} is read in its place")
        word, texts = known, [replaced(word, known, text) for text in texts]
    uses = encoder.word_vectors(word, texts, truncate=args.truncate)
    if len(uses) < 2:
        found = f"only once in the {len(texts)} texts" if uses else f"in none of the {len(texts)} texts"
        raise BertjaxError(f"{word!r} is {found}; give --text for two uses of it or more")
    around = contexts(word, texts, [use.text for use in uses])
    near_nn = cosines(np.stack([use.vector_d for use in uses]))
    say(render(around, near_nn))
    if args.out:
        _draw(word, around, near_nn, args.out)


def _draw(word: str, around: Any, near_nn: Any, out: Path) -> None:
    from bertjax.inference.neighbours_plot import plot

    try:
        plot(word, around, near_nn, out)
    except OSError as error:
        raise BertjaxError(f"cannot write --out {out}: {error.strerror}; give another place") from error
    say(f"drawn in {shown(out)}")


def _add_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a trained run or of a BERT, or ORG/NAME on the hub")
    add_mesh(parser, "each device has the whole model, and texts of its own")


def _encode_one(args: argparse.Namespace) -> None:
    default = {"column": [], "split": "1/1"}
    for option in ("pooling", "normalize", "prompt", "column", "keep", "split"):
        if getattr(args, option) != default.get(option):
            raise BertjaxError(f"--{option} has no effect on one text, all of whose tokens are shown; give --input")
    if args.out:
        check_new("--out", args.out, ".npy")
    from bertjax.inference.encoder import Encoder

    encoder = Encoder.load(args.run, precision=args.precision, mesh=mesh_of(args))
    words = encoder.tokenizer.split(args.text)
    pair = None if args.pair is None else encoder.tokenizer.split(args.pair)
    encoded_1td = encoder.encode_tokens(words, pair, truncate=args.truncate)
    tokens = encoder.tokens_read(words, pair, truncate=args.truncate)
    say(f"{len(tokens)} tokens: {' '.join(tokens)}")
    say(f"representations {list(encoded_1td.shape)}, of {tokens[0]} {list(encoded_1td[:, 0].shape)}; first values:")
    width = max(map(len, tokens))
    for token, vector in zip(tokens, encoded_1td[0], strict=True):
        say(f"  {token:<{width}}  " + "  ".join(f"{value:10.6f}" for value in vector[:3]))
    if args.out:
        import numpy as np

        with new_file("--out", args.out, binary=True) as file:
            np.save(file, encoded_1td)
        say(f"saved in {shown(args.out)}")
