"""What is typed after a command."""

import argparse

from bertjax.errors import BertjaxError


class Parser(argparse.ArgumentParser):
    """Mistakes become the one line that every other mistake is."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise BertjaxError(f"{message}; '{self.prog} --help' tells what it takes")
