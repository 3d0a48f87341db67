"""Damaged data: tasks in every form, word vectors, corpora, and pretraining data."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations.harness import read_files, survives, write_files
from mutations.mutators import damaged_bytes, damaged_json, damaged_json_lines, damaged_text, either

from bert_emd_jax.augmentation.augmented_file import header_of, whole_rows, write_rows
from bert_emd_jax.augmentation.word_vectors import WordVectors
from bert_emd_jax.corpus.corpus import tokenize_corpus
from bert_emd_jax.corpus.dataset import PregeneratedData
from bert_emd_jax.corpus.manifest import MANIFEST_FILE, create_manifest
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings, Vocabulary
from bert_emd_jax.corpus.writing import write_epochs
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.task import SplitFile
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding import token_cache
from bert_emd_jax.encoding.dataset import encode_examples
from bert_emd_jax.encoding.token_cache import cached_encoding
from bert_emd_jax.files import write_json
from bert_emd_jax.tokenization.tokenizer import Tokenizer

WORDS = (
    *("the", "film", "is", "good", "a", "dull", "movie", "and", "so", "funny"),
    *("very", "long", "sad", "plot", "actor", "this", "that", "great"),
)
TEXTS = ["the film is good", 'say "no", or not', "a dull\u2028movie", "très 中文 🙂", "", "last one !"]
LABELS = ["good", "bad"] * 3


@pytest.fixture
def tokenizer(vocabulary_dir: Path) -> Tokenizer:
    return Tokenizer.from_directory(vocabulary_dir)


def rows() -> list[dict[str, str]]:
    return [
        {"text": text, "other": text[::-1], "label": label} for text, label in zip(TEXTS, LABELS, strict=True)
    ]


def task_file(form: str) -> bytes:
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows()).encode()
    table = [list(rows()[0]), *(list(row.values()) for row in rows())]
    if form == "tsv":
        return "".join("\t".join(cells) + "\n" for cells in table).encode()
    if form == "csv":
        text = io.StringIO()
        csv.writer(text).writerows(table)
        return text.getvalue().encode()
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = io.BytesIO()
    texts = {name: [row[name] for row in rows()] for name in ("text", "other")}
    columns = texts | {"label": [index % 2 for index in range(len(TEXTS))]}
    features = {"label": {"names": ["good", "bad"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("form", "mutate", "count"),
    [
        ("tsv", either(damaged_text, damaged_bytes), 500),
        ("csv", either(damaged_text, damaged_bytes), 500),
        ("jsonl", either(damaged_json_lines, damaged_json_lines, damaged_text, damaged_bytes), 600),
        ("parquet", either(damaged_bytes), 500),
    ],
)
def test_tasks(tmp_path: Path, tokenizer: Tokenizer, form: str, mutate, count: int):
    def read(directory: Path) -> None:
        task = get_task("custom", data_dir=directory, text_pair_column="other")
        examples = read_split(task, directory, "train")
        assert examples.labels is not None
        encode_examples(tokenizer, examples, 16)

    survives(tmp_path / "task", {f"train.{form}": task_file(form)}, f"train.{form}", read, mutate, count)


def test_a_task_of_numbers(tmp_path: Path):
    def read(directory: Path) -> None:
        labels = read_split(get_task("sts-b"), directory, "train").labels
        assert labels is not None
        assert np.isfinite(labels).all()

    content = b"sentence1\tsentence2\tscore\n" + b"a film\ta movie\t4.2\nthe plot\tthe actor\t-1e-3\n" * 3
    survives(tmp_path / "task", {"train.tsv": content}, "train.tsv", read, either(damaged_text), 400)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_rows_to_be_augmented(tmp_path: Path, form: str):
    name = f"train.{form}"
    file = SplitFile(name, "text", label="label")

    def read(directory: Path) -> None:
        found = list(whole_rows(directory / name, file, skip_malformed=False))
        write_rows(tmp_path / f"train_aug.{form}", header_of(directory / name, file), found)

    mutate = either(damaged_json_lines, damaged_text) if form == "jsonl" else either(damaged_text)
    survives(tmp_path / "task", {name: task_file(form)}, name, read, mutate, 250, allowed=tmp_path)


def test_word_vectors(tmp_path: Path):
    def read(directory: Path) -> None:
        WordVectors.from_file(directory / "glove.txt").neighbours(["film", "The", ""], 3)

    words = [*WORDS, ",", "1"]
    lines = [f"{word} {index * 0.1:.4f} -{index * 0.01:.3f} 1e-{index}" for index, word in enumerate(words)]
    content = f"{len(words)} 3\n" + "\n".join(lines) + "\n"
    survives(
        tmp_path / "vectors",
        {"glove.txt": content.encode()},
        "glove.txt",
        read,
        either(damaged_text, damaged_bytes),
        500,
    )


CORPUS = "\n\n".join("\n".join([" ".join(WORDS[start : start + 6])] * 4) for start in range(0, 12, 2)) + "\n"
SETTINGS = ExampleSettings(max_seq_len=24, short_seq_prob=0.1, masked_lm_prob=0.15, max_predictions_per_seq=5)


def test_corpora(tmp_path: Path, tokenizer: Tokenizer):
    def read(directory: Path) -> None:
        corpus = tokenize_corpus(directory / "corpus.txt", tokenizer)
        output = directory.parent / "epochs"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        if corpus.document_count > 1:  # else the program asks for --one_seq
            write_epochs(corpus, Vocabulary.of(tokenizer), SETTINGS, [0], output)

    survives(
        tmp_path / "corpus",
        {"corpus.txt": CORPUS.encode()},
        "corpus.txt",
        read,
        either(damaged_text, damaged_bytes),
        150,
        allowed=tmp_path,
    )


@pytest.fixture
def pregenerated(tmp_path: Path, tokenizer: Tokenizer) -> dict[str, dict[str, bytes]]:
    """The files of two epochs in either form."""
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS)
    found = {}
    for form in ("jsonl", "arrays"):
        directory = tmp_path / f"as {form}"
        directory.mkdir()
        write_json(directory / MANIFEST_FILE, create_manifest(path, tokenizer, SETTINGS, form, (0, 1)))
        corpus = tokenize_corpus(path, tokenizer)
        write_epochs(corpus, Vocabulary.of(tokenizer), SETTINGS, [0, 1], directory, format_name=form)
        found[form] = read_files(directory)
    return found


def every_batch(directory: Path, tokenizer: Tokenizer) -> None:
    data = PregeneratedData.open(directory, tokenizer)
    dataset = data.epoch(0)
    assert len(dataset) == data.example_count(0)
    batch = dataset.collate(np.arange(len(dataset)), data.max_seq_len)
    for name in {"input_ids", "masked_labels"} & batch.keys():
        assert batch[name].min() >= -1
        assert batch[name].max() < tokenizer.vocab_size


@pytest.mark.parametrize(
    ("form", "name", "mutate", "count"),
    [
        (
            "jsonl",
            "epoch_0.json",
            either(damaged_json_lines, damaged_json_lines, damaged_bytes, damaged_text),
            500,
        ),
        ("jsonl", "epoch_0_metrics.json", either(damaged_json, damaged_json, damaged_bytes), 250),
        ("jsonl", "pretraining_data.json", either(damaged_json, damaged_json, damaged_bytes), 150),
        *(
            ("arrays", f"epoch_0/{name}.npy", either(damaged_bytes), 120)
            for name in (
                *("token_ids", "lengths", "first_lengths", "is_random_next"),
                *("masked_counts", "masked_positions", "masked_labels"),
            )
        ),
    ],
)
def test_pretraining_data(
    tmp_path: Path, tokenizer: Tokenizer, pregenerated, form: str, name: str, mutate, count
):
    read = lambda directory: every_batch(directory, tokenizer)
    survives(tmp_path / "data", pregenerated[form], name, read, mutate, count)


@pytest.mark.parametrize("name", ["epoch_0_metrics.json", "epoch_1.partial/log.jsonl"])
def test_pretraining_data_to_go_on_with(tmp_path: Path, tokenizer: Tokenizer, pregenerated, name: str):
    files = {path: content for path, content in pregenerated["jsonl"].items() if "epoch_1" not in path}
    files["epoch_1.partial/examples.json"] = pregenerated["jsonl"]["epoch_1.json"]
    files["epoch_1.partial/log.jsonl"] = b"[1, 3, [400]]\n"
    path = tmp_path / "corpus.txt"

    def read(directory: Path) -> None:
        output = tmp_path / "output"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(directory, output, symlinks=True)
        write_epochs(tokenize_corpus(path, tokenizer), Vocabulary.of(tokenizer), SETTINGS, [0, 1], output)

    mutate = either(damaged_json_lines, damaged_bytes)
    survives(tmp_path / "data", files, name, read, mutate, 120, allowed=tmp_path)


@pytest.mark.parametrize("name", ["token_ids", "offsets", "first_lengths"])
def test_cached_tokens_are_right_or_made_anew(tmp_path: Path, tokenizer: Tokenizer, monkeypatch, name: str):
    monkeypatch.setattr(token_cache, "_FEWEST_ROWS", 1)
    examples = Examples(TEXTS, None, None, np.arange(6), LABELS, Path("x"))
    fresh = cached_encoding(tokenizer, examples, 16, tmp_path / "cache")
    files = read_files(tmp_path / "cache")
    entry = next(path for path in files if path.endswith(f"{name}.npy"))

    def read(directory: Path) -> None:
        given = cached_encoding(tokenizer, examples, 16, directory)
        batch = given.collate(np.arange(6), 16)
        assert batch["input_ids"].max() < tokenizer.vocab_size
        write_files(directory, {path: content for path, content in files.items() if path != entry})

    survives(
        tmp_path / "cache", files, entry, read, either(damaged_bytes), 150, allowed=tmp_path, refuses=False
    )
    assert len(fresh) == 6


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["a", "b"])), min_size=1
    ),
    form=st.sampled_from(["tsv", "csv", "jsonl"]),
)
def test_what_is_written_is_read(tmp_path: Path, table: list[tuple[str, str]], form: str):
    if form == "tsv":  # has no way to write these
        table = [(text.translate({9: " ", 10: " ", 13: " "}), label) for text, label in table]
    path = tmp_path / f"train.{form}"
    header = None if form == "jsonl" else ["text", "label"]
    write_rows(path, header, ({"text": text, "label": label} for text, label in table))
    task = get_task("custom", data_dir=tmp_path, labels=("a", "b"))
    examples = read_split(task, tmp_path, "train")
    path.unlink()
    assert examples.texts_a == [text for text, _ in table]
    assert examples.labels is not None
    assert [("a", "b")[label] for label in examples.labels] == [label for _, label in table]
