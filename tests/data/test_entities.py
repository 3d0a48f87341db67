"""Entities in labels of words, against seqeval's reading of them."""

import numpy as np
import pytest

from bert_emd_jax.data.entities import Span, entities, entity_types

SCHEMES = {
    "BIO": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    "IOBES": ("O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_sequence_has_the_entities_of_conlleval(scheme):
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(2000):
        labels = rng.choice(SCHEMES[scheme], size=rng.integers(1, 9)).tolist()
        theirs = {Span(kind, start, end + 1) for kind, start, end in labeling.get_entities(labels)}
        assert set(entities(labels)) == theirs, labels
        found += len(theirs)
    assert found > 3000


def test_what_begins_and_what_goes_on():
    assert entities(["I-PER", "I-PER", "B-PER", "I-LOC", "O", "I-LOC"]) == [
        Span("PER", 0, 2),
        Span("PER", 2, 3),
        Span("LOC", 3, 4),
        Span("LOC", 5, 6),
    ]
    # The names of another scheme with the same four parts.
    assert entities(["B-A", "I-A", "L-A", "U-A"]) == entities(["B-A", "I-A", "E-A", "S-A"])
    assert entities([]) == []


def test_labels_that_mark_no_entities_stand_for_themselves():
    assert entities(["NOUN", "NOUN", "O", "X-ray"]) == [
        Span("NOUN", 0, 1),
        Span("NOUN", 1, 2),
        Span("X-ray", 3, 4),
    ]
    assert entity_types(["O", "VERB", "NOUN"]) == ("NOUN", "VERB")
    assert entity_types(["O", "B-PER", "I-PER", "B-art-work"]) == ("PER", "art-work")
