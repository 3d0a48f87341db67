"""The tasks: labels, metrics, and where each split keeps its columns. GLUE is one table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bert_emd_jax.data.rows import Column, collect_cells, column_names, label_cell
from bert_emd_jax.errors import UserError

CUSTOM_SUFFIXES = (".tsv", ".csv", ".jsonl")


@dataclass(frozen=True)
class SplitFile:
    """One split's file and columns: names of the header, or indices into `columns` columns without header."""

    name: str
    text_a: Column
    text_b: Column | None = None
    label: Column | None = None
    identifier: Column | None = None
    columns: int | None = None


@dataclass(frozen=True)
class Task:
    """A task on sentences or pairs. `labels` None means regression; the first metric is the primary one."""

    name: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    pair: bool
    splits: Mapping[str, SplitFile]
    skips_malformed_rows: bool = False

    @property
    def is_regression(self) -> bool:
        return self.labels is None

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier: one for regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """The splits that an evaluation covers: two for MNLI, else one."""
        return tuple(split for split in self.splits if split.startswith("dev"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.splits if split.startswith("test"))


def _glue_splits(
    text_a: str, text_b: str | None, label: str, *, identifier: str = "index", suffixes: Sequence[str] = ("",)
) -> dict[str, SplitFile]:
    """The usual GLUE files: headers name the columns and test files have no labels."""
    splits = {"train": SplitFile("train.tsv", text_a, text_b, label)}
    for kind in ("dev", "test"):
        for suffix in suffixes:
            # The matched set is the one that is meant where nothing is said.
            split = kind + suffix.removeprefix("_matched")
            known = label if kind == "dev" else None
            splits[split] = SplitFile(f"{kind}{suffix}.tsv", text_a, text_b, known, identifier)
    return splits


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")
_ACCURACY = ("accuracy",)
_ACCURACY_AND_F1 = ("accuracy_and_f1", "accuracy", "f1")

_GLUE = (
    Task(
        "CoLA",
        _BINARY,
        ("matthews_correlation",),
        pair=False,
        splits={
            "train": SplitFile("train.tsv", 3, label=1, columns=4),
            "dev": SplitFile("dev.tsv", 3, label=1, columns=4),
            "test": SplitFile("test.tsv", "sentence", identifier="index"),
        },
    ),
    Task("SST-2", _BINARY, _ACCURACY, pair=False, splits=_glue_splits("sentence", None, "label")),
    Task(
        "MRPC", _BINARY, _ACCURACY_AND_F1, pair=True, splits=_glue_splits("#1 String", "#2 String", "Quality")
    ),
    Task(
        "STS-B",
        None,
        ("pearson_and_spearman", "pearson", "spearman"),
        pair=True,
        splits=_glue_splits("sentence1", "sentence2", "score"),
    ),
    Task(
        "QQP",
        _BINARY,
        _ACCURACY_AND_F1,
        pair=True,
        splits=_glue_splits("question1", "question2", "is_duplicate", identifier="id"),
        skips_malformed_rows=True,  # the official files hold a few broken rows
    ),
    Task(
        "MNLI",
        _INFERENCE,
        _ACCURACY,
        pair=True,
        splits=_glue_splits("sentence1", "sentence2", "gold_label", suffixes=("_matched", "_mismatched")),
    ),
    Task("QNLI", _ENTAILMENT, _ACCURACY, pair=True, splits=_glue_splits("question", "sentence", "label")),
    Task("RTE", _ENTAILMENT, _ACCURACY, pair=True, splits=_glue_splits("sentence1", "sentence2", "label")),
    Task("WNLI", _BINARY, _ACCURACY, pair=True, splits=_glue_splits("sentence1", "sentence2", "label")),
    Task(
        "AX",
        _INFERENCE,
        ("matthews_correlation",),
        pair=True,
        splits={"test": SplitFile("diagnostic.tsv", "sentence1", "sentence2", identifier="index")},
    ),
)
TASK_NAMES = (*(task.name for task in _GLUE), "custom")


def get_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str = "label",
    labels: Sequence[str] | None = None,
    regression: bool = False,
) -> Task:
    """The task of a name in any case, with or without hyphens; the other arguments describe `custom`.

    A custom task looks into `data_dir` for its files, and into the train file for its labels where
    none are given. Raises UserError for an unknown name or a directory that does not fit.
    """
    wanted = _plain(name)
    for task in _GLUE:
        if _plain(task.name) == wanted:
            return task
    if wanted != "custom":
        raise UserError(f"--task_name {name}: no such task; it is one of {', '.join(TASK_NAMES)}")
    if data_dir is None:
        raise UserError("--task_name custom: name the directory of its files with --data_dir")
    return _custom_task(Path(data_dir), text_column, text_pair_column, label_column, labels, regression)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()


