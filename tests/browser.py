"""Pages in Chromium, through Playwright: what a reader with a phone, a dark screen or paper gets to see."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

WIDTHS = (390, 820, 1400)
"""A phone, a tablet, a laptop, in CSS pixels."""
PAPER = 718
"""A4 less usual margins, in CSS pixels."""

_CUT_CONTENT = """
paper => {
  const width = document.documentElement.clientWidth, found = [];
  const note = (what, e) => {
    const text = (e.textContent || "").trim().slice(0, 40);
    found.push(`${what}: ${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""} "${text}"`);
  };
  const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  const canScroll = e => e.parentElement && (scrolls(e.parentElement) || canScroll(e.parentElement));
  const isIn = (box, frame) => box.left >= frame.left - 2 && box.right <= frame.right + 2 &&
    box.top >= frame.top - 2 && box.bottom <= frame.bottom + 2;
  if (document.documentElement.scrollWidth > width + 1) found.push("the whole page scrolls sideways");
  for (const e of document.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e), drawing = e.ownerSVGElement;
    if (!box.width || !box.height || style.visibility === "hidden" || style.opacity === "0") continue;
    if (drawing) {
      if (e.tagName === "text" && !isIn(box, drawing.getBoundingClientRect())) note("outside its figure", e);
      continue;
    }
    const reachable = !paper && canScroll(e);
    if ((box.right > width + 1 || box.left < -1) && !reachable) note("outside the page", e);
    if (["hidden", "clip"].includes(style.overflowX) && e.scrollWidth > e.clientWidth + 1) note("cut", e);
  }
  return found;
}
"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yields Debian's Chromium; skips the test if it or Playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


def cut_content(browser: Any, url: str, **reader: Any) -> list[str]:
    """Returns what a reader cannot see or reach, and errors of scripts.

    Args:
      reader: `width` in CSS pixels; `paper`, whether it is printed; else of Playwright's `new_page`, as
        `color_scheme` and `java_script_enabled`.
    """
    width, paper = reader.pop("width", WIDTHS[-1]), reader.pop("paper", False)
    page = browser.new_page(viewport={"width": width, "height": 900}, **reader)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    if paper:
        page.emulate_media(media="print")
    found = page.evaluate(_CUT_CONTENT, paper)
    page.close()
    return [*errors, *dict.fromkeys(found)]
