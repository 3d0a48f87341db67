"""Predictions beside the truth, as the kind of a task is scored: rows, entities of sentences, answers."""

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.question_rows import QuestionRows
from bert_emd_jax.encoding.token_rows import TokenRows
from bert_emd_jax.evaluation.answers import found_answers, scored_answers
from bert_emd_jax.evaluation.entity_scores import scored_entities
from bert_emd_jax.evaluation.metrics import Scored, ScoredRows


def scored_predictions(
    kind: Kind, labels: Labels, predictions: Float[np.ndarray, "rows ..."], rows: EncodedDataset
) -> Scored:
    """Returns predictions beside the labels that rows have. Raises ValueError if they are not finite."""
    if isinstance(rows, QuestionRows):
        answers = rows.questions.answers
        assert answers is not None
        texts = [best[0].text for best in found_answers(rows, predictions)]
        return scored_answers(texts, [[answer.text for answer in right] for right in answers])
    if isinstance(rows, TokenRows):
        assert rows.word_labels is not None
        if not np.isfinite(predictions).all():
            raise ValueError("predictions must be finite: the model has diverged")
        answers = kind.answers(predictions)
        return scored_entities(kind, labels, answers, rows.word_labels, rows.sentence_starts)
    assert rows.labels is not None
    return ScoredRows(kind, predictions, rows.labels)
