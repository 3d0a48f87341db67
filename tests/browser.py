"""Pages in Chromium, through Playwright: what a reader with a phone, a dark screen or paper gets to see."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

WIDTHS = (390, 820, 1400)
"""A phone, a tablet, a laptop, in CSS pixels."""
PAPER = 718
"""A4 less usual margins, in CSS pixels."""

_CUT_CONTENT = """
([paper, within]) => {
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
  for (const e of document.querySelectorAll(within + " *")) {
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


def cut_content(page: Any, widths: Iterable[int] = WIDTHS, *, within: str = "body") -> list[str]:
    """Returns what a reader of an open page cannot see or reach, at each of the widths and on paper.

    Args:
      page: Playwright's; its medium is print if it is to be looked at on paper.
      widths: of the window or the paper, in CSS pixels.
      within: a CSS selector of what is looked at.
    """
    paper = page.evaluate("matchMedia('print').matches")
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        cut = dict.fromkeys(page.evaluate(_CUT_CONTENT, [paper, within]))
        found += [f"{width}: {line}" for line in cut]
    return found
