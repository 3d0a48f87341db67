"""Files of text are UTF-8; a file appears under its name only when it is complete."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames what was written there to `path`.

    A reader never sees half of a file. After an error `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file by `replacing`, its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file by `replacing`."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def cache_directory() -> Path:
    """Where things are kept that can be made or fetched again.

    `$BERT_EMD_JAX_CACHE`, else `bert_emd_jax` in the user's cache.
    """
    if given := os.environ.get("BERT_EMD_JAX_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_emd_jax"
