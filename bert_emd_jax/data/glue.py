"""The GLUE tasks: one table of labels, metrics, files and columns."""

from collections.abc import Sequence

from bert_emd_jax.data.kinds import REGRESSION
from bert_emd_jax.data.task import SplitFile, Task


def _glue_splits(
    text_a: str, text_b: str | None, label: str, *, identifier: str = "index", suffixes: Sequence[str] = ("",)
) -> dict[str, SplitFile]:
    """Returns the usual GLUE files: headers name the columns, and test files have no labels."""
    splits = {"train": SplitFile("train.tsv", text_a, text_b, label)}
    for kind in ("dev", "test"):
        for suffix in suffixes:
            # The matched set is the default one.
            split = kind + suffix.removeprefix("_matched")
            known = label if kind == "dev" else None
            splits[split] = SplitFile(f"{kind}{suffix}.tsv", text_a, text_b, known, identifier)
    return splits


_BINARY = ("0", "1")
_ACCEPTABLE = (("unacceptable",), ("acceptable",))
_POSITIVE = (("negative",), ("positive",))
_EQUIVALENT = (("not_equivalent", "not_paraphrase"), ("equivalent", "paraphrase"))
_DUPLICATE = (("not_duplicate",), ("duplicate",))
_ENTAILED = (("not_entailment",), ("entailment",))
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")
_ACCURACY = ("accuracy",)
_CORRELATION = ("pearson_and_spearman", "pearson", "spearman")
_ACCURACY_AND_F1 = ("accuracy_and_f1", "accuracy", "f1")

GLUE_TASKS = (
    Task(
        "CoLA",
        _BINARY,
        ("matthews_correlation",),
        {
            "train": SplitFile("train.tsv", 3, label=1, columns=4),
            "dev": SplitFile("dev.tsv", 3, label=1, columns=4),
            "test": SplitFile("test.tsv", "sentence", identifier="index"),
        },
        _ACCEPTABLE,
    ),
    Task("SST-2", _BINARY, _ACCURACY, _glue_splits("sentence", None, "label"), _POSITIVE),
    Task("MRPC", _BINARY, _ACCURACY_AND_F1, _glue_splits("#1 String", "#2 String", "Quality"), _EQUIVALENT),
    Task("STS-B", None, _CORRELATION, _glue_splits("sentence1", "sentence2", "score"), kind=REGRESSION),
    Task(
        "QQP",
        _BINARY,
        _ACCURACY_AND_F1,
        _glue_splits("question1", "question2", "is_duplicate", identifier="id"),
        _DUPLICATE,
        skips_malformed_rows=True,  # the official files hold a few broken rows
    ),
    Task(
        "MNLI",
        _INFERENCE,
        _ACCURACY,
        _glue_splits("sentence1", "sentence2", "gold_label", suffixes=("_matched", "_mismatched")),
    ),
    Task("QNLI", _ENTAILMENT, _ACCURACY, _glue_splits("question", "sentence", "label")),
    Task("RTE", _ENTAILMENT, _ACCURACY, _glue_splits("sentence1", "sentence2", "label")),
    Task("WNLI", _BINARY, _ACCURACY, _glue_splits("sentence1", "sentence2", "label"), _ENTAILED),
    Task(
        "AX",
        _INFERENCE,
        ("matthews_correlation",),
        {"test": SplitFile("diagnostic.tsv", "sentence1", "sentence2", identifier="index")},
    ),
)
