"""Thin door to `python -m benchmarks torture`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks", "torture")
