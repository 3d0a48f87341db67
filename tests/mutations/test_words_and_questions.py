"""Damaged files of words with labels and of questions, and damaged predictions for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from mutations.harness import survives
from mutations.mutators import damaged_bytes, damaged_json, damaged_json_lines, damaged_text, either

from bert_emd_jax.data.answer_config import AnswerConfig
from bert_emd_jax.data.kinds import ANSWER, TOKEN
from bert_emd_jax.data.questions import read_questions
from bert_emd_jax.data.sentences import read_sentences
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.question_rows import encode_questions
from bert_emd_jax.encoding.token_rows import encode_sentences
from bert_emd_jax.report.answered_questions import notable_answers, read_answered_questions
from bert_emd_jax.report.tagged_sentences import marked_sentences, read_tagged_sentences
from bert_emd_jax.tokenization.tokenizer import Tokenizer

WORDS = [["the", "film"], ["très", "中文", "so"], ["it"]]
TAGS = [["B-X", "I-X"], ["O", "B-Y", "O"], ["O"]]
CONTEXT = "the film is good , the plot was très bad 🙂"


@pytest.fixture
def tokenizer(vocabulary_dir: Path) -> Tokenizer:
    return Tokenizer.from_directory(vocabulary_dir)


def rows_of_words() -> bytes:
    rows = ({"tokens": words, "tags": tags} for words, tags in zip(WORDS, TAGS, strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def conll() -> bytes:
    sentences = zip(WORDS, TAGS, strict=True)
    parts = ("".join(f"{word} x {tag}\n" for word, tag in zip(*one, strict=True)) for one in sentences)
    return "\n".join(parts).encode()


def squad() -> bytes:
    answers = [{"text": "good", "answer_start": 12}]
    entries = [
        {"id": "a", "question": "was it good ?", "answers": answers},
        {"id": "b", "question": "never ?", "answers": [], "is_impossible": True},
    ]
    return json.dumps(
        {"version": "2.0", "data": [{"paragraphs": [{"context": CONTEXT, "qas": entries}]}]}
    ).encode()


@pytest.mark.parametrize(
    ("form", "content", "mutate"),
    [
        ("conll", conll(), either(damaged_text, damaged_bytes)),
        (
            "jsonl",
            rows_of_words(),
            either(damaged_json_lines, damaged_json_lines, damaged_text, damaged_bytes),
        ),
    ],
    ids=["conll", "jsonl"],
)
def test_words(tmp_path: Path, tokenizer: Tokenizer, form: str, content: bytes, mutate):
    def read(directory: Path) -> None:
        task = get_task("custom", data_dir=directory, kind="token")
        sentences = read_sentences(task, directory, "train")
        assert sentences.labels is not None
        assert sentences.labels.min() >= 0
        rows = encode_sentences(tokenizer, sentences, 8)
        assert rows.lengths.max() <= 8
        assert rows.predicted == len(sentences.labels)

    survives(tmp_path / "task", {f"train.{form}": content}, f"train.{form}", read, mutate, 400)


def test_questions(tmp_path: Path, tokenizer: Tokenizer):
    def read(directory: Path) -> None:
        questions = read_questions(get_task("custom", data_dir=directory, kind="answer"), directory, "train")
        rows = encode_questions(tokenizer, questions, 24, AnswerConfig(max_query_length=6))
        assert rows.labels is not None
        assert (rows.labels < rows.lengths[:, None]).all()

    mutate = either(damaged_json, damaged_json, damaged_text, damaged_bytes)
    survives(tmp_path / "task", {"train.json": squad()}, "train.json", read, mutate, 500)


def test_predicted_words(tmp_path: Path):
    rows = (
        {"id": str(row), "tokens": words, "label": tags, "student": tags, "teacher": tags[::-1]}
        for row, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True))
    )
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()

    def read(directory: Path) -> None:
        found = read_tagged_sentences(directory / "rows.jsonl", TOKEN, ("B-X", "I-X", "O", "B-Y"))
        if found is not None:
            marked_sentences(found)
            assert np.isfinite(found.scored("student").counts(np.zeros((1, 1), int)).rows).all()

    mutate = either(damaged_json_lines, damaged_json_lines, damaged_text, damaged_bytes)
    survives(tmp_path / "run", {"rows.jsonl": content}, "rows.jsonl", read, mutate, 400)


def test_predicted_answers(tmp_path: Path):
    place = {"text": "good", "start": 12}
    row = {"id": "a", "text": "was it ?", "context": CONTEXT, "label": [place]}
    rows = (row | {"student": place | {"score": 1.5}, "teacher": {"text": "", "start": 0}} for _ in range(3))
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()

    def read(directory: Path) -> None:
        found = read_answered_questions(directory / "rows.jsonl", ANSWER)
        if found is not None:
            notable_answers(found)

    mutate = either(damaged_json_lines, damaged_json_lines, damaged_text, damaged_bytes)
    survives(tmp_path / "run", {"rows.jsonl": content}, "rows.jsonl", read, mutate, 400)
