"""`python -m benchmarks bench ...` and `python -m benchmarks trial ...`, from the repository's root."""

import os
import sys

from bertjax.cli.main import tuned_environment
from bertjax.errors import BertjaxError


def main(argv: list[str]) -> int:
    """Runs a bench or a trial and returns its exit code."""
    environment = tuned_environment(os.environ)
    try:
        if argv[:1] == ["bench"]:
            from benchmarks.speed.command import bench

            bench(argv[1:], environment)
            return 0
        from benchmarks.trials import trial

        return 0 if trial(argv[1:], environment) else 1
    except BertjaxError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
