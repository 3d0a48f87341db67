"""Tasks of the user's own files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.kinds import CLASSIFICATION, KINDS, TOKEN
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.data.task import SplitFile, Task
from bert_emd_jax.data.task_config import CustomTaskConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.parquet import class_names
from bert_emd_jax.tables.rows import TEXT_COLUMN, Column, column_names, read_rows

# The directories of a dataset on the Hugging Face Hub, and how it numbers the files of one split.
_SHARD_DIRECTORIES = (".", "data")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet")
_STEMS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}


def custom_task(
    directory: Path,
    config: CustomTaskConfig,
    model_kind: Kind | None = None,
    teacher_labels: Labels = None,
) -> Task:
    """Returns the task of a directory of files.

    Args:
      model_kind: that of a trained model, if there is one.
      teacher_labels: the labels if the training file has none.

    Raises:
      UserError: the files, or the flags, do not fit together.
    """
    kind = KINDS[config.given_kind] if config.given_kind else model_kind or CLASSIFICATION
    if model_kind not in (None, kind):
        raise UserError(f"--kind {kind.name}: the model is of kind {model_kind.name}; leave it out")
    _check_flags(config, kind)
    if not directory.is_dir():
        raise UserError(f"--data_dir {directory}: no such directory")
    splits: dict[str, SplitFile] = {}
    for split, stems in _STEMS.items():
        names = _find_files(directory, stems, kind.suffixes)
        if names:
            text, pair, label = kind.columns(directory / names[0], split, config)
            splits[split] = SplitFile(names[0], text, pair, label, more_names=tuple(names[1:]))
    if not splits:
        kinds = ", ".join(f"*{suffix}" for suffix in kind.suffixes)
        folders = [path for path in sorted(directory.iterdir()) if path.is_dir()]
        below = [path.name for path in folders if _has_train_file(path, kind.suffixes)]
        hint = f"; there is one in {', '.join(below[:5])} below it" if below else ""
        raise UserError(
            f"--data_dir {directory}: no train, dev (or validation) or test file among {kinds} here{hint}"
        )
    labels: Labels = None
    if kind.fewest_labels is not None:
        given = config.label_columns or config.labels
        names = given or _infer_labels(directory, splits, kind, config.label_separator, teacher_labels)
        labels = _check_labels(names, kind, kind.fewest_labels)
    metrics = kind.metrics_of(directory, splits)
    return Task("custom", labels, metrics, splits, kind=kind, label_separator=config.label_separator)


UNLABELLED = "unlabelled"
"""The split that a file of rows without labels is read as."""


def without_labels(task: Task, path: Path, config: CustomTaskConfig) -> Task:
    """Returns the task with a file of rows without labels as its only split, of whatever form.

    Those of GLUE have the columns of its training file, or its texts as `sentence`, `sentence1`, `sentence2`.

    Raises:
      UserError: a file of another kind, or one without such texts.
    """
    suffixes = (*task.kind.suffixes, ".txt") if task.kind.head == "classifier" else task.kind.suffixes
    if path.suffix not in suffixes:
        raise UserError(f"--unlabelled {path}: kind {task.kind.name} reads {', '.join(suffixes)}")
    if path.suffix == ".txt":
        text, pair = TEXT_COLUMN, None
    elif task.pair and task.name != "custom":
        text, pair = "sentence1", "sentence2"
    else:
        text, pair, _ = task.kind.columns(path, UNLABELLED, config)
    is_of_two = pair is not None
    if task.pair != is_of_two:
        wanted = "two texts: name the columns with --text_column and --text_pair_column" * task.pair
        raise UserError(f"--unlabelled {path}: a row of {task.name} has {wanted or 'one text'}")
    return replace(task, splits={UNLABELLED: SplitFile(path.name, text, pair)})


def _check_flags(config: CustomTaskConfig, kind: Kind) -> None:
    if config.labels and kind.fewest_labels is None:
        raise UserError(f"--labels: the labels of kind {kind.name} have no names; leave it out")
    if config.label_columns and not kind.has_column_per_label:
        having = ", ".join(one.name for one in KINDS.values() if one.has_column_per_label)
        raise UserError(f"--label_columns: not for kind {kind.name}; add --kind {having}, or leave it out")
    if config.label_separator != "," and not kind.has_column_per_label:
        raise UserError(f"--label_separator: a text of kind {kind.name} has one label; leave it out")
    if config.label_all_tokens and kind is not TOKEN:
        raise UserError(f"--label_all_tokens: not for kind {kind.name}; leave it out")
    if config.label_columns and config.labels:
        raise UserError("--labels and --label_columns: the columns are the labels; leave --labels out")


def _has_columns(path: Path, columns: Sequence[Column]) -> bool:
    """Whether a file has columns of labels; those of CoNLL are numbers."""
    names = column_names(path)
    return bool(columns) and all(isinstance(column, int) or column in names for column in columns)


def _has_train_file(directory: Path, suffixes: Sequence[str]) -> bool:
    return any((directory / f"train{suffix}").is_file() for suffix in suffixes)


def _find_files(directory: Path, stems: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Returns the names of a split's file, or of all its parquet files; [] if it has none."""
    found: list[list[Path]] = []
    for stem in stems:
        for folder in _SHARD_DIRECTORIES:
            here = suffixes if folder == "." else (".parquet",)
            paths = [directory / folder / f"{stem}{suffix}" for suffix in here]
            found += [[path] for path in paths if path.is_file()]
            candidates = sorted((directory / folder).glob(f"{stem}-*"))
            shards = [path for path in candidates if _SHARD.fullmatch(path.name.removeprefix(stem))]
            if shards:
                _check_shards(shards)
                found.append(shards)
    if len(found) > 1:
        raise UserError(
            f"{directory}: {found[0][0].name} and {found[1][0].name} are the same split; keep one of them"
        )
    return [str(path.relative_to(directory)) for path in found[0]] if found else []


