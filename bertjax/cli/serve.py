"""The command that serves models to other programs: serve."""

import argparse
import re
from pathlib import PurePosixPath

from bertjax.cli.arguments import Parser, add_mesh, add_precision, mesh_of
from bertjax.errors import BertjaxError
from bertjax.storage.paths import url_of, user_path

_NAME = re.compile(r"[\w.-]{1,100}")


def serve(argv: list[str]) -> None:
    """Runs `bertjax serve`."""
    args = _parser().parse_args(argv)
    origins = _origins(args)
    from bertjax.serving.guard import Guard, is_loopback, read_keys

    keys = read_keys(args.api_key_file) if args.api_key_file else []
    if not is_loopback(args.host) and not keys and not args.no_keys:
        raise BertjaxError(
            f"--host {args.host} lets other machines ask; give --api-key-file FILE, or --no-keys to let everyone"
        )
    given = {name: getattr(args, name) for name in ("max_inputs", "max_body", "max_waiting_tokens")}
    from bertjax.serving.app import Server
    from bertjax.serving.models import Models, Origin
    from bertjax.serving.run import listen, run
    from bertjax.serving.work import Limits

    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    how = {"precision": args.precision, "mesh": mesh_of(args), "batch_tokens": args.batch_tokens}
    models = Models([Origin(name, folder, **how) for name, folder in origins.items()])
    bound = listen(args.host, args.port)
    server = Server(models, limits, Guard(keys, args.allow_origin))
    with bound:
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{host}:{bound.getsockname()[1]} loads {', '.join(origins)}; Ctrl-C ends it", flush=True)
        run(server, bound, drain=args.drain)
        print("ended", flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="bertjax serve",
        usage="bertjax serve [NAME=]FOLDER [[NAME=]FOLDER ...] [--port N] [--host HOST --api-key-file FILE]",
        description=(
            "Serve models over HTTP as clients of OpenAI (/v1/embeddings) and of text-embeddings-inference (/embed, "
            "/rerank, /predict ...) know it; /openapi.json tells all routes. It listens to this machine alone unless "
            "--host says otherwise. SIGTERM and Ctrl-C end it, SIGHUP loads every model anew."
        ),
    )
    parser.add_argument(
        "models",
        metavar="[NAME=]FOLDER",
        nargs="+",
        help="a trained run, a Hugging Face folder, or a name on the hub; NAME is what requests call it, by default "
        "the folder's own; the first one answers those that name none",
    )
    parser.add_argument("--port", metavar="N", type=int, default=8080, help="0 takes a free one (default: 8080)")
    parser.add_argument(
        "--host", metavar="HOST", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)"
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=user_path,
        help="keys, one a line, of which each request must have one, as Authorization: Bearer KEY",
    )
    parser.add_argument(
        "--no-keys", action="store_true", help="let everyone who reaches --host ask; without it keys are needed there"
    )
    parser.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let pages of this site ask, such as https://example.org; those of this machine may",
    )
    add_precision(parser)
    parser.add_argument(
        "--batch-tokens", metavar="N", type=int, help="tokens of the largest batch (default: as the device likes it)"
    )
    parser.add_argument("--max-inputs", metavar="N", type=int, help="texts that a request may have (default: 2048)")
    parser.add_argument("--max-body", metavar="BYTES", type=int, help="size of a request (default: 4194304)")
    parser.add_argument(
        "--max-waiting-tokens",
        metavar="N",
        type=int,
        help="tokens that may wait; past it requests are sent away with 429 (default: 131072)",
    )
    parser.add_argument(
        "--drain", metavar="S", type=float, default=30.0, help="seconds that requests have to end (default: 30)"
    )
    add_mesh(parser, "each device has the whole model, and texts of its own")
    return parser


def _origins(args: argparse.Namespace) -> dict[str, str]:
    """Returns the folders by their names, and checks what else can be checked before anything is imported."""
    if not 0 <= args.port < 2**16:
        raise BertjaxError(f"--port {args.port} is no port; give 0 to 65535")
    for name in ("batch_tokens", "max_inputs", "max_body", "max_waiting_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise BertjaxError(f"--{name.replace('_', '-')} {value} is impossible; give 1 or more")
    if not 0 < args.drain < 1e6:
        raise BertjaxError(f"--drain {args.drain:g} is no number of seconds; give one above 0")
    origins: dict[str, str] = {}
    for given in args.models:
        name, is_named, folder = given.partition("=")
        if not is_named:
            name, folder = PurePosixPath(url_of(given) or user_path(given).absolute()).name, given
        if not _NAME.fullmatch(name) or not folder:
            raise BertjaxError(
                f"{given!r} gives no name to a model; give NAME=FOLDER, NAME of letters, digits, . _ and -"
            )
        if name in origins:
            raise BertjaxError(f"two models are called {name}; give one another name, by NAME=FOLDER")
        origins[name] = folder
    return origins
