"""A short run is flat; and a leak, in a curve or in a run, is found."""

from pathlib import Path

import numpy as np
import pytest

from bertjax.trials.soak import BYTES_A_STEP, Sample, draw, fitted, render

RECIPE = Path(__file__).parents[2] / "configs" / "tiny.yaml"


def curve(bytes_a_step: float = 0, files: float = 0, threads: float = 0) -> list[Sample]:
    """Of 300 steps, with the noise of an allocator."""
    rng = np.random.default_rng(0)
    return [
        Sample(
            step, int(2e8 + bytes_a_step * step + rng.normal(0, 5e4)), int(20 + files * step), int(9 + threads * step)
        )
        for step in range(1, 301)
    ]


@pytest.mark.parametrize(
    "samples, flat",
    [
        (curve(), True),
        (curve(bytes_a_step=-2000), True),
        (curve(bytes_a_step=2048), False),
        (curve(files=0.01), False),
        (curve(threads=0.01), False),
    ],
)
def test_growth_is_told(samples: list[Sample], flat: bool) -> None:
    its = fitted(samples, most_bytes=BYTES_A_STEP)
    assert its["flat"] == flat and its["done"] == 300
    report = {"training": its, "encoding": its}
    assert ("NOT FLAT" not in render(report)) == flat
    assert len(draw(report).axes) == 6
