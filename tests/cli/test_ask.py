"""`bertjax fill-mask`, `neighbours` and `evaluate`: what a trained model is asked on the command line."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import assert_refused, snapshot

from bertjax.cli.main import main
from bertjax.config import DistributedConfig

pytestmark = pytest.mark.usefixtures("one_device")


def test_fill_mask_prints_a_table_a_mask(trained, cli):
    code, out, err = cli("fill-mask", trained[0], "the [MASK] sees a <mask>", "--top", "3")
    assert (code, err) == (0, "")
    tables = out.split("\n\n")
    assert [table.splitlines()[0] for table in tables] == ["mask 1 of 2", "mask 2 of 2"]
    for table in tables:
        rows = [re.fullmatch(r"  (\S+) +(\d+\.\d\d)%", line) for line in table.splitlines()[1:]]
        assert len(rows) == 3 and len({len(row[0]) for row in rows}) == 1
        chances = [float(row[2]) for row in rows]
        assert chances == sorted(chances, reverse=True)
    assert_refused(cli("fill-mask", trained[0], "the noun1"), "there is no <mask> in 'the noun1'")
    assert_refused(cli("fill-mask", "no run", "a <mask>", "--top", "0"), "--top 0", "1 or more")


def test_neighbours_prints_a_table_and_draws(trained, cli, tmp_path):
    picture = tmp_path / "n.png"
    texts = ["--text", "the noun1 sees a noun2", "--text", "a noun1 near noun3"]
    code, out, err = cli("neighbours", trained[0], "--word", "noun1", *texts, "--out", picture)
    assert (code, err) == (0, "") and out.endswith(f"drawn in {picture}\n")
    assert re.search(
        r"  1  the noun1 sees a noun2\n +2    a noun1 near noun3\n\n +1 +2\n +1   1\.000 +[01]\.\d{3}\n", out
    )
    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG")
    assert_refused(cli("neighbours", trained[0], "--word", "noun1", *texts, "--out", picture), "exists and is left")
    other = tmp_path / "o.png"
    for word, found in (("noun4", "'noun4' is in none of the 2 texts"), ("noun3", "'noun3' is only once in the 2")):
        assert_refused(cli("neighbours", trained[0], "--word", word, *texts, "--out", other), found, "two uses")
    assert_refused(cli("neighbours", "no run", "--word", "a", *texts, "--out", "n.jpg"), "does not end in .png")
    assert cli("neighbours", trained[0], "--word", "noun1", *texts) == (
        0,
        out.removesuffix(f"drawn in {picture}\n"),
        "",
    )
    assert picture.read_bytes() == png and list(tmp_path.glob("*.png")) == [picture]


def test_neighbours_reads_a_known_word_in_the_place_of_one_that_is_not(trained, cli):
    def neighbours(*words):
        return cli("neighbours", trained[0], *words, "--text", "the Crane sees a noun2", "--text", "a crane near noun3")

    instead = ["--instead", "digger", "--instead", "noun1", "--instead", "noun2"]
    code, out, err = neighbours("--word", "crane", *instead)
    assert (code, err) == (0, "")
    said, first, second, *_ = out.splitlines()
    assert said == "the vocabulary lacks 'crane': 'noun1' is read in its place"
    assert first.split(None, 1)[1] == "the noun1 sees a noun2" and second.split(None, 1)[1] == "a noun1 near noun3"
    assert_refused(neighbours("--word", "crane", "--instead", "digger"), "lacks 'crane', and 'digger' too")
    known = cli("neighbours", trained[0], "--word", "a", *instead, "--text", "a noun3", "--text", "the a noun1")
    assert known[0] == 0 and "in its place" not in known[1]


# Evaluating.


def test_evaluate_prints_what_training_did(trained, cli):
    run, (_, said, _) = trained
    before = snapshot(run)
    code, out, err = cli("evaluate", run)
    assert (code, err) == (0, "") and out.startswith("wikitext-2/valid, 36 pairs")
    losses = {head: float(loss) for head, loss in re.findall(r"(MLM|NSP) loss (\d\.\d{4}), accuracy \d+\.\d\d%", out)}
    held_out = re.search(r"held out at step 4: MLM loss ([\d.]+).*NSP loss ([\d.]+)", said)
    np.testing.assert_allclose([losses["MLM"], losses["NSP"]], [float(held_out[1]), float(held_out[2])], atol=6e-4)
    assert snapshot(run) == before


def test_evaluate_by_class_of_words_and_by_halves(trained, cli, tmp_path):
    run, file = trained[0], tmp_path / "figures.json"
    code, out, err = cli("evaluate", run, "--half", "odd", "--json", file)
    assert (code, err) == (0, "") and out.startswith("wikitext-2/valid, the 18 odd ones of its pairs, masks fixed\n")
    assert re.search(r"\n    frequent +\d+ +\d\.\d{4} +\d+\.\d\d%\n", out) and max(map(len, out.splitlines())) < 100
    figures = json.loads(file.read_text())
    assert figures["half"] == "odd" and f"MLM loss {figures['means']['mlm_loss']:.4f}" in out
    assert sum(of_class["predictions"] for of_class in figures["classes"].values()) > 18
    before = file.read_bytes()
    assert_refused(cli("evaluate", run, "--json", file), "--json", "exists and is left as it is")
    assert_refused(cli("evaluate", run, "--json", tmp_path / "none" / "a.json"), "there is no folder")
    assert file.read_bytes() == before


def test_evaluate_another_split(trained, cli):
    code, out, err = cli("evaluate", trained[0], "--split", "train")
    assert (code, err) == (0, "") and out.startswith("wikitext-2/train, 180 pairs")


def test_evaluate_a_text_that_changed(trained, cli, tmp_path):
    run = tmp_path / "changed"
    shutil.copytree(trained[0], run)
    told = json.loads((run / "environment.json").read_text())
    told["corpus"]["held_out"]["digest"] = "0"
    (run / "environment.json").write_text(json.dumps(told))
    assert_refused(cli("evaluate", run), "wikitext-2/valid is not the text", "by other_text")
    code, out, err = cli("evaluate", run, "--other_text")
    assert (code, err) == (0, "") and "masks fixed, another text than the run's\n" in out


def test_the_first_of_several_processes_tells_what_all_have_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of runs of every task: they come together before the run's kind is looked at."""
    inside: list[DistributedConfig] = []

    @contextlib.contextmanager
    def joined(config: DistributedConfig, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        inside.append(config)
        yield SimpleNamespace(first=config.process_id == 0)
        inside.clear()

    monkeypatch.setattr("bertjax.parallel.distributed.joined", joined)
    monkeypatch.setattr("bertjax.cli.evaluate._judged", lambda _: (f"{len(inside)} joined", "{}\n"))
    for process in (1, 0):
        of_process = ["--distributed.coordinator", "127.0.0.1:1", "--distributed.num_processes", "2"]
        of_process += ["--distributed.process_id", str(process), "--json", str(tmp_path / f"{process}.json")]
        assert main(["evaluate", "run", *of_process]) == 0
    assert capsys.readouterr().out == "1 joined\n" and [file.name for file in tmp_path.iterdir()] == ["0.json"]
