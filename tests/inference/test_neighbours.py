"""The uses of a word: what is around them, how near they are, as a table and a picture."""

import logging

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager, get_data_path, rcParams

from bertjax.inference.neighbours import Context, contexts, cosines, render
from bertjax.inference.neighbours_plot import draw, plot

TEXTS = ["a crane is flying", "Crane, or crane? Cranes fly", "the tall grues", "x " * 40 + "CRANE" + " y" * 40]


def test_cosines() -> None:
    vectors_nd = np.array([[3, 0], [0, 0.5], [-2, 0], [1, 1], [0, 0]], np.float32)
    root = 0.5**0.5
    expected = [[1, 0, -1, root, 0], [0, 1, 0, root, 0], [-1, 0, 1, -root, 0], [root, root, -root, 1, 0], [0] * 5]
    np.testing.assert_allclose(cosines(vectors_nd), expected, atol=1e-6)


def test_contexts_of_each_use() -> None:
    first, second, third, other, long = contexts("crane", TEXTS, [0, 1, 1, 2, 3])
    assert first == ("a ", "crane", " is flying")
    assert second == ("", "Crane", ", or crane? Cranes fly") and third == ("Crane, or ", "crane", "? Cranes fly")
    assert other == ("", "", "the tall grues")  # the tokenizer read it as the word, who knows why
    assert long.before.startswith("…") and long.after.endswith("…") and len(long.before) <= 34 >= len(long.after)
    assert contexts("new  york", ["in New\tYork"], [0]) == [("in ", "New\tYork", "")]


def test_the_table_has_a_line_a_use_and_all_cosines() -> None:
    uses = contexts("crane", TEXTS, [0, 1, 1])
    listed, table = render(uses, np.array([[1, 0.25, -0.5], [0.25, 1, 0], [-0.5, 0, 1]])).split("\n\n")
    assert [line[4:].strip() for line in listed.splitlines()] == [
        "a crane is flying",
        "Crane, or crane? Cranes fly",
        "Crane, or crane? Cranes fly",
    ]
    columns = {
        line.lower().index("crane", line.index("Crane, or ") + 1 if n == 2 else 0)
        for n, line in enumerate(listed.splitlines())
    }
    assert len(columns) == 1  # one below the other
    assert table.splitlines()[1].split() == ["1", "1.000", "0.250", "-0.500"]


@pytest.mark.parametrize("n", [2, 7, 30])
def test_the_picture(n: int, tmp_path) -> None:
    rng = np.random.default_rng(0)
    near_nn = cosines(rng.normal(size=(n, 8)))
    uses = [Context("costs $5 ", "crane", f" and ${number}") for number in range(n)]
    plot("c$r$ane", uses, near_nn, tmp_path / "n.png")
    assert plt.imread(tmp_path / "n.png").ndim == 3 and list(tmp_path.iterdir()) == [tmp_path / "n.png"]
    concordance, heat, _ = draw("crane", uses, near_nn).axes
    assert [text.get_text() for text in concordance.texts[:4]] == ["costs $5 ", "crane", " and $0", "1"]
    shown = np.ma.filled(heat.images[0].get_array(), 2)
    np.testing.assert_array_equal(shown, np.where(np.eye(n) > 0, 2, near_nn))
    figures = [text.get_text() for text in heat.texts]
    assert figures == ([f"{value:.2f}" for value in near_nn[~np.eye(n, dtype=bool)]] if 2 < n <= 20 else figures)
    assert len(figures) == (n * n - n if n <= 20 else 0)
    assert plt.get_fignums() == []


def test_uses_that_are_all_alike_can_be_drawn(tmp_path) -> None:
    plot("crane", contexts("crane", TEXTS, [0, 0, 0]), np.ones((3, 3)), tmp_path / "n.png")


@pytest.fixture
def bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes those that come with matplotlib the only ones, on every machine."""
    own = [font for font in font_manager.fontManager.ttflist if font.fname.startswith(get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


def test_a_font_that_has_what_the_usual_one_lacks(bundled_fonts: None, tmp_path, caplog) -> None:
    uses = contexts("⌶", ["a ⌶ is ⌽", "the ⌶"], [0, 1])  # which DejaVu Sans lacks, and others have
    figure = draw("⌶", uses, np.eye(2))
    (families,) = {tuple(text.get_fontfamily()) for text in figure.findobj(plt.Text)}
    assert families[:-1] == tuple(rcParams["font.family"])
    figure.savefig(tmp_path / "n.png")  # a glyph that is missing would be a warning
    assert caplog.messages == []


def test_characters_that_no_font_has_are_told_once(bundled_fonts: None, tmp_path, caplog) -> None:
    uses = contexts("鹤", ["一只 鹤 在飞", "the 鹤\t"], [0, 1])
    with caplog.at_level(logging.WARNING):
        plot("鹤", uses, np.eye(2), tmp_path / "n.png")
    assert caplog.messages == ["no installed font has 一只在飞鹤: drawn as boxes; install one, such as Noto Sans CJK"]
    caplog.clear()
    plot("crane", contexts("crane", ["a crane", "crane é ж"], [0, 1]), np.eye(2), tmp_path / "m.png")
    assert caplog.messages == []
