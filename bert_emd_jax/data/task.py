"""A task: its kind, labels, metrics, and the files and columns of its splits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.kinds import CLASSIFICATION
from bert_emd_jax.errors import UserError, did_you_mean
from bert_emd_jax.tables.rows import Column, plain_number

TFDS = "tfds"
"""A `data_dir` of this name stands for TensorFlow Datasets."""


@dataclass(frozen=True)
class SplitFile:
    """The file of a split and its columns; `columns` is their number in a file without header.

    `label` is the column of the label, or one for each. `more_names` are the further files of a split that is
    stored in several.
    """

    name: str
    text_a: Column
    text_b: Column | None = None
    label: Column | tuple[Column, ...] | None = None
    identifier: Column | None = None
    columns: int | None = None
    more_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.more_names)

    @property
    def label_columns(self) -> tuple[Column, ...]:
        if self.label is None:
            return ()
        return self.label if isinstance(self.label, tuple) else (self.label,)


@dataclass(frozen=True)
class Task:
    """A task on sentences or pairs.

    Attributes:
      labels: in the order of the classifier's outputs; None if labels are numbers.
      metrics: the scores of its models; the first chooses the best step.
      label_names: for every label, its names in models and other editions of the data.
      label_separator: between the labels in a cell.
    """

    name: str
    labels: Labels
    metrics: tuple[str, ...]
    splits: Mapping[str, SplitFile]
    label_names: tuple[tuple[str, ...], ...] = ()
    skips_malformed_rows: bool = False
    kind: Kind = CLASSIFICATION
    label_separator: str = ","

    @property
    def pair(self) -> bool:
        """Whether examples have two texts."""
        return any(file.text_b is not None for file in self.splits.values())

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier."""
        return self.kind.outputs(self.labels)

    @property
    def primary_metric(self) -> str:
        return self.metrics[0]

    def with_metric(self, name: str) -> "Task":
        """Returns the task with a score that chooses the best step.

        Raises:
          UserError: it is none of the kind's, or of no label.
        """
        of_label = [
            f"{metric}_{label}"
            for metric in self.kind.label_metrics
            for label in self.kind.scored_names(self.labels)
        ]
        whole = dict.fromkeys((*self.metrics, *self.kind.metrics))
        known = (*whole, *of_label)
        if name not in known:
            listed = ", ".join((*whole, *(f"{metric}_LABEL" for metric in self.kind.label_metrics)))
            hint = did_you_mean(name, known)
            raise UserError(f"--metric {name}: no score of {self.name}, which has {listed}{hint}")
        return replace(self, metrics=tuple(dict.fromkeys((name, *self.metrics))))

    def label_index(self, name: str) -> int | None:
        """Returns the index of a label by its name, or by another spelling of it; None if there is none."""
        if name in (self.labels or ()):
            return (self.labels or ()).index(name)
        return self.index_by_name.get(plain_name(name))

    @cached_property
    def index_by_name(self) -> dict[str, int]:
        """The label index of every plain name that belongs to exactly one label."""
        known: dict[str, set[int]] = {}
        for index, label in enumerate(self.labels or ()):
            for name in (label, *(self.label_names[index] if self.label_names else ())):
                known.setdefault(plain_name(name), set()).add(index)
        return {name: indices.pop() for name, indices in known.items() if len(indices) == 1}

    def label_order(self, theirs: Sequence[str]) -> tuple[int, ...] | None:
        """Returns the index of each of the task's labels among `theirs`; None if they do not match.

        Case, spaces, hyphens and underscores do not matter.
        """
        ours = self.labels or ()
        if sorted(theirs) == sorted(ours):
            return tuple(list(theirs).index(label) for label in ours)
        indices = [self.index_by_name.get(plain_name(name), -1) for name in theirs]
        if sorted(indices) != list(range(len(ours))):
            return None
        return tuple(indices.index(index) for index in range(len(ours)))


def plain_name(name: str) -> str:
    """Returns a name without case, spaces, hyphens and underscores, and a whole number without decoration."""
    # Keeps the minus of a number.
    return re.sub(r"(?!^-\d)[-_\s]", "", plain_number(name.strip())).casefold()


def augmented(file: SplitFile) -> SplitFile:
    """Returns the augmented train file, which has the train file's format and columns."""
    path = Path(file.name)
    if file.more_names or path.suffix == ".parquet":
        raise UserError(
            f"{path}: augmented rows stand beside a .tsv, .csv or .jsonl file, not beside .parquet"
        )
    return replace(file, name=f"{path.stem}_aug{path.suffix}")
