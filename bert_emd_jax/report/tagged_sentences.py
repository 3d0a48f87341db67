"""Sentences whose words models label: read row by row, scored again, and shown with their entities marked."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from bert_emd_jax.data.entities import OUTSIDE, Span
from bert_emd_jax.data.kind import Kind
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.entity_scores import named_entities, scored_entities
from bert_emd_jax.evaluation.metrics import ScoredCounts
from bert_emd_jax.report.json_files import read_text
from bert_emd_jax.tables.rows import read_rows

_SHOWN = 12
_TRUTH = "label"


@dataclass(frozen=True)
class TaggedSentences:
    """`dev_predictions.jsonl` of a task on tokens, sentence by sentence.

    `truth`, and by model ("teacher" and "student", or "student" alone) what is predicted, are indices of
    labels, those of all words one after the other.
    """

    kind: Kind
    labels: tuple[str, ...]
    identifiers: list[str]
    texts: list[tuple[str, ...]]
    truth: Int[np.ndarray, " words"]
    by_model: dict[str, Int[np.ndarray, " words"]]

    @property
    def starts(self) -> Int[np.ndarray, " sentences+1"]:
        return np.cumsum([0, *map(len, self.texts)])

    def has_rows_of(self, other: object) -> bool:
        """Whether others are predictions for the same sentences."""
        return isinstance(other, TaggedSentences) and (
            (self.labels, self.texts, self.truth.tolist())
            == (other.labels, other.texts, other.truth.tolist())
        )

    def scored(self, model: str) -> ScoredCounts:
        """Returns what a model predicts beside the truth, to be scored."""
        return scored_entities(self.kind, self.labels, self.by_model[model], self.truth, self.starts)


@dataclass(frozen=True)
class MarkedWords:
    """Words of a sentence that belong together: an entity, or what stands between two.

    `is_right` is None outside of entities, and in the truth.
    """

    text: str
    type: str | None
    is_right: bool | None


@dataclass(frozen=True)
class MarkedSentence:
    """A sentence as the truth and each model mark it."""

    identifier: str
    by_side: dict[str, list[MarkedWords]]


def read_tagged_sentences(path: Path, kind: Kind, labels: Sequence[str]) -> TaggedSentences | None:
    """Reads `dev_predictions.jsonl`; None if it has no rows.

    Raises:
      UserError: the file is damaged; the message names the line.
    """
    index = {label: number for number, label in enumerate(labels)}
    identifiers: list[str] = []
    texts: list[tuple[str, ...]] = []
    by_side: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            words = tuple(map(str, row["tokens"]))
            sides = [side for side in (_TRUTH, "teacher", "student") if side in row]
            if not {_TRUTH, "student"} <= set(sides) or (by_side and list(by_side) != sides):
                raise ValueError("other models than in the rows before")
            for side in sides:
                given = [index[label] for label in row[side]]
                if len(given) != len(words):
                    raise ValueError(f"{len(given)} labels for {len(words)} words")
                by_side.setdefault(side, []).extend(given)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a row of predictions ({error}): restore the file, or run again"
            ) from error
        identifiers.append(str(row.get("id", number - 1)))
        texts.append(words)
    return _sentences(kind, labels, identifiers, texts, by_side)


def read_tagged_conll(path: Path, kind: Kind, labels: Sequence[str]) -> TaggedSentences | None:
    """Reads `predictions_SPLIT.conll` of bert-emd eval; None if it has no true labels.

    Raises:
      UserError: the file is damaged.
    """
    index = {label: number for number, label in enumerate(labels)}
    texts: list[tuple[str, ...]] = []
    by_side: dict[str, list[int]] = {_TRUTH: [], "student": []}
    try:
        for _, (words, truth, said) in read_rows(path, [0, 1, -1]):
            texts.append(tuple(words))
            by_side[_TRUTH] += [index[label] for label in truth]
            by_side["student"] += [index[label] for label in said]
    except KeyError as error:
        raise UserError(
            f"{path}: {error} is not a label of the task: restore the file, or run again"
        ) from error
    return _sentences(kind, labels, [str(row) for row in range(len(texts))], texts, by_side)


def marked_sentences(sentences: TaggedSentences) -> list[MarkedSentence]:
    """Returns the sentences on whose entities teacher and student differ most; without a teacher, student
    and truth."""
    starts, labels = sentences.starts.tolist(), sentences.labels
    sides = {"label": sentences.truth, **sentences.by_model}
    reference = "teacher" if "teacher" in sides else "label"
    spans = {
        side: [named_entities(indices[first:last], labels) for first, last in itertools.pairwise(starts)]
        for side, indices in sides.items()
    }
    rows = range(len(sentences.texts))
    apart = [len(set(spans["student"][row]) ^ set(spans[reference][row])) for row in rows]
    order = sorted(rows, key=lambda row: -apart[row])
    return [
        MarkedSentence(
            sentences.identifiers[row],
            {
                side: _marked(
                    sentences.texts[row], of_side[row], None if side == "label" else set(spans["label"][row])
                )
                for side, of_side in spans.items()
            },
        )
        for row in order[:_SHOWN]
        if apart[row]
    ]


def _marked(words: Sequence[str], spans: Sequence[Span], truth: set[Span] | None) -> list[MarkedWords]:
    parts, position = [], 0
    for span in spans:
        parts.append(MarkedWords(" ".join(words[position : span.start]), None, None))
        is_right = None if truth is None else span in truth
        parts.append(MarkedWords(" ".join(words[span.start : span.end]), span.type, is_right))
        position = span.end
    parts.append(MarkedWords(" ".join(words[position:]), None, None))
    return [part for part in parts if part.text]


def _sentences(
    kind: Kind,
    labels: Sequence[str],
    identifiers: list[str],
    texts: list[tuple[str, ...]],
    by_side: dict[str, list[int]],
) -> TaggedSentences | None:
    if not texts:
        return None
    arrays = {side: np.array(indices, np.int32) for side, indices in by_side.items()}
    return TaggedSentences(kind, tuple(labels), identifiers, texts, arrays.pop(_TRUTH), arrays)


def constant_taggers(sentences: TaggedSentences) -> list[str]:
    """Says which models find no entity at all."""
    outside = sentences.labels.index(OUTSIDE) if OUTSIDE in sentences.labels else None
    return [
        f"The {model} finds no entity in the {len(sentences.texts):,} dev sentences."
        for model, indices in sentences.by_model.items()
        if outside is not None and (indices == outside).all()
    ]
