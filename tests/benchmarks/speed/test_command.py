"""The benchmarks of speed from arguments to JSON, on a model that takes seconds."""

import dataclasses
import importlib.util
import json
import os
import time

import numpy as np
import pytest
from stand_ins import start_no_process

from benchmarks.__main__ import NAMES, main
from benchmarks.speed import ceiling, contest, ours, scaling, starting
from benchmarks.speed.shared_folder import SharedFolder
from benchmarks.speed.text import prepare_text
from bertjax.config.recipes import flat, save_config
from bertjax.errors import BertjaxError
from bertjax.train import loop


def options(config) -> list[str]:
    return [f"--{key}={'null' if value is None else value}" for key, value in flat(config).items()]


@pytest.mark.parametrize(
    "argv, parts",
    [
        (["trian"], ["no benchmark 'trian'", "train, data, start", "torture, soak, corpus"]),
        (["train", "--rounds", "0"], ["--rounds 0", "1 or more"]),
        (["train", "--rounds", "many"], ["rounds", "many"]),
        (["train", "--train.stepss", "3"], ["--train.stepss", "train.steps"]),
        (["train", "--json", "none/a.json"], ["none/a.json", "there is no folder none"]),
        (["train", "--json", "taken"], ["taken exists"]),
        (["train", "--plot", "a.png"], ["--plot a.png", "only growth"]),
        (["growth", "--plot", "a.jpg"], ["--plot a.jpg", "FILE.png"]),
        (["data", "--peers"], ["data has no peers", "train or encode"]),
        (["train", "--peers", "--data.objective", "mlm"], ["--peers learn from pairs", "data.objective=mlm"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistake_is_one_line(argv, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert main([*argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("benchmarks: ") and err.count("\n") == 1 and all(part in err for part in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_help_names_every_benchmark(capsys):
    assert main([]) == 2 and main(["--help"]) == 0
    out, _ = capsys.readouterr()
    assert all(f"\n  {name} " in out for names in NAMES.values() for name in names)


@pytest.mark.parametrize("bench", ["train", "encode"])
def test_missing_peers_are_told_before_anything_is_run(bench, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a))
    assert main([bench, "--peers"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "--peers needs torch" in err and err.endswith("pip install 'bertjax[peers]'\n")


def test_train_prints_a_table_and_writes_its_figures(tiny, two_devices, tmp_path, monkeypatch, capsys):
    start_no_process(monkeypatch, contest)
    monkeypatch.setattr(ours, "make_programs", loop.make_programs)  # those that tests share
    monkeypatch.setattr(ceiling, "_SIZES", (256,))
    monkeypatch.setattr(ceiling, "_COPY_BYTES", 2**20)
    file = tmp_path / "figures.json"
    assert main(["train", "--rounds", "1", "--json", str(file), *options(tiny)]) == 0
    out, _ = capsys.readouterr()
    figures = json.loads(file.read_text())
    assert figures["ceiling"]["float32_flops"] > 1e6 and figures["ceiling"]["bf16_flops"] > 1e6
    trained = figures["train"]
    assert trained["pairs_per_second"] > 0 and trained["peak_memory_bytes"] > 2**24
    share = trained["useful_flops"] / (2 * figures["ceiling"]["float32_flops"])  # of each device
    assert trained["share_of_ceiling"] == pytest.approx(share)
    assert "wikitext-2/train: 1,740 tokens" in out and f"{trained['pairs_per_second']:,.0f}" in out


def test_steps_and_layers_are_on_the_mesh_of_the_recipe(tiny, tmp_path, devices, monkeypatch):
    devices(2)
    prepare_text(tiny, tmp_path / "bench")
    meshes: list[dict[str, int]] = []
    make_programs = loop.make_programs  # those that tests share

    def made(config, objective, mesh):
        meshes.append(dict(mesh.shape))
        return make_programs(config, objective, mesh)

    monkeypatch.setattr(ours, "make_programs", made)
    arguments = {"config": str(tmp_path / "bench/config.yaml"), "overrides": ["mesh.data=1", "mesh.tensor=2"]}
    assert ours.train(**arguments, warm=1, steps=1)["devices"] == 2
    assert ours.layers(**arguments)["step_bytes"] > 0
    assert meshes == [{"data": 1, "fsdp": 1, "tensor": 2}] * 2
    with pytest.raises(BertjaxError, match="mesh.tensor=4 is a mesh of 4 devices, and there are 2"):
        ours.train(config=arguments["config"], overrides=["mesh.data=1", "mesh.tensor=4"], warm=0, steps=1)


@pytest.fixture
def prepared(tiny, tmp_path):
    return prepare_text(tiny, tmp_path / "bench")[0]


def test_data_builds_anew(prepared, tmp_path):
    figures = ours.data(config=str(tmp_path / "bench/config.yaml"), batches=3)
    assert figures["pairs_per_second"] > 0 and figures["build_seconds"] > 0
    assert figures["build_tokens_per_second"] == pytest.approx(1740 / figures["build_seconds"])


def test_encoding_contenders_read_the_same_texts_and_weights(prepared, two_devices, tmp_path):
    shared, config = SharedFolder(tmp_path / "bench"), str(tmp_path / "bench/config.yaml")
    shared.write_texts(prepared, 12)
    ours.make_weights(config=config, folder=str(shared.path))
    for name, overrides in (("ours", []), ("other", ["mesh.fsdp=2"])):
        figures = ours.encode(config=config, overrides=overrides, folder=str(shared.path), name=name)
    assert figures["tokens_per_second"] > 0 and figures["compiled_shapes"] >= 1
    assert len(shared.texts()) == 12 and shared.texts()[0] == "the noun0 sees a noun0 near noun0"
    assert shared.lengths()[0] == 9
    assert shared.least_cosine("ours", "other") == pytest.approx(1.0)
    assert shared.weights()["block_0/ffn/in/kernel"].shape == (16, 32)


def test_least_cosine_is_the_worst_text(tmp_path):
    shared = SharedFolder(tmp_path)
    shared.write_vectors("one", np.array([[1.0, 0.0], [1.0, 0.0]]))
    shared.write_vectors("two", np.array([[2.0, 0.0], [3.0, 4.0]]))
    assert shared.least_cosine("one", "two") == pytest.approx(0.6)


def test_start_waits_for_the_line_of_a_step_and_for_the_end(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    prepare_text(tiny, tmp_path / "bench")
    run_dir = tmp_path / "started"
    begin = time.perf_counter()
    seconds = starting.until_first_step(str(tmp_path / "bench/config.yaml"), run_dir, os.environ)
    assert starting.until_end("--help", code=0) < seconds < time.perf_counter() - begin
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert set(steps) == {1, 2} and (run_dir / "loss.png").exists()


def test_a_run_that_fails_is_an_error(tiny, tmp_path):
    prepare_text(tiny, tmp_path / "bench")
    wrong = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, path="/none"))
    save_config(wrong, tmp_path / "wrong.yaml")
    with pytest.raises(BertjaxError, match="/none is not a folder"):
        starting.start(config=str(tmp_path / "wrong.yaml"))


def test_scaling_prints_two_tables_and_writes_its_figures(tiny, tmp_path, devices, monkeypatch, capsys):
    devices(8)
    start_no_process(monkeypatch, contest)
    monkeypatch.setattr(scaling, "MESHES", ([2, 1, 4], [2, 2, 2]))
    file = tmp_path / "figures.json"
    given = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, vocab_size=64, num_layers=1))
    assert main(["scaling", "--json", str(file), *options(given)]) == 0
    out, _ = capsys.readouterr()
    figures = json.loads(file.read_text())
    assert [sent["mesh"] for sent in figures["sent"]] == [[2, 2, 2]]  # two heads
    assert all(sum(size for kind, size in sent.items() if kind != "mesh") > 1000 for sent in figures["sent"])
    assert figures["scaling"][-1]["devices"] == 1024
    assert "| data | fsdp | tensor |" in out and "efficiency = step /" in out
    assert out.count("| H100 | base |") == out.count("| TPU v5e | large |") == 4
