"""A real browser: Chromium of this machine, driven by playwright. `make test-browser` installs playwright."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


class Watched:
    """A page of the browser that keeps what a person would not see: complaints, requests, dialogs."""

    def __init__(self, page: Any):
        self.page, self.complaints, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def faint(self) -> list[str]:
        """Texts whose contrast with what is behind them is below that of WCAG 2.2, 1.4.3, and lines below 1.4.11."""
        return self.page.evaluate(FAINT)

    def picture(self, name: str) -> None:
        """Keeps a picture of the window, to be looked at, where $BERTJAX_SCREENSHOTS names a folder."""
        if folder := os.environ.get("BERTJAX_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder, f"{re.sub('[^a-z0-9]+', '-', name.lower())}.png"))


# Colours are looked up as they are drawn; what is behind a text is the nearest background that is not transparent.
FAINT = """() => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const rgb = color => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = color => rgb(color).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const ratio = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (rgb(color)[3] === 255) return color;
    }
    return getComputedStyle(document.documentElement).colorScheme.includes('dark')
      && matchMedia('(prefers-color-scheme: dark)').matches ? 'black' : 'white';
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const style = getComputedStyle(element), own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const svg = element instanceof SVGElement;
    if (['title', 'style', 'SCRIPT', 'STYLE', 'OPTION'].includes(element.tagName) || style.display === 'none') continue;
    if (own && !(svg && element.tagName !== 'text')) {
      const r = ratio(svg ? style.fill : style.color, behind(element));
      if (r < 4.5) found.push(`${r.toFixed(2)} ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
    }
    const line = element.tagName === 'path' && /var\\(--c\\d/.test(element.getAttribute('style') || '');
    if (line && style.fill === 'none') {
      const r = ratio(style.stroke, behind(element));
      if (r < 3) found.push(`${r.toFixed(2)} line ${style.stroke}`);
    }
  }
  return [...new Set(found)];
}"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, for all tests."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; make test-browser installs it"
    )
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip("there is no Chromium; install it, as by 'apt-get install chromium'")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses root
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def watch(chromium: Any) -> Iterator[Any]:
    """Opens pages: watch(url, width=360, color_scheme="dark", java_script_enabled=False). None may complain."""
    with contextlib.ExitStack() as stack:
        watched: list[Watched] = []

        def watch(url: str, *, width: int = 1200, height: int = 900, **settings: Any) -> Watched:
            context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
            stack.callback(context.close)
            watched.append(Watched(context.new_page()))
            watched[-1].page.set_default_timeout(10_000)
            watched[-1].page.goto(url)
            return watched[-1]

        yield watch
        assert [one.complaints for one in watched if one.complaints] == []
