"""GLUE's recipes read its files as they are published; the rows here are made up, in the exact format of each task."""

import functools
import json
import shutil
from pathlib import Path
from typing import IO

import pytest

from benchmarks import glue
from benchmarks.glue import main
from bertjax.config import TaskConfig
from bertjax.config.recipes import flat, load_config, recipe_names
from bertjax.data.examples import columns_of, item_of, read_records, read_rows, split
from bertjax.data.held_out import both_sides
from bertjax.data.targets import Labels, Scores, label_reader, learn_targets
from bertjax.errors import BertjaxError

NUMBERS = range(10)  # of the rows of a file
FIRST = ['A "crane lands .', "The lamp (which hums) is old.", '"So," it says', "'t is well ; and more"]
SECOND = ["It flew in.", 'Old lamps "hum".', "He said so", "All ' is well"]


def first(number: int) -> str:
    return f"{FIRST[number % 4]} {number}"


def second(number: int) -> str:
    return f"{SECOND[number % 4]} {number}"


def one(number: int) -> str:
    return str(number % 2)


def genre(number: int) -> str:
    return ("neutral", "contradiction", "entailment")[number % 3]


def entails(number: int) -> str:
    return ("not_entailment", "entailment")[number % 2]


def score(number: int) -> str:
    return f"{number / 2:.3f}"


MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
TREES = "( a ( b c ) )", "( d e )", "(ROOT (S (NP a) (VP b c)))", "(ROOT (S d e))"
MRPC = "#1 ID/#2 ID/#1 String/#2 String"


def mnli(number: int, *labels: str) -> tuple[str, ...]:
    return (str(number), f"{number}31", f"{number}31n", "fiction", *TREES, first(number), second(number), *labels)


def stsb(number: int, *scores: str) -> tuple[str, ...]:
    source = "main-captions", "MSRvid", "2012test", f"{number:04}", "none", "none"
    return (str(number), *source, first(number), second(number), *scores)


FILES = {  # the header of a file, its row of a number, and the label of that row
    "cola/train": (None, lambda n: ("gj04", one(n), "*" if n % 2 == 0 else "", first(n)), one),
    "cola/dev": (None, lambda n: ("r-67", one(n), "", first(n)), one),
    "cola/test": ("index sentence", lambda n: (str(n), first(n)), None),
    "sst2/train": ("sentence label", lambda n: (first(n) + " ", one(n)), one),
    "sst2/test": ("index sentence", lambda n: (str(n), first(n) + " "), None),
    "mrpc/train": (f"\ufeffQuality/{MRPC}", lambda n: (one(n), "70", "71", first(n), second(n)), one),
    "mrpc/test": (f"index/{MRPC}", lambda n: (str(n), "70", "71", first(n), second(n)), None),
    "stsb/train": (f"{STSB} score", lambda n: stsb(n, score(n)), score),
    "stsb/test": (STSB, stsb, None),
    "qqp/train": (
        "id qid1 qid2 question1 question2 is_duplicate",
        lambda n: (f"13{n}", f"21{n}", f"29{n}", first(n), second(n), one(n)),
        one,
    ),
    "qqp/test": ("id question1 question2", lambda n: (str(n), first(n), second(n)), None),
    "mnli/train": (f"{MNLI} label1 gold_label", lambda n: mnli(n, "neutral", genre(n)), genre),
    "mnli/dev_matched": (
        f"{MNLI} label1 label2 label3 label4 label5 gold_label",
        lambda n: mnli(n, *["neutral"] * 5, genre(n)),
        genre,
    ),
    "mnli/test_mismatched": (MNLI, mnli, None),
    "qnli/train": ("index question sentence label", lambda n: (str(n), first(n), second(n), entails(n)), entails),
    "qnli/test": ("index question sentence", lambda n: (str(n), first(n), second(n)), None),
    "rte/train": ("index sentence1 sentence2 label", lambda n: (str(n), first(n), second(n), entails(n)), entails),
    "rte/test": ("index sentence1 sentence2", lambda n: (str(n), first(n), second(n)), None),
    "wnli/train": ("index sentence1 sentence2 label", lambda n: (str(n), first(n), second(n), one(n)), one),
    "wnli/test": ("index sentence1 sentence2", lambda n: (str(n), first(n), second(n)), None),
}
LABELS = {"mnli": ("contradiction", "entailment", "neutral"), "qnli": ("entailment", "not_entailment")}
LABELS["rte"] = LABELS["qnli"]


