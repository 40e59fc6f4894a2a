"""The page of `bertjax explore` in a real browser, served on loopback: every question is asked."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bertjax.inference.encoder import Encoder
from bertjax.inference.explore import Corpus, Explorer
from bertjax.inference.explore_server import make_server

RUN = Path(__file__).parents[1] / "reference" / "run" / "at_step_3"
NASTY = "<img src=x onerror=alert(1)> crane"
LINES = ["the crane sees a river", "a driver sees the crane", NASTY, "שלום crane", "the river", "a tower"]
QUESTIONS = ("guesses", "neighbours", "senses", "similarity")


@pytest.fixture(scope="module")
def address(chromium: Any) -> Iterator[str]:
    server = make_server(Explorer(Encoder.load(RUN), Corpus("some <b>lines</b>", LINES)), 0, name="runs/<b>")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(page: Any, question: str, by: str = "click", **texts: str) -> Any:
    """Fills a form in and sends it; returns where the answer stands."""
    form = page.locator(f"form[data-question={question}]")
    for name, text in texts.items():
        form.locator(f"[name={name}]").fill(text)
    if by == "click":
        form.get_by_role("button").click()
    else:
        form.locator("[name]").last.press(by)
    answer = page.locator(f"section[aria-labelledby={question}] .answer")
    page.wait_for_function("e => e.textContent && e.textContent !== '…'", arg=answer.element_handle())
    return answer


def ask_all(page: Any) -> None:
    ask(page, "guesses", text="the <mask> sees a <mask> zeppelin")
    ask(page, "neighbours", text="the river")
    ask(page, "senses", word="crane")
    ask(page, "similarity", first="the crane sees", second="a driver")


def test_every_question_is_answered(address: str, watch: Callable) -> None:
    opened = watch(address)
    page = opened.page
    guesses = ask(page, "guesses", text="the <mask> sees a <mask> zeppelin")
    assert guesses.locator("table").count() == 2 and guesses.locator("tr").count() == 10
    assert "zeppelin" in guesses.locator("p").inner_text()
    lines = ask(page, "neighbours", by="Control+Enter", text="the river").locator("tr")
    assert lines.first.inner_text().split() == ["1.000", "the", "river"] and lines.count() == len(LINES)
    uses = ask(page, "senses", by="Enter", word="crane")
    assert uses.locator("circle").count() == 4
    assert ask(page, "similarity", first="the crane sees", second="a driver").locator("td").count() == 1 + 5 * 4
    assert {url.removeprefix(address) for url in opened.requests} == {
        "",
        "data:,",
        *(f"api/{q}" for q in QUESTIONS),
    } - (set() if "data:," in opened.requests else {"data:,"})
    opened.picture("explore")


def test_a_point_of_the_map_tells_its_line_to_mouse_and_keyboard(address: str, watch: Callable) -> None:
    page = watch(address).page
    answer = ask(page, "senses", word="crane")
    for number, line in enumerate(LINES[:4]):
        answer.locator("circle").nth(number).dispatch_event("mouseenter")
        assert answer.locator(".line").inner_text() == line
        assert answer.locator("circle title").nth(number).text_content() == line
    page.locator("form[data-question=senses] button").focus()
    page.keyboard.press("Tab")
    assert answer.locator(".line").inner_text() == LINES[0]
    answer.locator("summary").click()
    assert sorted(answer.locator("li").all_inner_texts()) == sorted(LINES[:4])


def test_what_cannot_be_answered_is_said_and_the_page_goes_on(address: str, watch: Callable) -> None:
    opened = watch(address)
    error = ask(opened.page, "guesses", text="no mask").get_by_role("alert")
    assert error.inner_text() == "there is no <mask> in 'no mask'; put one where a word is to be guessed"
    assert "zeppelin" in ask(opened.page, "senses", word="zeppelin").get_by_role("alert").inner_text()
    assert ask(opened.page, "guesses", text="a <mask>").locator("tr").count() == 5
    opened.page.locator("form[data-question=guesses] [name=text]").fill("")
    opened.page.locator("form[data-question=guesses] button").click()  # the browser asks for a text
    assert opened.page.locator("form[data-question=guesses] :invalid").count() == 1
    assert all("400" in line for line in opened.complaints)  # the browser's own line on each refusal
    opened.complaints.clear()


def test_a_server_that_has_gone_is_told_of(address: str, watch: Callable) -> None:
    opened = watch(address)
    opened.page.route("**/api/*", lambda route: route.abort())
    said = ask(opened.page, "guesses", text="a <mask>").get_by_role("alert").inner_text()
    assert said == "bertjax explore does not answer; is it still running?"
    opened.complaints.clear()  # the browser's own line


def test_whatever_a_text_holds_is_text(address: str, watch: Callable) -> None:
    page = watch(address).page  # a dialog would be a complaint
    assert page.locator("h1").inner_text() == "runs/<b>" and page.locator("main b, main img").count() == 0
    for question, texts in (
        ("neighbours", {"text": NASTY}),
        ("senses", {"word": "crane"}),
        ("similarity", {"first": NASTY, "second": "שלום"}),
        ("guesses", {"text": f"{NASTY} <mask>"}),
    ):
        answer = ask(page, question, **texts)
        assert answer.locator("img, script").count() == 0 and answer.inner_text()
    hebrew = page.locator("section[aria-labelledby=neighbours] td", has_text="שלום")
    assert hebrew.evaluate("e => e.matches(':dir(rtl)')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_either_light(address: str, watch: Callable, scheme: str) -> None:
    opened = watch(address, color_scheme=scheme)
    ask_all(opened.page)
    assert opened.faint() == []
    opened.picture(f"explore {scheme}")


def test_it_is_read_on_a_phone(address: str, watch: Callable) -> None:
    opened = watch(address, width=360, height=740, device_scale_factor=2)
    ask_all(opened.page)
    assert opened.overflow() <= 0
    opened.picture("explore phone")


def test_every_field_has_a_name(address: str, watch: Callable) -> None:
    page = watch(address).page
    for field in page.locator("textarea, input").all():
        assert field.evaluate("e => e.labels.length") == 1
    for heading in QUESTIONS:
        assert page.get_by_role("region", name=page.locator(f"#{heading}").inner_text()).count() == 1


def test_another_site_gets_no_answer(address: str, watch: Callable) -> None:
    other = watch("about:blank")
    answered = other.page.evaluate(
        """address => fetch(address + 'api/guesses', {method: 'POST', headers: {'Content-Type': 'application/json'},
        body: '{"text": "a <mask>"}'}).then(() => 'answered', () => 'refused')""",
        address,
    )
    assert answered == "refused"
    other.complaints.clear()  # the browser's own line
