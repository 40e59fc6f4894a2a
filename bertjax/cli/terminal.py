"""Log records and warnings of the library, as a person reads them on a terminal."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from bertjax.errors import shown


@contextlib.contextmanager
def shown_on_terminal() -> Iterator[None]:
    """Shows INFO records of the "bertjax" logger as plain lines on stdout, and warnings as "warning: ..." on stderr."""
    logger, handler = logging.getLogger("bertjax"), _Lines()
    level, propagate = logger.level, logger.propagate
    if not any(isinstance(other, _Lines) for other in logger.handlers):  # or each line would be shown twice
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a library that sets up the root logger would show each line twice
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _write(f"warning: {message}", sys.stderr)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def silence(stream: TextIO) -> None:
    """Sends what a stream still holds, and all that comes, nowhere: at its end Python would complain once more."""
    with contextlib.suppress(OSError):  # one without a file of its own
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Lines(logging.Handler):
    """Writes at once. Where nobody reads on, as after `| head`, lines are lost and the work is not."""

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        if record.levelno >= logging.WARNING:
            _write(f"warning: {message}", sys.stderr)
        else:
            _write(message, sys.stdout)


def say(text: object) -> None:
    """Prints lines of a command's output, each fit to be shown: words and names in them are anybody's."""
    print(_lines(text), flush=True)


def _lines(text: object, longest: int = 1 << 16) -> str:
    return "\n".join(shown(line, longest) for line in str(text).split("\n"))


def _write(line: str, file: TextIO) -> None:
    encoding = file.encoding or "utf-8"
    line = _lines(line)
    line = line.encode(encoding, "replace").decode(encoding)  # words may be in any script
    try:
        if sys.stderr.isatty():  # there may be a bar, which the line goes above
            from tqdm import tqdm

            tqdm.write(line, file=file)
        else:
            print(line, file=file)
        file.flush()
    except OSError as error:
        silence(file)
        if file is sys.stdout and not isinstance(error, BrokenPipeError):
            _write(f"warning: standard output cannot be written ({error.strerror}): going on without it", sys.stderr)
