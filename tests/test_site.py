"""The built site in a browser: no page cuts anything off, at any width, without scripts too."""

from pathlib import Path

import pytest
from browser import WIDTHS, chromium, cut_content

SITE = Path(__file__).parents[1] / "site"  # by `make docs`


@pytest.mark.skipif(not SITE.is_dir(), reason="make docs has not built the site")
def test_nothing_is_cut():
    addresses = [path.as_uri() for path in sorted(SITE.rglob("index.html"))]
    assert len(addresses) > 20
    with chromium() as browser:
        page, without_scripts = browser.new_page(), browser.new_page(java_script_enabled=False)
        page.on("pageerror", lambda error: pytest.fail(f"{page.url}: {error}"))
        for address in addresses:
            # In the article: the theme itself hides menus beside the page.
            page.goto(address)
            assert cut_content(page, within="article") == [], address
            without_scripts.goto(address)
            assert cut_content(without_scripts, WIDTHS[:1], within="article") == [], address
