"""The parser of the commands that take no recipe, and the checks of the files they write."""

import argparse

from bertjax.config.keys import RENAMED
from bertjax.errors import BertjaxError


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose mistakes become the one line that every other mistake is."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises BertjaxError in place of ending the process."""
        for old, new in RENAMED.items():
            if f"--{old} " in f"{message} ".replace("=", " "):
                raise BertjaxError(f"{old} is now {new}; give --{new}")
        raise BertjaxError(f"{message}; '{self.prog} --help' tells what it takes")
