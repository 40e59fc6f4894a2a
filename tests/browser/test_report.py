"""The report page in a real browser: every control is used, in light and dark, on a phone, by keyboard alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reports import NASTY, learned, made, reported

from bertjax.runs.report import render_report

WORDS = ["the", "crane", "is", "flying", "over", "rivers"]


@pytest.fixture(scope="module")
def pages(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of a page of one run, of one of two, and of one of a run whose every text is hostile."""
    folder = tmp_path_factory.mktemp("pages")
    one, two = made(folder / "one"), made(folder / "two", **{"optim.learning_rate": 0.003})
    hostile = made(folder / "שלום <img src=x onerror=alert(1)>")
    made_of = {
        "one": [reported(one, learned(WORDS))],
        "two": [reported(one, learned(WORDS)), reported(two, why_not="its text is gone")],
        "hostile": [reported(hostile, learned(NASTY))],
    }
    addresses = {}
    for name, runs in made_of.items():
        (folder / f"{name}.html").write_text(render_report(runs), encoding="utf-8")
        addresses[name] = (folder / f"{name}.html").as_uri()
    return addresses


@pytest.mark.parametrize("name", ["one", "two", "hostile"])
def test_it_opens_from_disk_and_asks_nobody(name: str, pages: dict[str, str], watch: Callable) -> None:
    opened = watch(pages[name])
    assert [url for url in opened.requests if not url.startswith("data:")] == [pages[name]]
    opened.picture(f"report {name}")


def test_it_is_read_without_script(pages: dict[str, str], watch: Callable) -> None:
    page = watch(pages["one"], java_script_enabled=False).page
    assert "trained from scratch on" in page.locator("main").inner_text()
    assert page.locator(".charts svg").count() == 4 and page.locator(".charts svg").first.is_visible()
    page.locator("summary", has_text="MLM loss in figures").click()
    assert page.locator("td", has_text="held out").first.is_visible()
    page.get_by_role("link", name="Attention").click()
    page.wait_for_url("**#attention")


@pytest.mark.parametrize("name", ["one", "two"])
def test_every_link_leads_to_its_section(name: str, pages: dict[str, str], watch: Callable) -> None:
    page = watch(pages[name]).page
    links = page.locator("nav a")
    assert links.count() >= 4
    for number in range(links.count()):
        links.nth(number).click()
        target = page.locator(page.evaluate("location.hash"))
        assert target.count() == 1
        page.wait_for_function("e => e.getBoundingClientRect().top < innerHeight", arg=target.element_handle())


@pytest.mark.parametrize("name", ["one", "two"])
def test_everything_that_is_folded_opens_and_closes(name: str, pages: dict[str, str], watch: Callable) -> None:
    page = watch(pages[name]).page
    for details in page.locator("details").all():  # the outer ones come first
        is_open = "e => e.open"
        before = details.evaluate(is_open)
        details.locator("> summary").click()
        assert details.evaluate(is_open) is not before
        if before:
            details.locator("> summary").press("Enter")
            assert details.evaluate(is_open) is True


def test_a_point_tells_its_value_where_the_mouse_is(pages: dict[str, str], watch: Callable) -> None:
    opened = watch(pages["one"])
    point = opened.page.locator(".hover use").first
    point.hover()
    box = point.bounding_box()
    found = opened.page.evaluate(
        "([x, y]) => document.elementFromPoint(x, y).querySelector('title').textContent",
        [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
    )
    assert found == "training, step 10: 6"
    assert point.evaluate("e => getComputedStyle(e).opacity") == "0.55"
    row = opened.page.locator(".heads .row").first
    row.hover()
    assert row.locator("title").text_content().startswith("the: the 17%")


def test_what_is_faint_is_found(watch: Callable) -> None:
    opened = watch("about:blank")
    opened.page.set_content(
        "<body style='background: #fff'><p style='color: #767676'>seen</p><p style='color: #777'>faint</p>"
        "<div style='background: #333'><b style='color: #767676'>faint there</b></div>"
        "<svg><path style='fill: none; stroke: #eee /* var(--c1) */'/><text fill='#ccc'>of a chart</text></svg>"
    )
    assert [line.split(" ", 1)[1] for line in opened.faint()] == [
        "P faint",
        "B faint there",
        "line rgb(238, 238, 238)",
        "text of a chart",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "two"])
def test_it_is_read_in_either_light(name: str, scheme: str, pages: dict[str, str], watch: Callable) -> None:
    opened = watch(pages[name], color_scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert opened.faint() == []
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 21, 25)"}[scheme]
    opened.picture(f"report {name} {scheme}")


@pytest.mark.parametrize("name", ["one", "two", "hostile"])
def test_it_is_read_on_a_phone(name: str, pages: dict[str, str], watch: Callable) -> None:
    opened = watch(pages[name], width=360, height=740, device_scale_factor=2)
    opened.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert opened.overflow() <= 0
    sizes = "es => es.map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(opened.page.locator("p, td, dd, summary").evaluate_all(sizes)) >= 13
    opened.picture(f"report {name} phone")


def test_it_is_read_by_keyboard_alone(pages: dict[str, str], watch: Callable) -> None:
    page = watch(pages["one"], height=500).page
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.textContent") == "to the report"
    assert page.evaluate(f"{focused}.getBoundingClientRect().left") >= 0  # it shows itself
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused} === document.body"):
            break
        reached.add(page.evaluate(f"[...document.querySelectorAll('a, summary, [tabindex]')].indexOf({focused})"))
    hidden = "e => e.closest('details:not([open])') && !e.matches('details:not([open]) > summary')"
    wanted = page.locator("a, summary, [tabindex]").evaluate_all(f"es => es.map((e, n) => ({hidden})(e) ? -1 : n)")
    assert reached >= {number for number in wanted if number > 0}  # 0 is the first, to the report
    wide = "e => e.scrollWidth > e.clientWidth && e.tabIndex < 0 && getComputedStyle(e).overflowX === 'auto'"
    assert not any(page.locator("main *").evaluate_all(f"es => es.map({wide})"))


def test_whatever_a_text_holds_nothing_of_it_runs(pages: dict[str, str], watch: Callable) -> None:
    page = watch(pages["hostile"]).page  # a dialog would be a complaint
    assert page.locator("script, iframe").count() == 0 and page.locator("main img, h1 img").count() == 0
    text = page.locator("body").inner_text()
    assert all(word in text for word in NASTY) and "onerror=alert(1)" in text
    assert page.locator("h1").evaluate("e => e.matches(':dir(rtl)')")
    assert Path(page.title().split(":")[0]).name.startswith("שלום")
