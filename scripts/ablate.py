"""Thin door to `python -m benchmarks ablate`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks", "ablate")
