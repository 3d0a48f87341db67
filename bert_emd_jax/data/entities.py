"""Entities in the labels of a sentence's words, as B-X I-X or S-X B-X I-X E-X mark them."""

from collections.abc import Sequence
from typing import NamedTuple

OUTSIDE = "O"
# By the prefix: which part of an entity a word is. L and U are the E and S of other schemes.
_PARTS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}


class Span(NamedTuple):
    """An entity: its type, and its words from `start` up to but without `end`."""

    type: str
    start: int
    end: int


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """Returns the types of entities that labels mark, sorted; of labels that mark none, all but "O"."""
    return tuple(sorted({kind for label in labels if (kind := _split(label)[1])}))


def entities(labels: Sequence[str]) -> list[Span]:
    """Returns the entities of a sentence, by the rule of conlleval, the CoNLL shared tasks' program.

    An entity goes on as long as its words have its type and none begins another one or follows its end, so
    that I-X without a B-X before it begins one too. A label without such a prefix is an entity of one word.
    """
    found: list[Span] = []
    start, before, type_before = 0, "O", ""
    for position, label in enumerate([*labels, OUTSIDE]):
        part, kind = _split(label)
        goes_on = part in "IE" and kind == type_before and before in "BI"
        if before != OUTSIDE and not goes_on:
            found.append(Span(type_before, start, position))
        if not goes_on:
            start = position
        before, type_before = part, kind
    return found


def _split(label: str) -> tuple[str, str]:
    """Returns the part of an entity that a label stands for, "O" for none, and the entity's type."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = label.partition("-")
    return (_PARTS[prefix], kind) if dash and prefix in _PARTS else ("S", label)
