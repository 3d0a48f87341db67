"""Answers and their scores, against transformers' logits and SQuAD's rules as torchmetrics has them."""

import itertools

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints.model_directory import load_model, save_model
from bert_emd_jax.evaluation.answers import scored_answers
from bert_emd_jax.evaluation.metrics import scores_by_label
from bert_emd_jax.models.initialization import NewHead

TEXTS = (
    "",
    "The film",
    "a film!",
    "film",
    "the film was good",
    "Good.",
    "good, bad",
    "an old; plot",
)


def test_scores_are_those_of_squad():
    text = pytest.importorskip("torchmetrics.functional.text")
    pairs = list(itertools.product(TEXTS, itertools.combinations(TEXTS[1:], 2)))
    scored = scored_answers([said for said, _ in pairs], [right for _, right in pairs])
    theirs = [
        text.squad(
            {"id": "", "prediction_text": said},
            {"id": "", "answers": {"answer_start": [0, 0], "text": list(right)}},
        )
        for said, right in pairs
    ]
    exact = [float(one["exact_match"]) / 100 for one in theirs]
    f1 = [float(one["f1"]) / 100 for one in theirs]
    np.testing.assert_array_equal(scored.values["exact_match"], exact)
    np.testing.assert_allclose(scored.values["answer_f1"], f1, atol=1e-6)
    assert 0 < np.mean(exact) < np.mean(f1) < 1


def test_no_answer_is_right_where_there_is_none():
    scored = scored_answers(["", "film", ""], [[], [], ["film"]])
    assert scored.values["exact_match"].tolist() == [1, 0, 0]
    assert scored.values["answer_f1"].tolist() == [1, 0, 0]
    # As SQuAD's program prints them: HasAns and NoAns.
    assert scores_by_label(scored, None) == {
        "answer": {"exact_match": 0, "answer_f1": 0, "true": 1, "predicted": 1},
        "no answer": {"exact_match": 0.5, "answer_f1": 0.5, "true": 2, "predicted": 2},
    }
    assert scores_by_label(scored_answers(["a"], [["a"]]), None) == {}


@pytest.fixture
def finder(tiny_model_dir, tmp_path):
    base = tiny_model_dir("base", num_hidden_layers=2, max_position_embeddings=128)
    model = load_model(base, head="answer", new_head=NewHead(2, seed=3))
    save_model(tmp_path / "finder", model)
    return tmp_path / "finder"


WORDS = ["the", "films", "plot", "was", "so", "unloved", "bad", ",", "never", "funny", "!"]


@pytest.fixture
def roberta_finder(tmp_path):
    pytest.importorskip("torch")
    from family_models import their_model, write_merges

    size = write_merges(tmp_path / "theirs", f" {' '.join(WORDS)}\n" * 9)
    model = their_model("roberta", "answer", vocab_size=size, pad_token_id=1, max_position_embeddings=130)
    model.save_pretrained(tmp_path / "theirs")
    save_model(tmp_path / "finder", load_model(tmp_path / "theirs", head=None))
    return tmp_path / "finder"


def best_of_transformers(tokenizer, model, question, context, length):
    """(start, end, score) of the best span over all windows: its pipeline is gone since version 5."""
    import torch

    specials = tokenizer.num_special_tokens_to_add(pair=True)
    room = length - len(tokenizer(question, add_special_tokens=False)["input_ids"]) - specials
    inputs = tokenizer(
        *(question, context),
        truncation="only_second",
        max_length=length,
        stride=room // 3,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_tensors="pt",
        padding=True,
    )
    offsets = inputs.pop("offset_mapping").tolist()
    inputs.pop("overflow_to_sample_mapping")
    sides = [inputs.sequence_ids(row) for row in range(len(offsets))]
    with torch.no_grad():
        output = model(**inputs)
    found = []
    for row, of_row in enumerate(sides):
        start, end = output.start_logits[row], output.end_logits[row]
        inside = [token for token, side in enumerate(of_row) if side == 1]
        a, b = max(
            ((a, b) for a in inside for b in inside if a <= b < a + 30),
            key=lambda span: float(start[span[0]] + end[span[1]]),
        )
        known = [0, *inside]
        p, q = (logits[known].softmax(0) for logits in (start, end))
        probability = float(p[known.index(a)] * q[known.index(b)])
        span = offsets[row][a][0], offsets[row][b][1]
        found.append((float(start[a] + end[b]), *span, probability))
    return max(found)


@pytest.mark.parametrize("family", ["finder", "roberta_finder"])
def test_the_best_answers_to_a_hundred_questions_are_those_of_transformers_logits(family, request):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    finder = request.getfixturevalue(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(finder / "pytorch")
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(finder / "pytorch").eval()
    model = bert_emd_jax.load(finder, max_seq_length=32)
    rng = np.random.default_rng(0)
    questions = [" ".join(rng.choice(WORDS, size=4)) for _ in range(100)]
    contexts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 60))) for _ in questions]
    for context, question, ours in zip(contexts, questions, model.answer(questions, contexts), strict=True):
        expected = best_of_transformers(tokenizer, theirs, question, context, 32)
        score, start, end, probability = expected
        assert (ours.start, ours.end) == (start, end)
        assert ours.text == context[ours.start : ours.end]
        assert ours.score == pytest.approx(score, abs=1e-4)
        assert ours.probability == pytest.approx(probability, rel=1e-3)


def test_answers_of_long_texts_lists_and_none(finder):
    model = bert_emd_jax.load(finder)
    question, context = "was it good ?", " ".join(["the plot was so dull , it is funny ."] * 30)
    best = model.answer(question, context, top_k=3)
    assert len(best) == 3
    assert best[0].score >= best[1].score >= best[2].score
    for one in best:
        assert context[one.start : one.end] == one.text
    many = model.answer([question, "is it ?"], [context, "it is so funny"])
    assert many[0] == best[0]
    assert model.answer([question, question], context)[1] == best[0]
    assert "" in [one.text for one in model.answer(question, context, top_k=9, may_be_none=True)]
    assert model.answer([], []) == []
    with pytest.raises(bert_emd_jax.UserError, match="answer: is for models of kind answer"):
        bert_emd_jax.load(finder.parent / "base").answer("a", "b")
