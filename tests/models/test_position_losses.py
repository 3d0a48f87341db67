"""Losses of where an answer begins and ends, beside torch, whatever the padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.data.kinds import ANSWER
from bert_emd_jax.models.heads import OUTSIDE

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 3, 7, 2)).astype(np.float32)
LENGTHS = (7, 4, 5)
TRUTHS = np.array([[2, 6], [0, 0], [1, 3]], np.int32)


def padded(logits, length: int, filler: float):
    """Of a padded batch: rows have `filler` behind their ends."""
    result = np.full((3, length, 2), filler, np.float32)
    for row, tokens in enumerate(LENGTHS):
        result[row, :tokens] = logits[row, :tokens]
    return jnp.asarray(result)


@pytest.mark.parametrize("length", [7, 12])
@pytest.mark.parametrize("teachers_filler", [OUTSIDE, 0.0])  # kept outputs are padded with zeros
def test_they_are_those_of_torch_row_by_row(length, teachers_filler):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    student, teacher = padded(STUDENT, length, OUTSIDE), padded(TEACHER, length, teachers_filler)
    hard = ANSWER.hard_loss(student, jnp.asarray(TRUTHS))
    soft = ANSWER.soft_loss(student, teacher, 2.0)
    for row, tokens in enumerate(LENGTHS):
        ours, theirs = (torch.tensor(logits[row, :tokens]).T for logits in (STUDENT, TEACHER))
        expected = functional.cross_entropy(ours, torch.tensor(TRUTHS[row]).long())
        assert float(hard[row]) == pytest.approx(float(expected), rel=1e-5)
        expected = functional.cross_entropy(ours / 2, (theirs / 2).softmax(1)) * 4
        assert float(soft[row]) == pytest.approx(float(expected), rel=1e-5)
