"""Shared fixtures. Every test process sees 8 CPU devices, so that pmapped code runs as on a TPU host."""

import atexit
import ctypes
import dataclasses
import gc
import os
import shutil
import tempfile
from importlib import metadata

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the time, and unoptimised code is as correct. XLA ends the process at a flag that
# it does not know: these are in jaxlib 0.7 to 0.11.
COMPILER_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    COMPILER_FLAGS += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(devices: int) -> str:
    """XLA_FLAGS for a process with so many CPU devices, as quick to start as may be."""
    return f"--xla_force_host_platform_device_count={devices} {COMPILER_FLAGS}"


os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}"
# What one test has compiled no other compiles again, in pytest's workers and in programs that tests start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_by_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY_OF_A_WORKER = 1_200_000_000
MEMORY_BETWEEN_CLEARINGS = 600_000_000

WORDS = (
    *("the", "a", "movie", "film", "is", "was", "not", "good", "bad", "great", "dull", "fine"),
    *("plot", "actor", "and", "or", "very", "so", "it", "this", "that", "of", "in", "to"),
    *("funny", "sad", "long", "short", "love", "hate", "never", "always", "really"),
    *("##s", "##ing", "##ed", "un", ".", ",", "!", "?"),
)


def resident_memory() -> int:
    """Bytes; 0 where they cannot be read, which is everywhere but on Linux."""
    statistics = Path("/proc/self/statm")
    pages = int(statistics.read_text().split()[1]) if statistics.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


limit = MEMORY_OF_A_WORKER


@pytest.fixture(autouse=True)
def compiled_programs() -> Iterator[None]:
    """Frees what tests have compiled once it takes too much: a worker that keeps it all takes gigabytes.

    What stays, of torch and others, grows too; clearing after every test would compile all anew.
    """
    yield
    global limit
    if "jax" in sys.modules and resident_memory() > limit:
        sys.modules["jax"].clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        limit = max(MEMORY_OF_A_WORKER, resident_memory() + MEMORY_BETWEEN_CLEARINGS)


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


SENTENCES = {
    "good": "the film is good|a great movie and so funny|love this plot|never bad , always great|fine !",
    "bad": "the film is bad|a dull movie and so long|hate this plot|never good , always sad|dull .",
}


def write_task(directory: Path, train_rows: int = 37, dev_rows: int = 11) -> Path:
    """A custom task in CSV files: sentences of different lengths made of the tiny vocabulary."""
    import csv
    import random

    rng = random.Random(0)
    directory.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train_rows), ("dev", dev_rows), ("test", dev_rows)):
        with (directory / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(rows):
                label = ("bad", "good")[row % 2]
                parts = rng.choices(SENTENCES[label].split("|"), k=rng.randint(1, 4))
                writer.writerow([" ".join(parts), label])
    return directory


@pytest.fixture
def task_dir(tmp_path: Path) -> Path:
    """A custom task with labels bad and good."""
    return write_task(tmp_path / "task")


@pytest.fixture
def tiny_model_dir(tmp_path: Path, vocabulary_dir: Path):
    """`tiny_model_dir(name, num_hidden_layers=4, …)` writes a random model directory."""
    from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_model
    from bert_emd_jax.models.encoder_config import EncoderConfig
    from bert_emd_jax.models.initialization import initial_params
    from bert_emd_jax.tokenization.tokenizer import Tokenizer

    def make(name: str, seed: int = 0, **changes) -> Path:
        tokenizer = Tokenizer.from_directory(vocabulary_dir)
        values = {
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,  # large enough that layers and rows differ visibly
            "id2label": ("bad", "good"),
        }
        config = EncoderConfig(**(values | changes))
        save_model(
            tmp_path / name, LoadedModel(config, initial_params(config, "classifier", seed), tokenizer)
        )
        return tmp_path / name

    return make


@pytest.fixture
def embedder_dir(tmp_path: Path, tiny_model_dir):
    """`embedder_dir(name, module, …)` writes a random sentence embedder; see `tiny_model_dir`."""
    from bert_emd_jax.checkpoints.model_directory import load_model, save_model
    from bert_emd_jax.models.embedding_config import EmbeddingConfig

    def make(name: str, *modules, **changes) -> Path:
        loaded = load_model(tiny_model_dir(f"{name} classifier", **changes), head="none")
        embedding = EmbeddingConfig(("mean",), modules, max_seq_length=40)
        config = dataclasses.replace(loaded.config, embedding=embedding)
        save_model(tmp_path / name, dataclasses.replace(loaded, config=config))
        return tmp_path / name / "pytorch"

    return make


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What our own code logs, also where a program has turned the log to the screen before."""
    monkeypatch.setattr(logging.getLogger("bert_emd_jax"), "propagate", True)
    caplog.set_level(logging.INFO, logger="bert_emd_jax")
    return caplog


SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTER_WORDS = (
    "the a cat dog sat on mat un ##aff ##able runn ##ing cafe café naive naïve Berlin berlin 中 文 字 日"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'$-[]éÉüßé🙂"


def tiny_vocabulary() -> list[str]:
    """Special tokens, some words, and every letter both as a word and as a continuation."""
    letters = [letter for character in LETTERS for letter in (character, "##" + character)]
    return list(dict.fromkeys([*SPECIALS, *LETTER_WORDS.split(), *letters]))


@pytest.fixture(scope="session")
def vocabulary_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vocabulary")
    text = "".join(f"{piece}\n" for piece in tiny_vocabulary())
    (directory / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")
    return directory


@pytest.fixture(scope="session")
def tokenizer(vocabulary_directory: Path):
    from bert_emd_jax.tokenization.tokenizer import Tokenizer

    return Tokenizer.from_directory(vocabulary_directory)