def _check_shards(paths: Sequence[Path]) -> None:
    """Raises UserError if a file is missing."""
    numbers, totals = zip(*(map(int, re.findall(r"\d{5}", path.name)[-2:]) for path in paths), strict=True)
    if set(totals) != {len(paths)} or sorted(numbers) != list(range(len(paths))):
        raise UserError(
            f"{paths[0]}: {len(paths)} files of this split are here, their names speak of {max(totals)};"
            " complete them"
        )


def _check_labels(labels: Sequence[str], kind: Kind, fewest: int) -> tuple[str, ...]:
    if len(set(labels)) != len(labels) or len(labels) < fewest:
        many = "two or more" if fewest > 1 else "one or more"
        raise UserError(f"labels {','.join(labels)}: a {kind.name} task needs {many} different labels")
    return tuple(labels)


def _infer_labels(
    directory: Path,
    splits: Mapping[str, SplitFile],
    kind: Kind,
    separator: str,
    teacher_labels: Labels,
) -> tuple[str, ...]:
    """Returns the classes that the train file declares, else the labels that occur in it, sorted.

    They are sorted as numbers if all are integers. A file without labels has its teacher's.
    """
    if "train" not in splits:
        raise UserError(f"{directory}: no train file to take the labels from; name them with --labels")
    file = splits["train"]
    path = directory / file.name
    if teacher_labels and not _has_columns(path, file.label_columns):
        return teacher_labels
    if not file.label_columns:
        raise UserError(f"{path}: no column of labels; name one with --label_column")
    (column,) = file.label_columns
    if path.suffix == ".parquet" and (declared := class_names(path, str(column))) is not None:
        return declared
    paths = [directory / name for name in file.names]
    names: dict[str, str] = {}  # without case and spaces → as it is written first
    for path_of_part in paths:
        for line, cells in read_rows(path_of_part, [column]):
            label = LabelCells(path_of_part, line, (column,), tuple(cells))
            for name in kind.names(label, separator):
                names.setdefault("".join(name.split()).casefold(), name)
    names.pop("", None)  # an error, with its line, when the rows are read
    found = names.values()
    if all(re.fullmatch(r"-?[0-9]{1,100}", label) for label in found):
        ordered = sorted(found, key=int)
    else:
        ordered = sorted(found)
        if found and all(re.fullmatch(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", label) for label in found):
            raise UserError(
                f"{path}: the labels of {column!r} are fractions; ask for --kind regression, or name the "
                f"classes with --labels"
            )
    if len(ordered) < (kind.fewest_labels or 0):
        many = "two or more" if kind.fewest_labels != 1 else "one or more"
        raise UserError(
            f"{path}: {len(ordered)} different labels in {column!r}; a {kind.name} task needs {many}"
        )
    return tuple(ordered)
