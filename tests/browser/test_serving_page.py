"""The page of `bertjax serve` in a real browser, served on loopback: every route on it is asked."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving_server import Listening, started, write_encoder, write_heads

from bertjax.serving.guard import Guard
from bertjax.serving.models import Origin

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def address(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    folders = {"tiny": write_encoder(folder / "tiny")} | write_heads(folder)
    origins = [Origin(name, str(path), batch_tokens=40) for name, path in folders.items()]
    with started(*origins) as served, Listening(served, Guard([KEY])) as listening:
        yield "http://127.0.0.1:{1}/".format(*listening.socket.getsockname())


def ask(page: Any, route: str) -> str:
    page.locator("#route").select_option(route)
    page.locator("#said").evaluate("e => { e.textContent = ''; }")
    page.get_by_role("button").click()
    page.wait_for_function("e => e.textContent", arg=page.locator("#said").element_handle())
    return page.locator("#said").inner_text()


def test_every_route_is_tried(address: str, watch: Callable) -> None:
    opened = watch(address)
    page = opened.page
    assert ask(page, "/embed").startswith("401 after ") and "a key is needed" in page.locator("#answer").inner_text()
    assert all("401" in line for line in opened.complaints)  # the browser's own line
    opened.complaints.clear()
    page.locator("#key").fill(KEY)
    routes = page.locator("#route option").all_inner_texts()
    assert {"/v1/embeddings", "/embed", "/predict", "/rerank", "/tags", "/fill_mask", "/tokenize"} <= set(routes)
    for route in routes:
        assert ask(page, route).startswith("200 after "), route
    page.locator("#body").fill('{"inputs": "<img src=x onerror=alert(1)>", "model": "<b>"}')  # a dialog is a complaint
    page.get_by_role("button").click()
    page.wait_for_function("e => e.textContent.startsWith('404')", arg=page.locator("#said").element_handle())
    assert "there is no model '<b>'" in page.locator("#answer").inner_text() and not page.locator("#answer b").count()
    opened.complaints.clear()
    opened.picture("serve")
    assert all(url.startswith((address, "data:")) for url in opened.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_either_light_and_on_a_phone(address: str, watch: Callable, scheme: str) -> None:
    opened = watch(address, color_scheme=scheme, width=360, height=740)
    ask(opened.page, "/tokenize")
    opened.complaints.clear()
    assert opened.faint() == [] and opened.overflow() <= 0
    opened.picture(f"serve {scheme}")
