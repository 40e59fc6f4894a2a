"""Thin door to `python -m benchmarks speedrun`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks", "speedrun")
