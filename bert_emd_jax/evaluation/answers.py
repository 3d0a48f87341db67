"""Answers that a model finds in texts, and how right they are by SQuAD's rules."""

import collections
import re
import string
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.answer_config import AnswerConfig
from bert_emd_jax.encoding.question_rows import QuestionRows
from bert_emd_jax.evaluation.metrics import Group, ScoredMeans

EXACT, F1 = "exact_match", "answer_f1"


class Answer(NamedTuple):
    """An answer and the characters of its text that it stands at; "" for none, and then they are 0.

    `score` is the sum of the logits of its ends, `probability` the product of their probabilities among the
    tokens of a window.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


def found_answers(rows: QuestionRows, logits: Float[np.ndarray, "tokens 2"]) -> list[list[Answer]]:
    """Returns the best answers of every question over all windows of its text, the best first.

    Where questions may have no answer, "" is among them: before the others if it scores more than the
    threshold above them, else behind the best.
    """
    config = rows.config
    found: list[dict[tuple[int, int], Answer]] = [{} for _ in range(len(rows.questions))]
    none: list[Answer | None] = [None] * len(rows.questions)
    for row, question in enumerate(rows.question_of.tolist()):
        tokens = slice(rows.offsets[row], rows.offsets[row + 1])
        of_row, spans = np.asarray(logits[tokens], np.float64), rows.spans[tokens]
        in_text = spans[:, 0] >= 0
        probabilities = _softmax(np.where((in_text | (np.arange(len(spans)) == 0))[:, None], of_row, -np.inf))
        no_answer = Answer("", 0, 0, float(of_row[0].sum()), float(probabilities[0].prod()))
        # A text may hold the answer in any window: the one that is surest that there is none does not count.
        if (known := none[question]) is None or no_answer.score < known.score:
            none[question] = no_answer
        context = rows.questions.contexts[question]
        for start, end in _best_spans(of_row, in_text, config):
            low, high = int(spans[start, 0]), int(spans[end, 1])
            score = float(of_row[start, 0] + of_row[end, 1])
            probability = float(probabilities[start, 0] * probabilities[end, 1])
            best = found[question].get((low, high))
            if best is None or score > best.score:
                found[question][low, high] = Answer(context[low:high], low, high, score, probability)
    threshold = config.null_threshold or 0.0
    ranked = []
    for answers, no_answer in zip(found, none, strict=True):
        of_question = sorted(answers.values(), key=lambda answer: -answer.score)[: config.n_best_size]
        assert no_answer is not None
        if not of_question:
            of_question = [no_answer]
        elif rows.may_have_no_answer:
            is_none = no_answer.score - of_question[0].score > threshold
            of_question.insert(0 if is_none else 1, no_answer)
        ranked.append(of_question)
    return ranked


def _best_spans(
    logits: Float[np.ndarray, "tokens 2"], in_text: np.ndarray, config: AnswerConfig
) -> Iterable[tuple[int, int]]:
    """Yields (first token, last token) of the `n_best_size` spans of a text that score most, in any order."""
    start, end = np.where(in_text[:, None], logits, -np.inf).T
    longest = min(config.max_answer_length, len(end))
    # scores[k, l] is that of the span from token k over l further ones; a text is one piece of its row.
    further = np.concatenate([end, np.full(longest - 1, -np.inf)])
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(further, longest)
    count = min(config.n_best_size, scores.size)
    best = np.argpartition(-scores, count - 1, axis=None)[:count]
    for token, length in zip(
        *np.unravel_index(best[scores.ravel()[best] > -np.inf], scores.shape), strict=True
    ):
        yield int(token), int(token + length)


def _softmax(logits: Float[np.ndarray, "tokens 2"]) -> Float[np.ndarray, "tokens 2"]:
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def scored_answers(texts: Sequence[str], gold: Sequence[Sequence[str]]) -> ScoredMeans:
    """Returns exact match and F1 of every question: the best over its right answers; of none it is "".

    By the rules of SQuAD's own evaluation: case, punctuation, articles and spaces do not count. Where some
    questions have no answer, they and the others are groups of their own.
    """
    exact, f1 = np.zeros(len(texts)), np.zeros(len(texts))
    for row, (text, right) in enumerate(zip(texts, gold, strict=True)):
        said = _normalized(text)
        known = [_normalized(answer) for answer in right]
        known = [answer for answer in known if answer] or [""]
        exact[row] = max(float(said == answer) for answer in known)
        f1[row] = max(_f1(said.split(), answer.split()) for answer in known)
    has, says = (np.array([bool(one) for one in side]) for side in (gold, texts))
    groups = {"answer": Group(has, says), "no answer": Group(~has, ~says)}
    is_mixed = has.any() and not has.all()
    return ScoredMeans({EXACT: exact, F1: f1}, groups if is_mixed else None)


def _normalized(text: str) -> str:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = (collections.Counter(said) & collections.Counter(right)).total()
    return 2 * common / (len(said) + len(right))
