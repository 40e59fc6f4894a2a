"""What is run, what is not run again, and what the table makes of it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from stand_ins import start_no_process

from benchmarks.__main__ import main
from benchmarks.learning import ablate
from benchmarks.learning.ablate import Run, render, variants
from bertjax.config import Config
from bertjax.config.recipes import flat
from bertjax.errors import BertjaxError


def options(config: Config) -> list[str]:
    return [f"--{key}={'null' if value is None else value}" for key, value in flat(config).items()]


def test_each_flip_is_a_variant(tiny: Config) -> None:
    wanted = variants(tiny, ["optim.learning_rate=0.5", "optim.name=muon,model.biases=false"])
    assert [variant.name for variant in wanted] == [
        "base",
        "optim.learning_rate=0.5",
        "optim.name=muon,model.biases=false",
    ]
    assert wanted[1].config == dataclasses.replace(tiny, optim=dataclasses.replace(tiny.optim, learning_rate=0.5))
    assert wanted[2].config.optim.name == "muon" and not wanted[2].config.model.biases


@pytest.mark.parametrize(
    "flips, message",
    [
        (["optim.learnig_rate=1"], "--flip optim.learnig_rate=1: .*optim.learning_rate"),
        (["optim.b1=2"], "--flip optim.b1=2: optim.b1=2.0 is not a decay"),
        (["muon"], "--flip muon: .*key=value"),
        (["seed=3"], "--flip seed=3 changes seed"),
        (["optim.b1=0.9"], "--flip optim.b1=0.9 makes the recipe of base"),
        (["optim.b1=0.8", "optim.b1=0.80"], "--flip optim.b1=0.80 makes the recipe of optim.b1=0.8"),
    ],
)
def test_a_flip_that_is_none(tiny: Config, flips: list[str], message: str) -> None:
    with pytest.raises(BertjaxError, match=message) as error:
        variants(tiny, flips)
    assert "\n" not in str(error.value)


def run(name: str, seed: int, loss: float, **others: Any) -> Run:
    of_half = {"mlm_loss": loss, "mlm_accuracy": 0.5, "nsp_accuracy": 0.7}
    return {"variant": name, "seed": seed, "seconds": 9.6, "even": of_half, "odd": of_half} | others


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Learning rates and seeds of what was run, in place of running it."""
    found = []

    def pretend(config: Config, base: Config, seed: int, environment: dict) -> Run:
        found.append((config.optim.learning_rate, seed))
        if len(found) == 4:
            raise KeyboardInterrupt
        return {
            key: value
            for key, value in run("", 0, seed + config.optim.learning_rate).items()
            if key in ("seconds", "even", "odd")
        }

    monkeypatch.setattr(ablate, "_run", pretend)
    return found


def test_what_is_done_is_not_done_again(tiny: Config, tmp_path: Path, ran: list, capsys: pytest.CaptureFixture) -> None:
    file, table = tmp_path / "runs.json", tmp_path / "table.md"
    command = ["ablate", *options(tiny), "--flip", "optim.learning_rate=0.5", "--json", str(file)]
    assert main([*command, "--seeds", "2", "--table", str(table)]) == 130
    assert len(json.loads(file.read_text())["runs"]) == 3 and not table.exists()
    capsys.readouterr()
    assert main([*command, "--seeds", "2", "--table", str(table)]) == 0
    assert ran == [(0.01, 0), (0.5, 0), (0.01, 1), (0.5, 1), (0.5, 1)]
    assert table.read_text() == capsys.readouterr().out
    assert (
        "| `optim.learning_rate=0.5` | 1.000 (0.500 to 1.500) | 1.000 (0.500 to 1.500) | +0.490 (+0.490 to +0.490) |"
        in (table.read_text())
    )
    assert main([*command, "--seeds", "1"]) == 0 and len(ran) == 5
    assert len(json.loads(file.read_text())["runs"]) == 4  # what was not asked for stays
    other = ["ablate", *options(tiny), "--json", str(file), "--optim.b1", "0.8"]
    assert main(other) == 2
    assert "is of another recipe, by optim.b1; give another name" in capsys.readouterr().err
    assert main([*command, "--table", str(table)]) == 2
    file.write_text("{}")
    assert main(command) == 2
    assert "is no report of this trial" in capsys.readouterr().err and file.read_text() == "{}" and len(ran) == 5


def test_the_table_tells_what_helps_and_what_does_not(tiny: Config) -> None:
    wanted = variants(
        tiny,
        [
            *(
                "optim.b1=0.8",
                "optim.b1=0.7",
                "optim.learning_rate=99.0",
                "data.mask_unit=word",
                "data.mlm_probability=0.3",
            ),
            f"data.max_length=30,eval.max_length={tiny.data.max_length}",
        ],
    )
    runs = [run("base", 0, 5.0), run("base", 1, 5.2), run("optim.b1=0.8", 0, 4.5), run("optim.b1=0.8", 1, 4.8)]
    runs += [run("optim.b1=0.7", 0, 4.9), run("optim.b1=0.7", 1, 5.3)]
    runs += [
        run("optim.learning_rate=99.0", 0, 7.0),
        {"variant": "optim.learning_rate=99.0", "seed": 1, "failed": "no!"},
    ]
    runs += [run(name, seed, 4.0) for name in ("data.mask_unit=word",) for seed in (0, 1)]
    runs += [run(name, seed, 5.1) for name, _ in wanted[-2:] for seed in (0, 1)]
    lines = render({"runs": runs}, wanted).splitlines()
    of = {line.split("|")[1].strip(" *\\"): line for line in lines if line.startswith("| ")}
    assert of["the base recipe"] == (
        "| the base recipe | 5.100 (5.000 to 5.200) | 5.100 (5.000 to 5.200) |  | 50.0% (50.0% to 50.0%) | "
        "70.0% (70.0% to 70.0%) | 10 (10 to 10) |"
    )
    assert "| -0.450 (-0.500 to -0.400) |" in of["`optim.b1=0.8`"]
    assert "| +0.000 (-0.100 to +0.100): none |" in of["`optim.b1=0.7`"]
    assert "failed with 1 of 2 seeds; 1: no!" in of["`optim.learning_rate=99.0`"]
    assert (
        "| `data.mask_unit=word` \\* | 4.000" in of["`data.mask_unit=word`"] and "other words to predict" in lines[-1]
    )
    assert not any("\\*" in of[f"`{name}`"] for name, _ in wanted[-2:])


def test_two_runs(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    start_no_process(monkeypatch, ablate)
    file = tmp_path / "runs.json"
    flips = ["--flip", "data.mlm_probability=0.6", "--seeds", "1", "--json", str(file)]
    assert main(["ablate", *options(tiny), *flips]) == 0
    base, other = json.loads(file.read_text())["runs"]
    assert base["seconds"] > 0.5 and base["even"]["mlm_loss"] != base["odd"]["mlm_loss"] != other["odd"]["mlm_loss"]
    assert f"| {base['odd']['mlm_loss']:.3f} |" in capsys.readouterr().out and not Path(tiny.run_dir).exists()


def test_a_run_that_fails_is_a_result(tiny: Config, tmp_path: Path) -> None:
    """In the process of its own that every run has."""
    broken = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, path=str(tmp_path / "nowhere")))
    found = ablate._run(broken, tiny, 0, {"PATH": "", "JAX_PLATFORMS": "cpu"})
    assert "nowhere is not a folder" in found["failed"] and set(found) == {"failed"}