def write(name: str, folder: Path, end: str = "\n") -> Path:
    """Writes a file of a task, as it is published: fields with a tab between them, and no quoting."""
    header, row, _ = FILES[name]
    lines = [] if header is None else ["\t".join(header.split("/" if "/" in header else " "))]
    lines += ["\t".join(row(number)) for number in NUMBERS]
    file = folder / f"{Path(name).name}.tsv"
    file.write_bytes("".join(line + end for line in lines).encode())
    return file


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_reads_the_published_files(name: str, tmp_path: Path) -> None:
    recipe = name.split("/")[0]
    task, file, label_of = load_config(f"glue/{recipe}").task, write(name, tmp_path), FILES[name][2]
    end = " " if recipe == "sst2" else ""  # of its sentences
    items = [(first(n) + end, None if recipe in ("cola", "sst2") else second(n)) for n in NUMBERS]
    if label_of is None:
        read = list(read_records(str(file), columns_of(task, labelled=False), "--input", task.columns))
        assert [item_of(task, place, record) for place, record in read] == items
        assert [record["id" if recipe == "qqp" else "index"] for _, record in read] == [str(n) for n in NUMBERS]
        return
    rows = read_rows(task, str(file), "task.train", label_reader(task))
    labels = [float(label_of(n)) if recipe == "stsb" else label_of(n) for n in NUMBERS]
    assert {row.item: row.label for row in rows} == dict(zip(items, labels, strict=True)) and len(rows) == 10
    targets = learn_targets(task, rows)
    assert isinstance(targets, Scores) if recipe == "stsb" else targets == Labels(LABELS.get(recipe, ("0", "1")))


@pytest.mark.parametrize("recipe", ["cola", "mrpc", "qnli"])
def test_line_ends_of_windows_are_no_part_of_a_field(recipe: str, tmp_path: Path) -> None:
    task, keys = load_config(f"glue/{recipe}").task, []
    for end in ("\n", "\r\n"):
        rows = read_rows(task, str(write(f"{recipe}/train", tmp_path, end)), "task.train", label_reader(task))
        keys.append([row.key for row in rows])
    assert keys[0] == keys[1]


def test_the_setting_is_one_for_all_tasks() -> None:
    names = [name for name in recipe_names() if name.startswith("glue/")]
    assert names == sorted({f"glue/{name.split('/')[0]}" for name in FILES}) and len(names) == 9
    settings = [flat(load_config(name)) for name in names]
    of_task = {"run_dir", "task.kind", "task.text", "task.pair", "task.label", "task.columns"}
    assert all(setting[key] == settings[0][key] for setting in settings for key in setting if key not in of_task)
    expected = {"optim.learning_rate": 4e-5, "train.batch_size": 16, "train.epochs": 5, "data.max_length": 128}
    expected |= {"optim.name": "adamw", "optim.b2": 0.98, "optim.eps": 1e-6, "optim.weight_decay": 0}
    expected |= {"optim.schedule": "cosine", "optim.warmup_share": 0.1, "optim.clip_norm": None}
    assert {key: settings[0][key] for key in expected} == expected


BROKEN = [
    ("cola", "gj04\t1\t\tOne.\ngj04\t1\n", "line 2 of .* 'sentence' .task.text., but in source, label;"),
    ("cola", "gj04\t1\t\tOne.\tmore\n", "line 1 of .* 1 fields more than there are columns"),
    ("qqp", "id\tquestion1\tquestion2\tis_duplicate\n1\tWhy\n", "line 2 of .* 'question2' .task.pair."),
    ("mrpc", "Quality\t#1 String\n1\ta\n", "line 2 of .* in the column '#2 String' .task.pair."),
    ("stsb", "sentence1\tsentence2\tscore\na\tb\thigh\n", "line 2 of .* has no number in 'score'"),
]


