"""The program `bertjax`: its commands, and how each of them ends. Help and mistakes do not wait for jax."""

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from bertjax.cli.environment import tune_this_process
from bertjax.cli.terminal import shown_on_terminal, silence
from bertjax.errors import BertjaxError, ExitCode
from bertjax.runs.signals import Terminated, interrupted_for_sure, let_through, stopping_from_the_start

_HELP = """\
usage: bertjax COMMAND ...

Pretrain and fine-tune BERT encoders in JAX.

commands:
  pretrain   train on a corpus as a recipe says:   bertjax pretrain --config textbook
  finetune   train to tell labels, from examples:  bertjax finetune --config classify --init_from runs/bert ...
  predict    labels of a file's texts:             bertjax predict runs/classify --input a.csv --out b.csv
  encode     text to vectors with a trained run:   bertjax encode runs/textbook "a crane is flying"
  search     the nearest texts in an index:        bertjax search texts.index "birds in the air"
  fill-mask  words for the masks in a text:        bertjax fill-mask runs/bert "the <mask> sat on the mat"
  neighbours how near the uses of a word are:      bertjax neighbours runs/bert --word crane --text ... --text ...
  export     for transformers, ONNX or StableHLO:  bertjax export runs/bert my-bert
  push       the same, uploaded to the hub:        bertjax push runs/bert org/my-bert
  evaluate   held-out figures of a run:            bertjax evaluate runs/textbook
  serve      vectors and labels over HTTP:         bertjax serve my-bert --port 8080
  explore    try a model on a page of your own:    bertjax explore runs/textbook
  report     a page about runs, for a browser:     bertjax report runs/textbook
  prepare    fetch and tokenise a corpus only:     bertjax prepare --config textbook
  launch     several processes on this machine:    bertjax launch -n 4 -- pretrain --config tiny

bertjax COMMAND --help tells more; bertjax --version tells the version.
exit codes: 0 finished, 2 bad input, 3 diverged, 69 another process died, 74 no room on the disk,
            75 stopped by SIGTERM or SIGUSR1 and 130 by Ctrl-C: the same command with --resume goes on."""

# Each with the module that has the function of its name, imported when it is given: a signal may come at once.
_COMMANDS = {
    "pretrain": "train",
    "finetune": "finetune",
    "predict": "finetune",
    "encode": "encode",
    "search": "search",
    "fill-mask": "encode",
    "neighbours": "encode",
    "export": "export",
    "push": "export",
    "evaluate": "evaluate",
    "serve": "serve",
    "explore": "explore",
    "report": "report",
    "prepare": "train",
    "launch": "train",
}
_RESUMABLE = ("pretrain", "finetune", "prepare")
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
    "search",
    "fill-mask",
    "neighbours",
)


def program(*leading: str) -> int:
    """Runs `main` as a process of its own, in the environment that suits it.

    Args:
      leading: words that go before the arguments given, such as "encode".
    """
    argv = [*leading, *sys.argv[1:]]
    if argv and argv[0] in _RESUMABLE:
        stopping_from_the_start("the same command with --resume goes on")
    elif argv and argv[0] == "encode" and any(word.partition("=")[0] == "--input" for word in argv):
        stopping_from_the_start("the same command goes on")
    let_through()
    if argv and argv[0] in _TUNED:
        tune_this_process()
    return main(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code, one of `ExitCode`.

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
            return _refuse(str(error), error.exit_code)
        except KeyboardInterrupt as interrupt:
            return ExitCode.STOPPED if isinstance(interrupt, Terminated) else ExitCode.INTERRUPTED
        except BrokenPipeError:  # as with `bertjax encode ... | head -1`: nobody reads on
            silence(sys.stdout)
            return 0
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            silence(sys.stdout)
            refusal = BertjaxError(f"cannot write to standard output: {error.strerror}; send it to another place")
            refusal.__cause__ = error
            return _refuse(str(refusal), refusal.exit_code)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
        return ExitCode.FINISHED if argv else ExitCode.BAD_INPUT
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"bertjax {version('bertjax')}")
        return 0
    if argv[0] not in _COMMANDS:
        raise BertjaxError(f"there is no command {argv[0]!r}; give one of {', '.join(_COMMANDS)}")
    try:
        module = importlib.import_module(f"bertjax.cli.{_COMMANDS[argv[0]]}")
        code: int | None = getattr(module, argv[0].replace("-", "_"))(argv[1:])
        return code or ExitCode.FINISHED
    except FileNotFoundError:
        if _has_folder():
            raise
        raise BertjaxError("the folder that this was started in is no more; go to another one") from None


def _refuse(why: str, code: ExitCode) -> ExitCode:
    with contextlib.suppress(OSError):  # nobody reads it, or it finds no room
        print(f"bertjax: {why}", file=sys.stderr, flush=True)
    return code


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
