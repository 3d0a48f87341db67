"""Every test of this folder runs between two empty directories, which stay empty."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory and the one of temporary files."""
    places = [tmp_path / "working directory", tmp_path / "temporary files"]
    for place in places:
        place.mkdir()
    monkeypatch.chdir(places[0])
    monkeypatch.setattr(tempfile, "tempdir", str(places[1]))
    yield
    for place in places:
        assert not list(place.iterdir())
