"""SQuAD's files: what is read and what is refused, and rows and windows of questions."""

import itertools
import json

import numpy as np
import pytest

from bert_emd_jax.data.answer_config import AnswerConfig
from bert_emd_jax.data.questions import GoldAnswer, read_questions
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.question_rows import encode_questions
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

CONTEXT = "the film is good , the plot was bad"
ANSWERS = [{"text": "good", "answer_start": 12}, {"text": "is good", "answer_start": 9}]
ENTRIES = [
    {"id": "a", "question": "was it good ?", "answers": ANSWERS},
    {"id": "b", "question": "was it so ?", "answers": [], "is_impossible": True},
]


def squad(*entries, context=CONTEXT, **more):
    return {
        "version": "2.0",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(entries)}]}],
        **more,
    }


def read(directory, split="train"):
    task = get_task("custom", data_dir=directory, kind="answer")
    return read_questions(task, directory, split)


def test_squads_files_and_rows_of_the_datasets_library_are_the_same(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(squad(*ENTRIES)))
    rows = [
        {"id": "a", "question": "was it good ?", "context": CONTEXT}
        | {"answers": {"text": ["good", "is good"], "answer_start": [12, 9]}},
        {
            "id": "b",
            "question": "was it so ?",
            "context": CONTEXT,
            "answers": {"text": [], "answer_start": []},
        },
    ]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for directory in (tmp_path, tmp_path / "rows"):
        questions = read(directory)
        assert questions.questions == ["was it good ?", "was it so ?"]
        assert questions.contexts == [CONTEXT] * 2
        assert questions.answers == [(GoldAnswer("good", 12), GoldAnswer("is good", 9)), ()]
        assert questions.identifiers == ["a", "b"]
        assert questions.has_unanswerable


def test_a_test_split_may_have_no_answers(tmp_path):
    entry = {"id": "a", "question": "what ?"}
    (tmp_path / "test.json").write_text(json.dumps(squad(entry)))
    assert read(tmp_path, "test").answers is None
    (tmp_path / "dev.json").write_text(json.dumps(squad(entry)))
    with pytest.raises(UserError, match=r"dev.json: no answers; the dev split of custom needs them"):
        read(tmp_path, "dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "train.json: not valid JSON"),
        (json.dumps([]), "train.json: no list 'data' here; the file should have SQuAD's form"),
        (json.dumps({"data": [{}]}), "article 0: no list 'paragraphs' here"),
        (json.dumps({"data": [{"paragraphs": [{"context": "a"}]}]}), "paragraph 0: no list 'qas' here"),
        (json.dumps({"data": []}), "no questions; the train split of custom is empty"),
        (json.dumps(squad(3)), "a question is a number, not an object"),
        (json.dumps(squad({"question": ""})), "'question' should be a text"),
        (json.dumps(squad(ENTRIES[0], context=None)), "'context' should be a text, it is null"),
        (json.dumps(squad({"question": "a", "answers": 3})), "question 0: answers should be a list"),
        (json.dumps(squad({"question": "a", "answers": {"text": ["a"]}})), "lists of text and answer_start"),
        (
            json.dumps(squad({"question": "a", "answers": [{"text": "good"}]})),
            "needs a text and an answer_start",
        ),
        (
            json.dumps(
                squad({"id": "q7", "question": "a", "answers": [{"text": "good", "answer_start": 11}]})
            ),
            "question q7: the answer 'good' does not stand at character 11",
        ),
        (
            json.dumps(squad(ENTRIES[0], {"id": "c", "question": "a"})),
            "question c: no answers, but others have some",
        ),
    ],
)
def test_files_of_another_form_are_one_line(tmp_path, content, message):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.fixture
def tokenizer(vocabulary_dir):
    return Tokenizer.from_directory(vocabulary_dir)


def rows_of(tmp_path, tokenizer, max_length, context, *entries, **flags):
    (tmp_path / "train.json").write_text(json.dumps(squad(*entries, context=context)))
    return encode_questions(tokenizer, read(tmp_path), max_length, AnswerConfig(**flags))


def test_labels_are_the_tokens_of_the_first_answer(tmp_path, tokenizer):
    rows = rows_of(tmp_path, tokenizer, 64, CONTEXT, *ENTRIES, max_query_length=8)
    assert len(rows) == 2
    (start, end), none = rows.labels
    assert CONTEXT[rows.spans[start, 0] : rows.spans[end, 1]] == "good"
    assert none.tolist() == [0, 0]
    # [CLS] was it good ? [SEP] and the text in the second segment.
    assert rows.segment_a_lengths.tolist() == [6, 6]
    assert (rows.spans[:6] == -1).all()
    assert CONTEXT[rows.spans[6, 0] : rows.spans[6, 1]] == "the"


def test_windows_hold_all_of_a_long_text_and_overlap_as_asked(tmp_path, tokenizer):
    context = " ".join(["the plot was so dull ,"] * 20 + ["it is funny"])
    entry = {
        "id": "a",
        "question": "is it ?",
        "answers": [{"text": "funny", "answer_start": len(context) - 5}],
    }
    rows = rows_of(tmp_path, tokenizer, 40, context, entry, max_query_length=8, doc_stride=10)
    covered = [rows.spans[a:b] for a, b in itertools.pairwise(rows.offsets)]
    covered = [window[window[:, 0] >= 0].tolist() for window in covered]
    for left, right in itertools.pairwise(covered):
        assert left[-10:] == right[:10]
    whole = covered[0] + [span for window in covered[1:] for span in window[10:]]
    assert [context[a:b] for a, b in whole] == context.split()
    assert rows.lengths.max() == 40
    assert [label.any() for label in rows.labels] == [False] * (len(rows) - 1) + [True]
    assert (rows.question_of == 0).all()


def test_a_window_must_have_room(tmp_path, tokenizer):
    with pytest.raises(UserError, match="--max_seq_length 40: leaves 0 tokens of a text beside a question"):
        rows_of(tmp_path, tokenizer, 40, CONTEXT, *ENTRIES)
    with pytest.raises(UserError, match="that should be more than --doc_stride"):
        rows_of(tmp_path, tokenizer, 80, CONTEXT, *ENTRIES, doc_stride=13)
    long = {"id": "a", "question": "good " * 30, "answers": ANSWERS}
    rows = rows_of(tmp_path, tokenizer, 64, CONTEXT, long, max_query_length=7)
    assert rows.segment_a_lengths.tolist() == [9]


def test_outputs_stand_token_by_token(tmp_path, tokenizer):
    rows = rows_of(tmp_path, tokenizer, 20, CONTEXT * 4, *ENTRIES, max_query_length=4)
    batch = rows.collate(np.arange(len(rows)), 24)
    assert batch["labels"].shape == (len(rows), 2)
    results = np.zeros((rows.predicted, 1))
    for part in np.array_split(np.arange(len(rows))[::-1], 2):
        rows.place(results, part, batch["input_ids"][part][:, :, None])
    assert results[:, 0].tolist() == rows.token_ids.tolist()
