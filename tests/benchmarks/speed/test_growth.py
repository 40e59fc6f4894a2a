"""Exponents of known powers; and every axis really has the sizes that it says."""

import dataclasses

import numpy as np
import pytest

from benchmarks.speed import growth
from benchmarks.speed.growing import FullBatches, _grow_step, _resized
from benchmarks.speed.growth import draw, fit_exponent, render
from benchmarks.speed.table import describe_machine
from bertjax.models.operations import training_operations

SIZES = [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_known_power(power):
    assert fit_exponent(SIZES, [3 * size**power for size in SIZES]) == pytest.approx(power)


def points(power: float) -> dict:
    return {"sizes": SIZES, "seconds": [size**power for size in SIZES], "operations": SIZES}


def test_time_that_grows_faster_is_told():
    fitted = {power: growth._fitted([points(power)]) for power in (0.9, 1.05, 1.2)}
    assert [fitted[power]["time_grows_faster"] for power in fitted] == [False, False, True]


def test_rounds_give_the_exponent_its_ends():
    fitted = growth._fitted([points(power) for power in (1.0, 2.0, 1.5)])
    assert fitted["time_exponent"] == pytest.approx(1.5)
    assert fitted["spread"]["time_exponent"] == pytest.approx([1.0, 2.0])
    assert fitted["operations_exponent"] == pytest.approx(1.0)


@pytest.fixture
def recipe(tiny):
    return dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, vocab_size=17, max_position=64))


def test_rows_are_full_and_every_slot_is_real(recipe):
    batch = FullBatches(recipe).batch_at(3)
    assert batch.sequences_bt.shape == (8, 24) and batch.sequences_bt.all() and batch.mlm_weights_bp.all()
    hidden_at = np.take_along_axis(batch.tokens_bt, batch.mlm_positions_bp, axis=1)
    assert (hidden_at == 4).all() and (batch.mlm_labels_bp >= 5).all()


def test_packed_rows_are_full_too(recipe):
    batch = FullBatches(recipe, [10, 4]).batch_at(0)
    assert batch.sequences_bt[3].tolist() == [1] * 10 + [2] * 4 and batch.cls_positions_bk[3].tolist() == [0, 10]
    assert batch.positions_bt[3].tolist() == [*range(10), *range(4)] and batch.nsp_weights_bk.shape == (8, 2)
    assert not np.isin(batch.mlm_positions_bp, [0, 10]).any()


@pytest.mark.parametrize("axis, exponent", [("batch", 1.0), ("layers", 0.9), ("hidden", 1.7), ("length", 1.2)])
def test_operations_grow_along_every_axis(recipe, axis, exponent):
    sizes = [8, 16, 32]
    grown = [_resized(recipe, axis, size) for size in sizes]
    operations = [training_operations(config.model, FullBatches(config).batch_at(0)) for config in grown]
    assert fit_exponent(sizes, operations) == pytest.approx(exponent, abs=0.1)


def test_steps_of_full_rows_are_timed(recipe, devices):
    devices(1)  # eight compile for longer
    measured = _grow_step(recipe, "batch", [8, 16], steps=2)
    assert measured["sizes"] == [8, 16] and min(measured["seconds"]) > 0
    assert measured["operations"][1] == 2 * measured["operations"][0]


def report() -> dict:
    return {
        "bench": "growth",
        "rounds": 1,
        "machine": describe_machine(()),
        "model": "2 layers",
        "ceiling": {"float32_flops": 1e9, "bf16_flops": 1e9, "copy_bytes_per_second": 1e9, "device": "d", "devices": 1},
        "growth": {f"step, {number}": growth._fitted([points(0.8 + number / 4)]) for number in range(4)},
    }


def test_table_marks_what_grows_faster():
    text = render(report())
    assert max(map(len, text.splitlines())) <= 100
    marked = [line.split("  ")[0] for line in text.splitlines() if line.endswith("grows faster")]
    assert marked == ["step, 2", "step, 3"]


def test_plot_has_a_panel_an_axis(tmp_path):
    figure = draw(report())
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [f"step, {n}" for n in range(4)]
    figure.savefig(tmp_path / "growth.png")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), points(0.8)["seconds"])
