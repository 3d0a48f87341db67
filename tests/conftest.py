"""Shared fixtures. Every test process sees 8 CPU devices, so that pmapped code runs as on a TPU host."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from pathlib import Path

import pytest

WORDS = (
    "the a movie film is was not good bad great dull fine plot actor and or very so it this that of in to"
    " funny sad long short love hate never always really ##s ##ing ##ed un ##able . , ! ? '"
).split()


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """A WordPiece vocabulary of some fifty entries."""
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture
def vocabulary_dir(tmp_path: Path, vocabulary: list[str]) -> Path:
    """A directory with nothing but a vocab.txt."""
    directory = tmp_path / "vocabulary"
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return directory
