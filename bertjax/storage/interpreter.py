"""New interpreters, for work in processes of its own.

`python -m` looks for modules first in the folder that it is started in, where a queue.py, random.py or types.py of the
user's takes the place of Python's own.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])
# Added only where it is not on the path: before Python's own modules, those of all installed packages would go too.
_PATH = "import runpy, sys; {root!r} in sys.path or sys.path.insert(0, {root!r}); "
_MODULE = "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"


def module_command(module: str, *argv: str) -> list[str]:
    """Returns the command of a `python -m MODULE` that imports nothing from the folder it is started in.

    Args:
      module: one of the installation or checkout that this is, whichever others there are.
      argv: its arguments.
    """
    return [sys.executable, "-P", "-c", (_PATH + _MODULE).format(root=_ROOT, module=module), *argv]
