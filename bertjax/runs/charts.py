"""Curves and maps of attention as SVG that stands in a page: its colours are the page's, its points tell their values.

matplotlib draws the curves: it is there already, and needs no script in the page. Of libraries for interactive pages
plotly's script alone has 4 MB, bokeh's 1 MB, vega's 0.8 MB, for what the title of a point shows as well.
"""

import base64
import functools
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

# Colours that stand for the page's own, which are others in the dark: matplotlib writes them, the page reads the names.
_PLACEHOLDERS = {"#000001": "var(--ink)", "#000002": "var(--line)"}
COLORS = 8
_SERIES = [f"#00001{number}" for number in range(COLORS)]
_PLACEHOLDERS |= {color: f"var(--c{number})" for number, color in enumerate(_SERIES)}
_DRAWN, _POINTS = 1600, 200  # points of all curves, at most, and those of them that tell their values
T = TypeVar("T")
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


class Curve(NamedTuple):
    """Points of a run, in order; they are joined, or stand alone as held-out ones do."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int = 0  # one of the page's, of which there are COLORS
    joined: bool = True


def draw_curves(curves: Sequence[Curve], *, label: str, ids: str) -> str:
    """Returns an SVG of curves over the steps, each point with a title that tells its value.

    Args:
      label: what the picture shows, for who does not see it.
      ids: letters that no other picture of the page has, before each of its ids.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: it would choose a caller's backend

    ink = {name: "#000001" for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
    told: dict[str, list[str]] = {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": ids, "font.size": 10, "axes.edgecolor": "#000002", **ink}):
        figure = Figure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, points, color, joined) in enumerate(curves):
            if not points:
                continue
            steps, values = zip(*every_so_many(points, max(2, _DRAWN // len(curves))), strict=True)
            drawn = functools.partial(axes.plot, color=_SERIES[color % COLORS], markeredgecolor="none")
            drawn(steps, values, "-" if joined else "o", ms=6, lw=1.6)
            some = every_so_many(points, max(2, _POINTS // len(curves)))
            told[f"hover-{number}"] = [f"{name}, step {step:,}: {value:.4g}" for step, value in some]
            drawn(*zip(*some, strict=True), "o", ms=9, gid=f"hover-{number}")
        axes.set_xlabel("step")
        axes.grid(color="#000002", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(file.getvalue(), label, ids, told)


def every_so_many(items: Sequence[T], most: int) -> Sequence[T]:
    """Returns the items, or where there are more than `most` so many evenly spaced ones, the last among them."""
    if len(items) <= most:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, most).astype(int).tolist()]


def _for_a_page(svg: bytes, label: str, ids: str, told: dict[str, list[str]]) -> str:
    """Returns the SVG with titles, the page's colours and fonts, ids of its own, and no more than that."""
    root = ET.fromstring(svg)
    for element in root.findall(f"{_SVG}metadata") + root.findall(f"{_SVG}defs[{_SVG}style]"):
        root.remove(element)  # the styles would be the whole page's
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    for element in root.iter():
        if texts := told.get(element.get("id", "")):
            element.set("class", "hover")
            for point, text in zip(element.iter(f"{_SVG}use"), texts, strict=True):
                ET.SubElement(point, f"{_SVG}title").text = text
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set("id", ids + value)
            elif name == _LINK:
                del element.attrib[name]
                element.set("href", f"#{ids}{value.removeprefix('#')}")
            else:
                value = re.sub(r"url\(#", f"url(#{ids}", value)
                value = re.sub(r"#0000\d\d", lambda color: _PLACEHOLDERS.get(color[0], "var(--ink)"), value)
                element.set(name, re.sub(r"font-family:[^;]*;", "", value))
    root.set("role", "img")
    root.set("aria-label", label)
    ET.register_namespace("", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode")


def picture_of_weights(weights_ts: np.ndarray) -> str:
    """Returns a PNG as a data address, a pixel for each weight: as little to be seen through as the weight is great."""
    from matplotlib.image import imsave

    rgba = np.empty((*weights_ts.shape, 4), np.uint8)
    rgba[..., :3] = (42, 120, 214)  # of a lightness that is seen on white and on black
    rgba[..., 3] = np.rint(255 * np.sqrt(np.clip(weights_ts, 0, 1)))  # by the root: most weights are small
    file = io.BytesIO()
    imsave(file, rgba, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
