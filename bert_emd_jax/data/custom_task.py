"""Tasks of the user's own files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bert_emd_jax.data.parquet import class_names
from bert_emd_jax.data.rows import column_names, label_cell, read_rows
from bert_emd_jax.data.task import SplitFile, Task
from bert_emd_jax.errors import UserError

_SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")
# The directories of a dataset on the Hugging Face Hub, and how it numbers the files of one split.
_SHARD_DIRECTORIES = (".", "data")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet")
_STEMS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}


def custom_task(
    directory: Path,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str,
    labels: Sequence[str] | None,
    regression: bool,
) -> Task:
    """Returns the task of a directory of files. Raises UserError if they do not fit together."""
    if not directory.is_dir():
        raise UserError(f"--data_dir {directory}: no such directory")
    splits: dict[str, SplitFile] = {}
    for split, stems in _STEMS.items():
        names = _find_files(directory, stems)
        if names:
            column = text_column or _guess_text_column(directory / names[0])
            splits[split] = SplitFile(
                names[0], column, text_pair_column, label_column, more_names=tuple(names[1:])
            )
    if not splits:
        kinds = ", ".join(f"*{suffix}" for suffix in _SUFFIXES)
        below = [path.name for path in sorted(directory.iterdir()) if path.is_dir() and _has_train_file(path)]
        hint = f"; there is one in {', '.join(below[:5])} below it" if below else ""
        raise UserError(
            f"--data_dir {directory}: no train, dev (or validation) or test file among {kinds} here{hint}"
        )
    if not regression:
        names = _check_labels(labels) if labels else _infer_labels(directory, splits)
        return Task("custom", names, ("accuracy",), splits)
    if labels:
        raise UserError("a regression task has no labels: give either --labels or --regression")
    return Task("custom", None, ("pearson_and_spearman", "pearson", "spearman"), splits)


def _has_train_file(directory: Path) -> bool:
    return any((directory / f"train{suffix}").is_file() for suffix in _SUFFIXES)


def _find_files(directory: Path, stems: Sequence[str]) -> list[str]:
    """Returns the names of a split's file, or of all its parquet files; [] if it has none."""
    found: list[list[Path]] = []
    for stem in stems:
        for folder in _SHARD_DIRECTORIES:
            suffixes = _SUFFIXES if folder == "." else (".parquet",)
            paths = [directory / folder / f"{stem}{suffix}" for suffix in suffixes]
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
    """Returns the classes that the train file declares, else the labels that occur in it, sorted.

    They are sorted as numbers if all are integers.
    """
    if "train" not in splits:
        raise UserError(f"{directory}: no train file to take the labels from; name them with --labels")
    file = splits["train"]
    path, column = directory / file.name, str(file.label)
    if path.suffix == ".parquet" and (declared := class_names(path, column)) is not None:
        return _check_labels(declared)
    paths = [directory / name for name in file.names]
    names: dict[str, str] = {}  # without case and spaces → as it is written first
    for path_of_part in paths:
        for line, cells in read_rows(path_of_part, [column]):
            name = label_cell(path_of_part, line, column, cells[0])
            names.setdefault("".join(name.split()).casefold(), name)
    names.pop("", None)  # an error, with its line, when the rows are read
    found = names.values()
    if all(re.fullmatch(r"-?[0-9]{1,100}", label) for label in found):
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
