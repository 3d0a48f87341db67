"""Classifiers whose labels are in another order than the task's, as models of the Hugging Face Hub are."""

import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.data.label_matching import match_labels
from bert_emd_jax.data.task import Task
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError

NUMBERS = ("0", "1")


def custom(labels) -> Task:
    return Task("custom", labels, ("accuracy",), splits={})


@pytest.fixture
def model(tiny_model_dir):
    """`model(labels)` is a classifier with these names; with a number, one whose labels have no names."""

    def make(labels):
        count = labels if isinstance(labels, int) else len(labels)
        names = None if isinstance(labels, int) else tuple(labels)
        return load_model(
            tiny_model_dir(f"model{count}{names}", num_labels=count, id2label=names, num_hidden_layers=1)
        )

    return make


def logits_by_name(model, names=None) -> dict[str, np.ndarray]:
    """The classifier applied to some features, label by label."""
    features = np.random.default_rng(0).standard_normal((5, model.config.hidden_size))
    head = model.params["classifier"]
    logits = features @ head["kernel"] + head["bias"]
    return dict(zip(names or model.config.id2label, logits.T, strict=True))


MATCHING = {
    # The orders in which well-known MNLI models have their labels.
    "contradiction first": ("mnli", ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), (0, 2, 1)),
    "entailment first": ("mnli", ("entailment", "neutral", "contradiction"), (2, 0, 1)),
    "the task's own": ("mnli", ("Contradiction", "Entailment", "Neutral"), (0, 1, 2)),
    "ax": ("ax", ("entailment", "neutral", "contradiction"), (2, 0, 1)),
    "hyphen": ("qnli", ("not-entailment", "Entailment"), (1, 0)),
    "space": ("rte", ("Not Entailment", "ENTAILMENT"), (1, 0)),
    "sst-2": ("sst-2", ("POSITIVE", "NEGATIVE"), (1, 0)),
    "cola": ("cola", ("acceptable", "unacceptable"), (1, 0)),
    "mrpc": ("mrpc", ("equivalent", "not_equivalent"), (1, 0)),
    "qqp": ("qqp", ("duplicate", "not_duplicate"), (1, 0)),
    "wnli": ("wnli", ("entailment", "not_entailment"), (1, 0)),
    "numbers in another order": ("mrpc", ("1", "0"), (1, 0)),
    "names of the data": ("sst-2", ("negative", "positive"), (0, 1)),
}


@pytest.mark.parametrize("case", MATCHING)
def test_outputs_are_put_into_the_order_of_the_task(model, case, said):
    name, theirs, order = MATCHING[case]
    task = get_task(name)
    before = model(theirs)
    after = match_labels(before, task, "--teacher_model DIR")
    reordered = tuple(theirs[index] for index in order)
    assert after.config.id2label == (reordered if task.labels == NUMBERS else task.labels)
    ours, original = logits_by_name(after, reordered), logits_by_name(before)
    for label in theirs:
        np.testing.assert_array_equal(ours[label], original[label])
    assert after.params["bert"] is before.params["bert"]
    changed = order != tuple(range(len(order)))
    assert ("put into the order" in said.text) == changed
    if changed:
        assert ", ".join(theirs) in said.text
        assert match_labels(after, task, "again").config == after.config


def same_classifier(a, b) -> None:
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(a.params["classifier"][name], b.params["classifier"][name])


def test_labels_without_names_are_taken_in_order(model, said):
    unnamed = model(3)
    named = match_labels(unnamed, get_task("mnli"), "x")
    assert named.config.id2label == get_task("mnli").labels
    same_classifier(named, unnamed)
    assert "no names, they are taken as contradiction, entailment, neutral" in said.text
    numbered = model(("0", "1", "2"))
    same_classifier(match_labels(numbered, get_task("mnli"), "x"), numbered)
    assert "0, 1, 2 are taken as contradiction, entailment, neutral" in said.text
    strange = model(("different", "same"))
    with pytest.raises(
        UserError, match=r"different, same; those of QQP are 0 \(not_duplicate\).*labels_in_order"
    ):
        match_labels(strange, get_task("qqp"), "x")
    same_classifier(match_labels(strange, get_task("qqp"), "x", in_order=True), strange)
    assert "different, same are taken as 0, 1" in said.text
    said.clear()
    two = model(2)
    same_classifier(match_labels(two, custom(NUMBERS), "x"), two)
    assert "taken as" not in said.text


def test_custom_labels(model):
    stars = model(("bad", "good"))
    assert match_labels(stars, custom(("good", "bad")), "x").config.id2label == ("good", "bad")
    # A student of this teacher is evaluated on the same data: it has the data's spelling.
    loud = model(("BAD", "GOOD"))
    assert match_labels(loud, custom(("good", "bad")), "x").config.id2label == ("good", "bad")
    # Names that differ in case only are told apart where both sides write them alike.
    cases = model(("a", "A"))
    assert match_labels(cases, custom(("A", "a")), "x").config.id2label == ("A", "a")
    signs = model(("1", "-1"))
    assert match_labels(signs, custom(("-1", "1")), "x").config.id2label == ("-1", "1")


MISMATCHES = {
    "other names": (("mnli", ("yes", "no", "maybe")), "yes, no, maybe; those of MNLI are contradiction"),
    "one is strange": (("rte", ("entailment", "other")), "entailment, other; those of RTE are"),
    "twice the same": (("rte", ("entailment", "ENTAILMENT")), "those of RTE"),
    "of another task": (("mrpc", ("negative", "positive")), "negative, positive; those of MRPC are 0"),
    "count": (("mnli", ("entailment", "not_entailment")), "it has 2 labels, task MNLI has 3"),
    "regression": (("sts-b", ("low", "high")), "it has 2 labels, task STS-B has 1"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_what_does_not_match_is_shown(model, case):
    (name, theirs), message = MISMATCHES[case]
    with pytest.raises(UserError, match=message) as caught:
        match_labels(model(theirs), get_task(name), "--teacher_model DIR")
    assert str(caught.value).startswith("--teacher_model DIR: ")
    assert "\n" not in str(caught.value)


def test_a_regressor_has_no_order(model):
    named = model(("similarity",))
    assert match_labels(named, get_task("sts-b"), "x") is named
