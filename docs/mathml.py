"""A hook of the site's build: formulas become MathML, so that a page needs no script and no other site."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs for every page, once it is HTML."""

    def formula(found: re.Match[str]) -> str:
        is_block = found[2] == "["
        text = html.unescape(found[3]).strip()
        # A block that is wider than a phone scrolls by itself (style.css).
        return f'<div class="formula">{convert(text, display="block")}</div>' if is_block else convert(text)

    return _FORMULA.sub(formula, content)
