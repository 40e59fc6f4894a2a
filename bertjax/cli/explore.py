"""The command that serves a page to try a model with: explore."""

from bertjax.cli.arguments import Parser, add_mesh, mesh_of
from bertjax.cli.terminal import say
from bertjax.errors import BertjaxError, shown
from bertjax.storage.hub_models import model_folder
from bertjax.storage.paths import user_path


def explore(argv: list[str]) -> None:
    """Runs `bertjax explore`."""
    parser = Parser(
        prog="bertjax explore",
        usage="bertjax explore RUN [--text FILE] [--port N]",
        description=(
            "Serve a page, to this machine alone, on which to type texts and see what a model makes of them: guesses "
            "for a mask, the nearest lines of a text, the senses of a word as a map, two texts token by token. "
            "Ctrl-C ends it."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained run or of a BERT, or ORG/NAME on the hub")
    parser.add_argument(
        "--text",
        metavar="FILE",
        type=user_path,
        help="UTF-8 file to compare with, a text a line, also .gz or .zst; by default what was held out from the run",
    )
    parser.add_argument(
        "--port", metavar="N", type=int, default=8420, help="port on loopback; 0 takes a free one (default: 8420)"
    )
    add_mesh(parser, "each device has the whole model, and texts of its own")
    args = parser.parse_args(argv)
    if not 0 <= args.port < 2**16:
        raise BertjaxError(f"--port {args.port} is no port; give 0 to 65535")
    from bertjax.inference.encoder import Encoder
    from bertjax.inference.explore import Corpus, Explorer, lines_of_file, lines_of_run
    from bertjax.inference.explore_server import make_server
    from bertjax.runs.signals import terminated_as_interrupted

    if args.text is not None:
        corpus = lines_of_file(str(args.text))
        encoder = Encoder.load(args.run, mesh=mesh_of(args))
    else:
        folder = model_folder(args.run)
        encoder = Encoder.load(folder, mesh=mesh_of(args))
        try:
            corpus = lines_of_run(folder)
        except BertjaxError as error:  # a Hugging Face folder, or a run whose text has gone
            corpus = Corpus(str(error), [])
            say(f"neighbours and senses need a text, by --text FILE: {error}")
    explorer = Explorer(encoder, corpus)
    server = make_server(explorer, args.port, name=str(args.run))
    with server, terminated_as_interrupted():
        say(f"http://127.0.0.1:{server.server_port} shows what {shown(args.run)} makes of your texts; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            explorer.end()
            print("\nended")
