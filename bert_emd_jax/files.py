"""Files of text are UTF-8; a file appears under its name only when it is complete; content by its hash."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


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


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path | None]:
    """Yields a directory to fill, which becomes `directory`, whole or not at all; None if it is there."""
    if directory.is_dir():
        yield None
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory.parent) as temporary:
        written = Path(temporary) / "written"
        written.mkdir()
        yield written
        try:
            written.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process was faster
                raise


@contextlib.contextmanager
def alone_in(directory: Path, when_taken: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Holds the lock of a directory, its file `.lock`, as one process at a time can.

    Where another one holds it, `when_taken` is called, which may raise, and else waits for it.
    """
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def content_hash(facts: Any, arrays: Mapping[str, np.ndarray]) -> str:
    """A sha256 of facts, which JSON must be able to hold, and of named arrays in any order."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, values in sorted(arrays.items()):
        values = np.ascontiguousarray(values)
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
