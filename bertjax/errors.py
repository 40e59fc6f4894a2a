"""The one error a user can mend."""


class BertjaxError(Exception):
    """Bad input. The message is one line: what was given, what was needed, what to do.

    The command line prints it and exits with code 2; anything else that escapes is a bug of ours.
    """
