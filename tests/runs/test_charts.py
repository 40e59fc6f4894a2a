"""Curves and maps of attention as SVG that stands in a page."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np

from bertjax.runs.charts import Curve, draw_curves, picture_of_weights

SVG = "{http://www.w3.org/2000/svg}"
TRAINING = Curve('<b>training</b> & "more"', [(step, 9 / step) for step in range(1, 1001)])
HELD_OUT = Curve("held out", [(10, 3.25), (1000, 0.5)], color=1, joined=False)


def test_points_tell_their_values_and_colours_are_the_pages() -> None:
    svg = draw_curves([TRAINING, HELD_OUT, Curve("nothing", [])], label='loss "<i>"', ids="one-")
    root = ET.fromstring(svg)
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[0] == '<b>training</b> & "more", step 1: 9'
    assert titles[-2:] == ["held out, step 10: 3.25", "held out, step 1,000: 0.5"]
    assert '<b>training</b> & "more", step 1,000: 0.009' in titles and len(titles) < 130
    assert root.get("aria-label") == 'loss "<i>"' and "width" not in root.attrib
    assert {"var(--c0)", "var(--c1)", "var(--ink)", "var(--line)"} == set(re.findall(r"var\(--\w+\)", svg))
    assert re.findall(r"(?:fill|stroke): (?!none|var)[^;\"]*", svg) == [] and "<style" not in svg and "<b>" not in svg
    assert plt.get_fignums() == []


def test_two_in_a_page_share_no_ids_and_refer_to_their_own() -> None:
    first, second = (draw_curves([HELD_OUT], label="loss", ids=ids) for ids in ("one-", "two-"))
    ids = [{element.get("id") for element in ET.fromstring(svg).iter()} - {None} for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        assert {*re.findall(r'href="#([^"]*)"', svg), *re.findall(r"url\(#([^)]*)\)", svg)} <= known
    assert first == draw_curves([HELD_OUT], label="loss", ids="one-")


def test_a_weight_is_seen_as_much_as_it_is_great() -> None:
    address = picture_of_weights(np.array([[0.0, 0.25], [1.0, 0.5]]))
    kind, data = address.split(",")
    rgba = plt.imread(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/png;base64" and rgba.shape == (2, 2, 4)
    np.testing.assert_allclose(rgba[..., 3], np.sqrt([[0, 0.25], [1, 0.5]]), atol=0.003)
