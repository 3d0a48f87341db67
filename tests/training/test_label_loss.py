"""Class weights and smoothed labels beside torch's cross-entropy."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.data.task import Task
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.label_loss import LabelLoss
from bert_emd_jax.training.training_config import LabelLossConfig

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 3)).astype(np.float32)
TRUTHS = np.array([0, 0, 0, 0, 0, 1, 1, 2], np.int32)


def loss_of(kind: str = "classification", **flags: Any) -> LabelLoss:
    rows = np.arange(len(TRUTHS))
    dataset = EncodedDataset(rows, np.arange(len(TRUTHS) + 1), rows, TRUTHS, 0)
    examples = Examples(["a"], None, TRUTHS, rows, ["0"], Path("rows"))
    task = Task("toy", ("a", "b", "c"), ("accuracy",), {}, kind=KINDS[kind])
    return LabelLoss(LabelLossConfig(**flags), TaskData(task, dataset, dataset, (1,), examples))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), ("1", "3.5", "0")])
def test_rows_are_those_of_torch(weights, smoothing):
    torch = pytest.importorskip("torch")
    given = torch.tensor([float(weight) for weight in weights]) if weights else None
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS),
        torch.tensor(TRUTHS).long(),
        weight=given,
        label_smoothing=smoothing,
        reduction="none",
    )
    ours = loss_of(class_weights=weights, label_smoothing=smoothing)(jnp.asarray(LOGITS), jnp.asarray(TRUTHS))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=TRUTHS)
    logits, truths = jnp.asarray(LOGITS), jnp.asarray(TRUTHS)
    plain, balanced = loss_of()(logits, truths), loss_of(class_weights="balanced")(logits, truths)
    np.testing.assert_allclose(balanced / plain, expected[TRUTHS], rtol=1e-5)


def test_tokens_without_a_label_are_read_as_any_other_and_weigh_nothing():
    loss = loss_of("token", class_weights="1,2,3", label_smoothing=0.1)
    truths = jnp.where(jnp.arange(8) % 2 == 0, TRUTHS, -100).reshape(2, 4)
    losses = loss(jnp.asarray(LOGITS).reshape(2, 4, 3), truths)
    assert losses.shape == (2, 4)
    assert bool(jnp.isfinite(losses).all())


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("classification", {"class_weights": "1,2"}, r"--class_weights 1,2: 2 weights for 3 labels, a, b, c"),
        ("classification", {"class_weights": "1,-2,3"}, r"'-2' is neither a number from 0 on nor balanced"),
        ("classification", {"class_weights": "fair"}, r"'fair' is neither a number from 0 on"),
        ("classification", {"label_smoothing": 1.0}, r"--label_smoothing 1.0: must be in \[0, 1\)"),
        ("multi_label", {"class_weights": "balanced"}, r"--class_weights: not for kind multi_label"),
        ("regression", {"label_smoothing": 0.1}, r"--label_smoothing: not for kind regression"),
    ],
)
def test_what_does_not_fit_is_refused(kind, flags, message):
    with pytest.raises(UserError, match=message):
        loss_of(kind, **flags)
