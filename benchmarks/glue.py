"""`python scripts/glue_submission.py`: what a run tells of a test.tsv of GLUE, as its server takes it."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertjax.cli.arguments import Parser, check_new, new_file
from bertjax.data.examples import read_records
from bertjax.errors import BertjaxError
from bertjax.inference.predict_file import load_predictor, predict_file, task_of
from bertjax.storage.paths import user_path

_ONES, _ENTAILS = ("0", "1"), ("entailment", "not_entailment")
_GENRES = ("entailment", "neutral", "contradiction")
TASKS = {
    "CoLA": _ONES,
    "SST-2": _ONES,
    "MRPC": _ONES,
    "STS-B": None,  # a number from 0 to 5
    "QQP": _ONES,
    "MNLI-m": _GENRES,
    "MNLI-mm": _GENRES,
    "QNLI": _ENTAILS,
    "RTE": _ENTAILS,
    "WNLI": _ONES,
    "AX": _GENRES,
}
"""What the server calls the file of each task, and the labels that it takes there."""


def submission(predicted: Path, task: str) -> Iterator[str]:
    """Yields the lines of a submission: its header, and the index and the prediction of each row.

    Args:
      predicted: what `bertjax predict` wrote: the columns of GLUE's file, and the prediction.
      task: one of `TASKS`.

    Raises:
      BertjaxError: it lacks a column or a row, or something else than the task's labels was predicted.
    """
    yield "index\tprediction\n"
    number = -1
    for number, (place, record) in enumerate(read_records(str(predicted), {"prediction": "prediction"}, "PREDICTED")):
        index = record.get("index", record.get("id"))  # QQP's
        if str(index) != str(number):
            raise BertjaxError(f"{place} has the index {index}, not {number}; give all of GLUE's rows, in their order")
        yield f"{index}\t{_told(task, str(record['prediction']), str(place))}\n"
    if number < 0:
        raise BertjaxError(f"{predicted} has no rows; give what 'bertjax predict' wrote of GLUE's test.tsv")


def _told(task: str, prediction: str, place: str) -> str:
    labels = TASKS[task]
    if labels is not None:
        if prediction not in labels:
            raise BertjaxError(f"{place} has the prediction {prediction!r}; {task} takes {', '.join(labels)}")
        return prediction
    try:
        return f"{min(5.0, max(0.0, float(prediction))):.3f}"
    except ValueError:
        raise BertjaxError(f"{place} has the prediction {prediction!r}; {task} takes a number") from None


def test_rows(run: Path, task: str) -> str:
    """Returns where the rows to predict are, in the folder of the task's files that a run learned from.

    Raises:
      BertjaxError: it learned from no such folder.
    """
    learned = task_of(run).train or ""
    folder = user_path(learned)
    name = {"MNLI-m": "test_matched", "MNLI-mm": "test_mismatched", "AX": "diagnostic"}.get(task, "test")
    folder = folder.parent / task if task == "AX" and folder.is_dir() else folder
    if not (folder / f"{name}.tsv").is_file():
        raise BertjaxError(f"there is no {folder / name}.tsv beside what {run} learned from; give --input the file")
    return str(folder / f"{name}.tsv")


def predict(run: Path, source: str, folder: Path) -> Path:
    """Writes what a run tells of rows into a folder, and returns the file."""
    task, out = task_of(run), folder / "predicted.jsonl"
    with open(out, "w", encoding="utf-8") as file:
        predict_file(load_predictor(run, task, precision="float32", mesh=None), source, file, out)
    return out


def main(argv: Sequence[str]) -> int:
    """Writes a submission; returns the exit code, 2 for bad input."""
    parser = Parser(
        prog="python scripts/glue_submission.py",
        description=(
            "Write the index and prediction of each row as GLUE's test server takes them; of STS-B from 0 to 5. "
            "Its zip has a file of each task."
        ),
    )
    told = "a run that learned from a folder of GLUE's, or what 'bertjax predict' wrote of a test.tsv of GLUE"
    parser.add_argument("predicted", metavar="RUN", type=user_path, help=told)
    named = f"file to write, named as the server does: one of {', '.join(TASKS)}, with .tsv"
    parser.add_argument("out", metavar="OUT", type=user_path, help=named)
    parser.add_argument("--input", metavar="FILE", help="rows for a run, in place of the test.tsv in that folder")
    try:
        args = parser.parse_args(argv)
        task = args.out.stem
        if args.out.suffix != ".tsv" or task not in TASKS:
            raise BertjaxError(f"{args.out.name} is no file of GLUE's; give one of {', '.join(TASKS)} with .tsv")
        check_new("OUT", args.out)
        with tempfile.TemporaryDirectory() as folder, new_file("OUT", args.out) as file:
            predicted = args.predicted
            if predicted.is_dir():
                predicted = predict(predicted, args.input or test_rows(predicted, task), Path(folder))
            file.writelines(submission(predicted, task))
    except BertjaxError as error:
        print(f"glue_submission: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
