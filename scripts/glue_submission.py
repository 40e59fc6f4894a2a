"""Makes a file for GLUE's test server of a run: `python scripts/glue_submission.py --help`."""

from checkout import run

if __name__ == "__main__":
    run("benchmarks.glue")
