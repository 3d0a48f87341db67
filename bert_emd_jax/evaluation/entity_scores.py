"""Counts of the entities in sentences, those of the truth and those that are predicted."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bert_emd_jax.data.entities import Span, entities
from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.evaluation.metrics import Counts, ScoredCounts


def scored_entities(
    kind: Kind,
    labels: Labels,
    answers: Int[np.ndarray, " words"],
    truths: Int[np.ndarray, " words"],
    starts: Int[np.ndarray, " sentences+1"],
) -> ScoredCounts:
    """Returns counts of entities by type and of words, sentence by sentence.

    An entity is right if its type and its words are those of the truth.

    Args:
      starts: the number of every sentence's first word, and that of words.
    """
    assert labels is not None
    types = {name: number for number, name in enumerate(kind.scored_names(labels))}
    sentences = len(starts) - 1
    true, predicted, both = (np.zeros((sentences, len(types))) for _ in range(3))
    for row, (first, last) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        known, said = (set(named_entities(side[first:last], labels)) for side in (truths, answers))
        for spans, counts in ((known, true), (said, predicted), (known & said, both)):
            for span in spans:
                counts[row, types[span.type]] += 1
    right = np.add.reduceat((answers == truths).astype(float), starts[:-1])
    return ScoredCounts(kind, Counts(np.diff(starts).astype(float), right, true, predicted, both))


def named_entities(indices: Sequence[int] | Int[np.ndarray, " words"], labels: tuple[str, ...]) -> list[Span]:
    """Returns the entities of a sentence whose labels are given by their indices."""
    return entities([labels[index] for index in indices])
