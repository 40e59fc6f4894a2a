"""The one error a user can mend, how every command ends, and how whatever a message shows is made fit to be shown."""

import enum
import errno
import re
import warnings

_LONGEST = 2000  # characters of a message: what was given is in it, and may be a page
_LINES = re.compile("[\t-\r\x1c-\x1e\x85\u2028\u2029]+")  # what begins another line
# What speaks to the terminal; turns about what stands beside it, as marks of direction do; or is half a character.
_UNSEEN = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TENSORSTORE = re.compile(r"os_error_code='(\d+)'")  # which it puts at the end of its message


class ExitCode(enum.IntEnum):
    """Exit codes of the commands, told of in docs/cluster/README.md; those from 69 to 75 are of BSD's sysexits.h."""

    FINISHED = 0
    BUG = 1  # Python's own, with a traceback
    BAD_INPUT = 2
    DIVERGED = 3  # the loss is no number, or has risen too often
    PEER_LOST = 69  # another process of the run died (EX_UNAVAILABLE)
    DISK_FULL = 74  # or the quota is used up (EX_IOERR)
    STOPPED = 75  # a signal stopped it, and the same command goes on (EX_TEMPFAIL): schedulers start it again
    INTERRUPTED = 130  # by Ctrl-C, as a shell has it


def visible(text: str) -> str:
    """Returns a text in which what acts on a screen and is not seen is written out, as `\\x1b`; its lines stay."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(text: object, longest: int = _LONGEST) -> str:
    """Returns what a message, or a line on a terminal, shows of a text: one line, visible, and not without end.

    Args:
      text: whatever it is, such as a user's word or the name of a file.
      longest: characters, of which the first and the last are shown where there are more.
    """
    line = str(text)
    if len(line) > longest:
        end = longest // 4  # where a message has its remedy
        line = f"{line[: longest - end]} ... {line[-end:]}"
    return visible(_LINES.sub(" ", line))


def warn(message: str, stacklevel: int = 1) -> None:
    """Warns, as `warnings.warn` does, in a line that is fit to be shown."""
    warnings.warn(shown(message), stacklevel=stacklevel + 1)


class BertjaxError(Exception):
    """Bad input. The message is one line: what was given, what was needed, what to do.

    The command line prints it and exits with `exit_code`; anything else that escapes is a bug of ours.
    """

    def __init__(self, message: str):
        super().__init__(shown(message))

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that this error ends: a full disk is known by the error that was the cause."""
        cause = self.__cause__
        while cause is not None:
            told = _TENSORSTORE.search(str(cause))
            if getattr(cause, "errno", None) in _FULL or (told and int(told[1]) in _FULL):
                return ExitCode.DISK_FULL
            cause = cause.__cause__
        return ExitCode.BAD_INPUT


class DivergedError(BertjaxError):
    """The loss of a run is no number any more, or has risen too often: not to be started again as it is."""

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that this error ends."""
        return ExitCode.DIVERGED
