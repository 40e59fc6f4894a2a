"""The program `bertjax`: its commands, and how each of them ends. Help and mistakes do not wait for jax."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from bertjax.cli import encode, evaluate, explore, export, finetune, report, serve, train
from bertjax.cli.environment import tune_this_process
from bertjax.cli.terminal import shown_on_terminal, silence
from bertjax.errors import BertjaxError
from bertjax.runs.signals import interrupted_for_sure

_HELP = """\
usage: bertjax COMMAND ...

Pretrain and fine-tune BERT encoders in JAX.

commands:
  pretrain   train on a corpus as a recipe says:   bertjax pretrain --config textbook
  finetune   train to tell labels, from examples:  bertjax finetune --config classify --init_from runs/bert ...
  predict    labels of a file's texts:             bertjax predict runs/classify --input a.csv --out b.csv
  encode     text to vectors with a trained run:   bertjax encode runs/textbook "a crane is flying"
  fill-mask  words for the masks in a text:        bertjax fill-mask runs/bert "the <mask> sat on the mat"
  neighbours how near the uses of a word are:      bertjax neighbours runs/bert --word crane --text ... --text ...
  export     for transformers, or as StableHLO:    bertjax export runs/bert my-bert
  push       the same, uploaded to the hub:        bertjax push runs/bert org/my-bert
  evaluate   held-out figures of a run:            bertjax evaluate runs/textbook
  serve      vectors and labels over HTTP:         bertjax serve my-bert --port 8080
  explore    try a model on a page of your own:    bertjax explore runs/textbook
  report     a page about runs, for a browser:     bertjax report runs/textbook
  prepare    fetch and tokenise a corpus only:     bertjax prepare --config textbook
  launch     several processes on this machine:    bertjax launch -n 4 -- pretrain --config tiny

bertjax COMMAND --help tells more; bertjax --version tells the version."""

_COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "pretrain": train.pretrain,
    "finetune": finetune.finetune,
    "predict": finetune.predict,
    "encode": encode.encode,
    "fill-mask": encode.fill_mask,
    "neighbours": encode.neighbours,
    "export": export.export,
    "push": export.push,
    "evaluate": evaluate.evaluate,
    "serve": serve.serve,
    "explore": explore.explore,
    "report": report.report,
    "prepare": train.prepare,
    "launch": train.launch,
}
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # of stdout: those of files are told of by name
_TUNED = (
    "pretrain",
    "finetune",
    "predict",
    "evaluate",
    "serve",
    "explore",
    "report",
    "encode",
    "fill-mask",
    "neighbours",
)


def program(*leading: str) -> int:
    """Runs `main` as a process of its own, in the environment that suits it.

    Args:
      leading: words that go before the arguments given, such as "encode".
    """
    argv = [*leading, *sys.argv[1:]]
    if argv and argv[0] in _TUNED:
        tune_this_process()
    return main(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Args:
      argv: the command and its arguments; by default those of this process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _open_missing_streams()
    with shown_on_terminal():
        try:
            with interrupted_for_sure():
                code = _run(argv)
            sys.stdout.flush()
            return code
        except BertjaxError as error:
            return _refuse(str(error))
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # as with `bertjax encode ... | head -1`: nobody reads on
            silence(sys.stdout)
            return 0
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            silence(sys.stdout)
            return _refuse(f"cannot write to standard output: {error.strerror}; send it to another place")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
        return 0 if argv else 2
    if argv[0] == "--version":
        import importlib.metadata

        print(f"bertjax {importlib.metadata.version('bertjax')}")
        return 0
    if argv[0] not in _COMMANDS:
        raise BertjaxError(f"there is no command {argv[0]!r}; give one of {', '.join(_COMMANDS)}")
    try:
        return _COMMANDS[argv[0]](argv[1:]) or 0
    except FileNotFoundError:
        if _has_folder():
            raise
        raise BertjaxError("the folder that this was started in is no more; go to another one") from None


def _refuse(why: str) -> int:
    with contextlib.suppress(OSError):  # nobody reads it, or it finds no room
        print(f"bertjax: {why}", file=sys.stderr, flush=True)
    return 2


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _open_missing_streams() -> None:
    """Opens what a shell has closed, as in `bertjax ... >&-`: the next file would get its number, and its output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
