"""The one error a user can mend, and how every command ends."""

import enum
import errno
import re

_LONGEST = 2000  # characters of a message: what was given is in it, and may be a page
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]+")  # what begins a line, or would speak to the terminal
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


class BertjaxError(Exception):
    """Bad input. The message is one line: what was given, what was needed, what to do.

    The command line prints it and exits with `exit_code`; anything else that escapes is a bug of ours.
    """

    def __init__(self, message: str):
        line = _CONTROL.sub(" ", message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")

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