@pytest.mark.parametrize("recipe, text, complaint", BROKEN)
def test_a_broken_line_is_named(recipe: str, text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(text)
    task = load_config(f"glue/{recipe}").task
    with pytest.raises(BertjaxError, match=complaint):
        read_rows(task, str(tmp_path / "train.tsv"), "task.train", label_reader(task))


# What the test server takes.

SUBMISSIONS = [
    ("CoLA", "index\tsentence\tprediction\tprobability", ["0\tOne.\t1\t0.9", "1\tTwo.\t0\t0.8"], ["1", "0"]),
    ("QQP", "id\tquestion1\tquestion2\tprediction\tprobability", ["0\ta\tb\t1\t0.9"], ["1"]),
    ("MNLI-mm", "index\tprediction", ["0\tneutral", "1\tcontradiction"], ["neutral", "contradiction"]),
    ("STS-B", "index\tprediction", ["0\t-0.2", "1\t3.14159", "2\t5.7"], ["0.000", "3.142", "5.000"]),
]


@pytest.mark.parametrize("task, header, rows, told", SUBMISSIONS)
def test_a_submission_has_indices_and_predictions(
    task: str, header: str, rows: list[str], told: list[str], tmp_path: Path
) -> None:
    (tmp_path / "predicted.tsv").write_text("\n".join([header, *rows, ""]))
    assert main([str(tmp_path / "predicted.tsv"), str(tmp_path / f"{task}.tsv")]) == 0
    lines = [f"{number}\t{prediction}\n" for number, prediction in enumerate(told)]
    assert (tmp_path / f"{task}.tsv").read_text() == "index\tprediction\n" + "".join(lines)


@pytest.mark.parametrize(
    "out, text, complaint",
    [
        ("RTE.tsv", "index\tprediction\n0\t1\n", "has the prediction '1'; RTE takes entailment, not_entailment"),
        ("RTE.tsv", "index\tprediction\n1\tentailment\n", "has the index 1, not 0"),
        ("RTE.tsv", "index\tprediction\n", "has no rows"),
        ("RTE.tsv", "index\tlabel\n0\tentailment\n", "nothing in the column 'prediction'"),
        ("STS-B.tsv", "index\tprediction\n0\thigh\n", "STS-B takes a number"),
        ("rte.csv", "index\tprediction\n0\tentailment\n", "rte.csv is no file of GLUE's"),
    ],
)
def test_what_is_no_submission_is_refused_and_nothing_written(
    out: str, text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predicted.tsv").write_text(text)
    assert main([str(tmp_path / "predicted.tsv"), str(tmp_path / out)]) == 2
    assert complaint in capsys.readouterr().err and not (tmp_path / out).exists()


@pytest.mark.parametrize("recipe, dev", [("cola", "dev"), ("mnli", "dev_matched"), ("stsb", "dev")])
def test_a_recipe_reads_the_folder_of_its_task(recipe: str, dev: str, tmp_path: Path) -> None:
    """With one option: what it learns from, what is held out, and what the server asks for."""
    write(f"{recipe}/train", tmp_path)
    shutil.copy(write(f"{recipe}/train", tmp_path), tmp_path / f"{dev}.tsv")
    (tmp_path / "test_mismatched.tsv").touch()
    (tmp_path / "original").mkdir()
    config = load_config(f"glue/{recipe}", [f"task.train={tmp_path}", "init_from=model", "task.eval_share=0.4"])
    read = functools.partial(read_rows, config.task, read_label=label_reader(config.task))
    sides = both_sides(config, read, split)
    assert [len(sides.train), len(sides.held_out)] == [10, 10]
    assert [sides.train_name, sides.held_out_name] == ["train.tsv", f"{dev}.tsv"]
    (tmp_path / f"{dev}.tsv").unlink()
    assert both_sides(config, read, split).held_out_name == "held-out share of train.tsv"


@pytest.mark.parametrize("task, name", [("CoLA", "test"), ("MNLI-mm", "test_mismatched"), ("AX", "diagnostic")])
def test_a_submission_of_a_run_is_of_the_rows_beside_what_it_learned_from(
    task: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, run, out = tmp_path / "MNLI", tmp_path / "run", tmp_path / f"{task}.tsv"
    for folder in (learned, run, tmp_path / "AX"):
        folder.mkdir()
    file = (tmp_path / "AX" if task == "AX" else learned) / f"{name}.tsv"
    monkeypatch.setattr(glue, "task_of", lambda _: TaskConfig("classify", train=str(learned)))

    def load(folder: Path, *_: object, **how: object) -> object:
        def told(source: str, opened: IO[str], _: Path) -> int:
            assert (folder, source) == (run, str(file))
            return opened.write(json.dumps({"index": "0", "prediction": "1" if task == "CoLA" else "neutral"}) + "\n")

        return told

    monkeypatch.setattr(glue, "load_predictor", load)
    assert main([str(run), str(out)]) == 2 and not out.exists()
    assert f"there is no {file} beside what {run} learned from; give --input" in capsys.readouterr().err
    file.write_text("index\tsentence\n0\tOne.\n")
    assert main([str(run), str(out)]) == 0
    assert out.read_text() == "index\tprediction\n0\t" + ("1" if task == "CoLA" else "neutral") + "\n"
