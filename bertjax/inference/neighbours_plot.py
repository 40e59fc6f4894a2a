"""The picture of how near the uses of one word are to each other."""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertjax.inference.neighbours import Context
from bertjax.storage.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_LETTER = 0.079  # inches, on average
_BOLD = "#08589e"
_NAMED = 10  # characters that no font has
_FIGURES_UP_TO = 20  # uses, in cells large enough for a figure


def plot(word: str, uses: Sequence[Context], cosines_nn: np.ndarray, path: Path) -> None:
    """Draws the uses of a word and the cosines between them as a PNG.

    Args:
      cosines_nn: of each use with each, in the order of `uses`.

    Raises:
      OSError: it cannot be written.
    """
    with atomic_write(path, binary=True) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # which was logged, in one line
        draw(word, uses, cosines_nn).savefig(file, dpi=160, format="png")


def draw(word: str, uses: Sequence[Context], cosines_nn: np.ndarray) -> "Figure":
    """Returns a concordance of the uses, and beside it the cosines, darker where two are nearer.

    Args:
      word: the word, for the heading.
      uses: n uses of it.
      cosines_nn: the cosines between their vectors.
    """
    from matplotlib import rc_context

    with rc_context({"font.family": _fonts("".join([word, *(part for use in uses for part in use)]))}):
        return _draw(word, uses, cosines_nn)


def _fonts(text: str) -> list[str]:
    """Returns the fonts that together have a text's characters: matplotlib's own, and others if need be.

    Logs the characters that none has.
    """
    from matplotlib import font_manager, rcParams

    def had(files: Iterable[str]) -> set[int]:
        """Returns the characters that all of these files have, of those that are wanted."""
        try:
            fonts = [font_manager.get_font(file) for file in files]
        except (OSError, RuntimeError):  # no font that FreeType can read
            return set()
        return {letter for letter in wanted if all(font.get_char_index(letter) for font in fonts)}

    families = list(rcParams["font.family"])
    wanted = {ord(letter) for letter in text if unicodedata.category(letter)[0] not in "ZC"}
    both = [font_manager.FontProperties(family=families, weight=weight) for weight in ("normal", "bold")]
    wanted -= had(map(font_manager.findfont, both))
    files: dict[str, set[str]] = {}  # of each family, whatever their weight
    for font in font_manager.fontManager.ttflist:
        if font.style == "normal" and not font.name.startswith("Last Resort"):  # whose every character is a box
            files.setdefault(font.name, set()).add(font.fname)
    while wanted:
        best = max(files, key=lambda name: len(had(files[name])), default="")
        if not (found := had(files.get(best, ()))):
            some = "".join(map(chr, sorted(wanted)[:_NAMED]))
            logger.warning("no installed font has %s: drawn as boxes; install one, such as Noto Sans CJK", some)
            break
        families.append(best)
        wanted -= found
    return families


def _width(text: str) -> float:
    """Returns a text's width in inches, roughly: Chinese characters are twice as wide as letters."""
    return _LETTER * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _draw(word: str, uses: Sequence[Context], cosines_nn: np.ndarray) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: it would choose a backend

    n, cell = len(uses), min(0.62, max(0.3, 9 / len(uses)))  # inches, as are all lengths here
    before, inside, after = (max(map(_width, parts)) for parts in zip(*uses, strict=True))
    words = before + inside + after + 0.6
    margin, bottom, top = 0.3, 0.25, 1.1
    width, height = max(5.2, margin + words + cell * n + 1.2), bottom + cell * n + top
    figure = Figure(figsize=(width, height), facecolor="white")
    left = width - 1.2 - cell * n

    def axes_at(x: float, wide: float) -> "Axes":
        return figure.add_axes((x / width, bottom / height, wide / width, cell * n / height))

    plain: dict[str, Any] = {"va": "center", "color": "0.25", "fontsize": 10, "parse_math": False}
    concordance = axes_at(left - words, words)
    concordance.set(xlim=(0, words), ylim=(n - 0.5, -0.5))
    concordance.axis("off")
    for row, use in enumerate(uses):
        concordance.text(0.3 + before, row, f"{use.before}", ha="right", **plain)
        middle = concordance.text(0.3 + before, row, use.word, **{**plain, "color": _BOLD}, weight="bold")
        concordance.annotate(use.after, (1, 0.5), xycoords=middle, **plain)
        concordance.text(words - 0.08, row, str(row + 1), ha="right", **{**plain, "color": "0.55"})

    apart = ~np.eye(n, dtype=bool)  # a use and itself tell nothing
    lowest, highest = cosines_nn[apart].min(), cosines_nn[apart].max()
    heat = axes_at(left, cell * n)
    heat.set_facecolor("0.95")
    image = heat.imshow(np.where(apart, cosines_nn, np.nan), cmap="GnBu", vmin=lowest, vmax=highest, aspect="auto")
    heat.set_xticks(range(n), [str(number) for number in range(1, n + 1)])
    heat.set_yticks([])
    heat.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelcolor="0.55")
    heat.spines[:].set_visible(False)
    heat.vlines(np.arange(n - 1) + 0.5, -0.5, n - 0.5, color="white", lw=2)
    heat.hlines(np.arange(n - 1) + 0.5, -0.5, n - 0.5, color="white", lw=2)
    decimals = 2 if highest - lowest >= 0.1 else 3
    for row, column in zip(*np.nonzero(apart), strict=True) if n <= _FIGURES_UP_TO else ():
        cosine = cosines_nn[row, column]
        dark = cosine > lowest + 0.6 * (highest - lowest)
        text = f"{cosine:.{decimals}f}"
        heat.text(column, row, text, ha="center", va="center", fontsize=8.5, color="white" if dark else "0.2")
    bar = figure.colorbar(image, cax=axes_at(left + cell * n + 0.18, 0.12))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor="0.4")

    def heading(inches: float, text: str, **style: Any) -> None:
        figure.text(margin / width, 1 - inches / height, text, parse_math=False, va="baseline", **style)

    heading(0.4, f"“{word}” in {n} places", fontsize=14, weight="bold", color="0.15")
    heading(0.64, "cosine between its vectors in context: the darker, the nearer", fontsize=9.5, color="0.4")
    return figure
