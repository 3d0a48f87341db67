"""Files of texts for embedders: sentences to learn from, and scored pairs."""

from pathlib import Path

import numpy as np
from conftest import SENTENCES


def texts_of(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    parts = [part for sentences in SENTENCES.values() for part in sentences.split("|")]
    return [" ".join(rng.choice(parts, size=rng.integers(1, 4))) for _ in range(count)]


def write_texts(directory: Path, *, pairs: bool = True) -> Path:
    """Writes `train.txt` of 150 texts, and with `pairs` 20 each for dev and test."""
    directory.mkdir()
    (directory / "train.txt").write_text("\n".join(texts_of(150, 0)) + "\n")
    if not pairs:
        (directory / "test.txt").write_text("\n".join(texts_of(12, 5)))
    else:
        for split, seed in (("dev", 1), ("test", 2)):
            rows = zip(texts_of(20, seed), texts_of(20, seed + 10), strict=True)
            scores = np.random.default_rng(seed).uniform(0, 5, 20)
            lines = [f"{a}\t{b}\t{score:.2f}" for (a, b), score in zip(rows, scores, strict=True)]
            (directory / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n")
    return directory
