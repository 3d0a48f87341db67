"""Training rows with labels, and further ones without, of which a teacher alone says what to learn."""

import dataclasses

import numpy as np
from jaxtyping import Int

from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.models.batch import Batch


@dataclasses.dataclass(frozen=True)
class PartlyLabelled(EncodedDataset):
    """The rows of `labelled`, then those of `unlabelled`, whose labels stand for nothing.

    Batches say which rows have labels: `labelled` float32 [R], 1 for those, 0 for others and for fillers.
    """

    labelled: EncodedDataset
    unlabelled: EncodedDataset

    @classmethod
    def of(cls, labelled: EncodedDataset, unlabelled: EncodedDataset) -> "PartlyLabelled":
        parts = labelled, unlabelled
        return cls(
            token_ids=np.concatenate([part.token_ids for part in parts]),
            offsets=np.concatenate([labelled.offsets, labelled.offsets[-1] + unlabelled.offsets[1:]]),
            segment_a_lengths=np.concatenate([part.segment_a_lengths for part in parts]),
            labels=labelled.labels,  # of the first rows, which makes them part of hashes
            pad_id=labelled.pad_id,
            labelled=labelled,
            unlabelled=unlabelled,
        )

    def collate(
        self, rows: Int[np.ndarray, " rows"], length: int, rows_padded_to: int | None = None
    ) -> Batch:
        batch = super().collate(rows, length, rows_padded_to)
        labelled = np.zeros_like(batch["weights"])
        labelled[: len(rows)] = np.asarray(rows) < len(self.labelled)
        return {**batch, "labelled": labelled}

    def padded_labels(self, rows: Int[np.ndarray, " rows"], length: int, count: int) -> np.ndarray:
        first = len(self.labelled)
        known, others = np.flatnonzero(rows < first), np.flatnonzero(rows >= first)
        labels = self.labelled.padded_labels(rows[:0], length, count)  # those of fillers
        labels[known] = self.labelled.padded_labels(rows[known], length, len(known))
        # Of words, labels also say which tokens are learned from; other rows without labels have zeros.
        without = self.unlabelled.padded_labels(rows[others] - first, length, len(others))
        labels[others] = without if without.shape[1:] == labels.shape[1:] else 0
        return labels
