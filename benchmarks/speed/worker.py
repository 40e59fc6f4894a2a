"""Runs one contender, in a process of its own so that its memory is its own; prints a line of JSON.

`python -m benchmarks.speed.worker CONTENDER ARGUMENTS`, the arguments being a JSON object.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from bertjax.errors import BertjaxError, ExitCode
from bertjax.runs.memory import peak_memory


def main(contender: str, arguments: str) -> None:
    run: Callable[..., dict[str, Any]]
    match contender:
        case "ceiling":
            from benchmarks.speed.ceiling import measure_ceiling as run
        case "train":
            from benchmarks.speed.ours import train as run
        case "data":
            from benchmarks.speed.ours import data as run
        case "layers":
            from benchmarks.speed.ours import layers as run
        case "make_weights":
            from benchmarks.speed.ours import make_weights as run
        case "encode":
            from benchmarks.speed.ours import encode as run
        case "finetune":
            from benchmarks.speed.ours import finetune as run
        case "start_finetuning":
            from benchmarks.speed.starting import start_finetuning as run
        case "embed":
            from benchmarks.speed.ours import embed as run
        case "embed_peer":
            from benchmarks.speed.embedding_peers import embed as run
        case "finetune_peer":
            from benchmarks.speed.finetuning_peers import finetune as run
        case "profile":
            from benchmarks.speed.profiling import profile as run
        case "growth":
            from benchmarks.speed.growing import grow as run
        case "communicate":
            from benchmarks.speed.communication import communicate as run
        case "start":
            from benchmarks.speed.starting import start as run
        case "train_peer":
            from benchmarks.speed.training_peers import train as run
        case "export_to_peers":
            from benchmarks.speed.encoding_peers import export as run
        case "encode_peer":
            from benchmarks.speed.encoding_peers import encode as run
        case "gpu_steps":
            from benchmarks.gpu.parts import steps as run
        case "gpu_textbook":
            from benchmarks.gpu.parts import textbook as run
        case "gpu_encode":
            from benchmarks.gpu.parts import encode as run
        case "gpu_precision":
            from benchmarks.gpu.parts import precision as run
        case "gpu_resume":
            from benchmarks.gpu.parts import resume as run
        case _:
            raise ValueError(f"no contender {contender}")
    with contextlib.redirect_stdout(sys.stderr):  # libraries may have something to say
        figures = run(**json.loads(arguments))
    print(json.dumps({"peak_memory_bytes": peak_memory()} | figures))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BertjaxError as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
