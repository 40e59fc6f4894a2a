"""Thin door to `python -m benchmarks`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks")
