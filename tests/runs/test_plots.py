"""The picture of the losses, at the end of a run and while it goes on."""

import itertools
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from bertjax.config import HEADS
from bertjax.errors import BertjaxError
from bertjax.runs.plots import LivePlot, check_notebook, draw_losses, plot_losses

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


@pytest.fixture
def notebook(monkeypatch):
    """Stands for IPython as a notebook has it; keeps what is displayed, the newest picture last."""
    shown = []

    def display(image, display_id):
        assert display_id
        shown.append(image)
        return SimpleNamespace(update=shown.append)

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(Image=bytes, display=display))
    return shown


def test_a_live_picture_is_drawn_again_but_takes_little_of_the_time(notebook, monkeypatch):
    check_notebook()
    clock = itertools.count()  # each look at it is a second after the last one
    monkeypatch.setattr("bertjax.runs.plots.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    lines = TRAINING[:1]
    plot = LivePlot(SimpleNamespace(read=lambda: lines), "a run", HEADS["mlm"])
    plot.draw()
    for _ in range(45):  # a second for drawing, then twenty for the run, in which there is nothing to draw
        plot.draw()
    assert len(notebook) == 1 + 3 and notebook[0].startswith(b"\x89PNG") and notebook[0] == notebook[1]
    lines = TRAINING + HELD_OUT
    plot.draw(at_once=True)
    assert len(notebook) == 5 and notebook[4] != notebook[3]
    plot.draw("step 3/4", at_once=True)
    assert len(notebook) == 6 and notebook[5] != notebook[4]


@pytest.mark.parametrize("shell", [None, SimpleNamespace(get_ipython=lambda: None)], ids=["Python", "IPython"])
def test_without_a_notebook_it_is_refused(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", shell)
    with pytest.raises(BertjaxError, match="plot=True draws in a notebook, and this is none; loss.png"):
        check_notebook()
