"""The picture of the losses."""

import matplotlib.pyplot as plt
import pytest

from bertjax.config import HEADS
from bertjax.runs.plots import draw_losses, plot_losses

TRAINING = [{"step": step, "mlm_loss": 9 / step, "nsp_loss": 0.7 / step, "pairs_per_second": 1.0} for step in (1, 2, 3)]
HELD_OUT = [{"step": step, "held_out_mlm_loss": 9 / step, "held_out_nsp_loss": 0.7 / step} for step in (2, 3)]


@pytest.mark.parametrize(
    "metrics",
    [
        TRAINING + HELD_OUT,
        TRAINING,
        HELD_OUT,
        [],
        TRAINING[:1],
        [{"step": 1, "mlm_loss": None, "nsp_loss": 0.5}, {"step": 2, "mlm_loss": None, "nsp_loss": None}],
    ],
    ids=["both", "training only", "held out only", "none", "one step", "diverged"],
)
def test_losses_are_drawn(tmp_path, metrics):
    path = tmp_path / "loss.png"
    plot_losses(metrics, path, "textbook, on wikitext-2/train", HEADS["mlm+nsp"])
    png = path.read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82") and len(png) > 10_000
    assert plt.imread(path).shape == (480, 1200, 4)
    assert plt.get_fignums() == []


def test_a_single_step_can_be_seen():
    assert draw_losses(TRAINING[:1], "one step", HEADS["mlm+nsp"]).axes[0].lines[0].get_marker() == "."


def test_what_is_drawn_and_said():
    figure = draw_losses(TRAINING + HELD_OUT, "textbook", HEADS["mlm+nsp"])
    mlm, nsp = figure.axes
    assert figure.get_suptitle() == "textbook"
    assert [axes.get_title() for axes in (mlm, nsp)] == ["MLM loss", "NSP loss"]
    for axes, first in ((mlm, 9), (nsp, 0.7)):
        training, held_out = axes.lines
        assert list(training.get_xdata()) == [1, 2, 3] and list(held_out.get_xdata()) == [2, 3]
        assert list(training.get_ydata()) == [first, first / 2, first / 3]
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["training", f"held out (last {first / 3:.3f})"]


@pytest.mark.parametrize("title", ["costs $1_$2, 5%", "a_b^c {x", "\\frac"])
def test_title_is_text_whatever_is_in_it(tmp_path, title):
    plot_losses(TRAINING, tmp_path / "loss.png", title, HEADS["mlm+nsp"])
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_what_a_run_without_pairs_and_one_of_their_order_show():
    metrics = [{"step": 1, "mlm_loss": 3.0}, {"step": 2, "mlm_loss": 2.0}]
    assert [axes.get_title() for axes in draw_losses(metrics, "title", HEADS["mlm"]).axes] == ["MLM loss"]
    assert [axes.get_title() for axes in draw_losses(TRAINING, "title", HEADS["mlm+sop"]).axes] == [
        "MLM loss",
        "SOP loss",
    ]
