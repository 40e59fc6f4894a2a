"""The repository's own measurements, from its root: `python -m benchmarks NAME ...`; `--help` lists the names."""

import os
import sys
import warnings
from collections.abc import Sequence

from benchmarks.environment import with_checkout
from bertjax.cli.environment import tuned_environment
from bertjax.errors import BertjaxError

NAMES = {
    "speed": (
        "train",
        "data",
        "start",
        "layers",
        "profile",
        "encode",
        "finetune",
        "embed",
        "serve",
        "search",
        "growth",
        "scaling",
        "quick",
    ),
    "learning": ("ablate", "speedrun", "retrieval", "distill", "finetune-accuracy"),
    "stress": ("torture", "soak", "corpus", "siege"),
}
HELP = """\
usage: python -m benchmarks NAME [--json FILE] [--config RECIPE] [--KEY VALUE ...]

speed, in rounds, each contender in a process of its own:
  train     pretraining steps, data loading included, and the share of the machine's ceiling reached
  data      batches on one core, and how long a corpus takes to build
  start     seconds to a run's first step, the first time and again; to a help text; to a mistake's message
  layers    how long a deep model takes to compile and what a step holds, with train.remat and train.scan_layers
  profile   where a training step's time goes on a CPU, beside what the machine allows at best
  encode    texts to vectors
  embed     pairs of texts that embeddings are learned from, with a real model
  finetune  labelled examples, and the labels of texts, with a real model; both are fetched once
  serve     requests to the server, with a real model; hey makes the load
  search    an index of made-up vectors, and queries in it, against exact search
  growth    time against batch, length, layers, hidden size and corpus, as exponents
  scaling   what devices send each other in a step on each mesh, and what that means for up to 1,024 of them
  quick     a few parts beside what was kept of them: whether one has become slower, in two minutes

learning:
  ablate    a recipe and variants of it with one option flipped, over several seeds: the table of what each is worth
  speedrun  seconds, pairs and joules until a held-out loss is reached
  retrieval whether tuning a model on sentences that follow each other makes a sentence find the next one
  distill   a student that a teacher teaches against the same student untaught, over several seeds
  finetune-accuracy  whole runs of fine-tuning over several seeds: held-out accuracy and seconds

stress:
  torture   kill a run again and again, resume it each time, and compare it with one left alone, bit for bit
  soak      a long run and a long stream of texts: whether memory, open files and threads stay flat
  corpus    a large corpus built, killed on the way, and drawn from: how fast, and whether memory stays flat
  siege     the server among clients that vanish, trickle and send garbage: whether each answer is the library's

python -m benchmarks NAME --help tells more. One NVIDIA GPU, in under four minutes: python scripts/gpu_check.py"""


def main(argv: Sequence[str]) -> int:
    """Runs a benchmark.

    Returns:
      The exit code: 0; 1 where what was tried did not come out well; 2 for bad input; 130 after Ctrl-C.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    name, rest, environment = argv[0], argv[1:], with_checkout(tuned_environment(os.environ))
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        try:
            if name in NAMES["speed"]:
                from benchmarks.speed.command import run
            elif name in NAMES["learning"]:
                from benchmarks.learning.command import run
            elif name in NAMES["stress"]:
                from benchmarks.stress.command import run
            else:
                known = ", ".join(name for group in NAMES.values() for name in group)
                raise BertjaxError(f"there is no benchmark {name!r}; give one of {known}")
            return 0 if run(name, rest, environment) else 1
        except BertjaxError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
