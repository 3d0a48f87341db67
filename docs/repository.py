"""Where the project is published: `Repository` in `[project.urls]` of pyproject.toml says so, only there.

As a hook of the site's build it gives the pages their link to the source. As a program it writes the setting,
and the badges at the head of README.md: `python docs/repository.py https://github.com/OWNER/NAME`.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PYPROJECT, _README = ROOT / "pyproject.toml", ROOT / "README.md"
_URLS = re.compile(r"\[project\.urls\]\n(?:[A-Z].*\n)*\n")
_BADGES = re.compile(r"(<!-- badges: made by docs/repository.py -->\n)(?:\[.*\n)?(?=\n)")


def repository() -> str | None:
    """The address, None as long as nobody has said it."""
    return tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository")


def on_config(config: Any, **_: Any) -> Any:
    """Called by MkDocs once, before it reads the pages."""
    config.repo_url = repository()
    return config


def badges(url: str | None) -> str:
    """A line of Markdown: how CI is, the version on PyPI, and the notebook in Colab."""
    if url is None:
        return ""
    path = url.removeprefix("https://github.com/")
    notebook = f"https://colab.research.google.com/github/{path}/blob/main/examples/bert_emd_colab.ipynb"
    of_each = (
        f"[![CI]({url}/actions/workflows/ci.yml/badge.svg)]({url}/actions/workflows/ci.yml)",
        "[![PyPI](https://img.shields.io/pypi/v/bert_emd_jax)](https://pypi.org/project/bert_emd_jax/)",
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({notebook})",
    )
    return " ".join(of_each) + "\n"


def with_urls(pyproject: str, url: str) -> str:
    """The text of pyproject.toml with another address."""
    table = "\n".join(
        (
            "[project.urls]",
            f'Repository = "{url}"',
            f'Issues = "{url}/issues"',
            f'Changelog = "{url}/blob/main/CHANGELOG.md"',
        )
    )
    rest = _URLS.sub("", pyproject)
    return rest.replace("[project.scripts]", f"{table}\n\n[project.scripts]", 1)


def with_badges(readme: str, url: str | None) -> str:
    """The text of README.md with the badges of an address."""
    return _BADGES.sub(lambda marker: marker[1] + badges(url), readme, count=1)


def main(url: str) -> None:
    """Writes both files."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        sys.exit(f"{url}: not an address such as https://github.com/OWNER/NAME")
    _PYPROJECT.write_text(with_urls(_PYPROJECT.read_text(encoding="utf-8"), url), encoding="utf-8")
    _README.write_text(with_badges(_README.read_text(encoding="utf-8"), url), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
