"""Thin door to `python -m benchmarks soak`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks", "soak")
