"""Measures bertjax on one NVIDIA GPU in under four minutes: `python scripts/gpu_check.py --help`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks.gpu.check")