def _custom_task(
    directory: Path,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str,
    labels: Sequence[str] | None,
    regression: bool,
) -> Task:
    if not directory.is_dir():
        raise UserError(f"--data_dir {directory}: no such directory")
    stems = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}
    splits: dict[str, SplitFile] = {}
    for split, names in stems.items():
        path = _find_file(directory, names)
        if path is None:
            continue
        column = text_column or _guess_text_column(path)
        splits[split] = SplitFile(path.name, column, text_pair_column, label_column)
    if not splits:
        kinds = ", ".join(f"*{suffix}" for suffix in CUSTOM_SUFFIXES)
        raise UserError(
            f"--data_dir {directory}: no train, dev (or validation) or test file among {kinds} here"
        )
    if regression:
        if labels:
            raise UserError("a regression task has no labels: give either the labels or the regression flag")
        metrics, names = ("pearson_and_spearman", "pearson", "spearman"), None
    else:
        metrics, names = _ACCURACY, _check_labels(labels) if labels else _infer_labels(directory, splits)
    return Task("custom", names, metrics, text_pair_column is not None, splits)


def _find_file(directory: Path, stems: Sequence[str]) -> Path | None:
    paths = [directory / (stem + suffix) for stem in stems for suffix in CUSTOM_SUFFIXES]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise UserError(
            f"{directory}: {found[0].name} and {found[1].name} are the same split; keep one of them"
        )
    return found[0] if found else None


def _guess_text_column(path: Path) -> str:
    names = column_names(path)
    for name in ("text", "sentence"):
        if name in names:
            return name
    raise UserError(f"{path}:1: no column 'text' or 'sentence'; name the column with --text_column")


def _check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UserError(
            f"labels {','.join(labels)}: a classification task needs two or more different labels"
        )
    return tuple(labels)


def _infer_labels(directory: Path, splits: Mapping[str, SplitFile]) -> tuple[str, ...]:
    """The labels of the train file, sorted: as numbers where all are integers."""
    if "train" not in splits:
        raise UserError(f"{directory}: no train file to take the labels from; name them with --labels")
    path, column = directory / splits["train"].name, splits["train"].label
    assert column is not None
    found = set(collect_cells(path, column, label_cell)) - {
        ""
    }  # empty labels are refused with their line later
    if all(re.fullmatch(r"[+-]?\d+", label) for label in found):
        ordered = sorted(found, key=int)
    else:
        ordered = sorted(found)
        if all(re.fullmatch(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", label) for label in found):
            raise UserError(
                f"{path}: the labels of {column!r} are fractions; ask for --regression, or name the "
                f"classes with --labels"
            )
    if len(ordered) < 2:
        raise UserError(
            f"{path}: {len(ordered)} different labels in {column!r}; a classification task needs two or more"
        )
    return tuple(ordered)


def augmented(file: SplitFile) -> SplitFile:
    """The augmented train file: same form and columns as the train file."""
    path = Path(file.name)
    return replace(file, name=f"{path.stem}_aug{path.suffix}")
