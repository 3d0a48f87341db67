"""The GLUE tasks from TensorFlow Datasets, read without TensorFlow."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.task import Task, plain_name
from bert_emd_jax.errors import UserError, one_line

logger = logging.getLogger(__name__)

_FEATURES = {
    "CoLA": ("sentence",),
    "SST-2": ("sentence",),
    "QQP": ("question1", "question2"),
    "MNLI": ("premise", "hypothesis"),
    "AX": ("premise", "hypothesis"),
    "QNLI": ("question", "sentence"),
}
_PAIR = ("sentence1", "sentence2")  # all other tasks
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_MNLI_SPLITS = {
    "train": "train",
    "dev": "validation_matched",
    "dev_mismatched": "validation_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}
_RANDOM_ACCESS = ("array_record", "parquet")
_ANY_PROTOBUF = "TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK"  # protobuf's own
_HOST = "https://dl.fbaipublicfiles.com"  # of most tasks


def tfds_splits(task: Task, data_dir: str | Path | None) -> list[str]:
    """Returns the splits of the task that the dataset has, by the names of this package."""
    present = _builder(task, data_dir).info.splits
    return [split for split, theirs in split_names(task).items() if theirs in present]


def read_tfds_split(task: Task, split: str, data_dir: str | Path | None) -> Examples:
    """Reads the examples of a split in the order of the original file.

    Args:
      data_dir: None is the library's default. A dataset that is missing there is downloaded.

    Raises:
      UserError: the dataset cannot be downloaded, is damaged, or has a format that needs TensorFlow.
    """
    builder = _builder(task, data_dir)
    path = Path(builder.data_dir)
    theirs = split_names(task).get(split)
    if theirs not in builder.info.splits:
        present = ", ".join(tfds_splits(task, data_dir))
        raise UserError(f"{path}: {task.name} has no {split} split here, only {present}")
    try:
        source = builder.as_data_source(theirs)
        rows = source.__getitems__(range(len(source)))
    except Exception as error:  # any of several libraries may raise it
        raise UserError(f"{path}: cannot be read ({one_line(error)}); prepare the dataset anew") from error
    if any(value is None for row in rows for value in row.values()):
        raise UserError(f"{path}: the {theirs} split is damaged; prepare the dataset anew")
    if not rows:
        raise UserError(f"{path}: no rows; the {split} split of {task.name} is empty")
    # The library stores rows shuffled; in the file's order a seed has the same effect as for files.
    rows.sort(key=lambda row: int(row["idx"]))
    texts = [[_text(path, row, feature) for row in rows] for feature in text_features(task)]
    return Examples(
        texts_a=texts[0],
        texts_b=texts[1] if task.pair else None,
        labels=_labels(task, path, builder.info.features["label"], rows, split),
        lines=np.array([row["idx"] for row in rows], np.int64),
        identifiers=[str(row["idx"]) for row in rows],
        path=path,
    )


def text_features(task: Task) -> tuple[str, ...]:
    """Returns the columns of a task's texts, here and on the Hugging Face hub."""
    return _FEATURES.get(task.name, _PAIR)


def split_names(task: Task) -> dict[str, str]:
    """Returns our name of a split → its name here and on the Hugging Face hub."""
    names = _MNLI_SPLITS if task.name == "MNLI" else _SPLITS
    return {split: names[split] for split in task.splits}


def library() -> Any:
    """Imports TensorFlow Datasets with its GLUE tasks.

    Also beside a protobuf that is older than the library's schemas, as in Colab, August 2026: they are simple
    enough for it, but protobuf refuses them by their version.
    """
    before = os.environ.get(_ANY_PROTOBUF)
    os.environ[_ANY_PROTOBUF] = "true"
    try:
        import tensorflow_datasets
        import tensorflow_datasets.text.glue
    finally:
        if before is None:
            del os.environ[_ANY_PROTOBUF]
        else:
            os.environ[_ANY_PROTOBUF] = before
    return tensorflow_datasets


def _builder(task: Task, data_dir: str | Path | None) -> Any:
    """Returns the library's builder of a dataset that is on disk."""
    tfds = library()
    name = f"glue/{plain_name(task.name)}"
    try:
        # Finds a prepared dataset of any version, but cannot prepare one.
        builder = tfds.builder(name, data_dir=data_dir)
        is_prepared = builder.is_prepared()
    except Exception as error:
        if not isinstance(error, tfds.core.DatasetNotFoundError):
            raise UserError(
                f"{data_dir}: {name} there is damaged ({one_line(error)}); prepare it anew"
            ) from error
        is_prepared = False
    if not is_prepared:
        return _prepared(name, data_dir)
    kinds = sorted(kind.value for kind in builder.info.available_file_formats())
    if not set(kinds) & set(_RANDOM_ACCESS):
        raise UserError(
            f"{builder.data_dir}: stored as {', '.join(kinds)}, which needs TensorFlow; where that is there,"
            " run tfds convert_format with --out_file_format=array_record"
        )
    return builder


def _prepared(name: str, data_dir: str | Path | None) -> Any:
    """Downloads and prepares a dataset."""
    import requests

    builder = library().builder(name, data_dir=data_dir, file_format="array_record")
    path = builder.data_dir
    logger.info("%s: not there; trying to download it", path)
    try:
        # Without a network the library itself would try for minutes.
        requests.head(getattr(builder.builder_config, "data_url", "") or _HOST, timeout=20)
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{path}: no such dataset, and it cannot be downloaded ({one_line(error)}); name the place of"
            " a prepared one with --tfds_data_dir, or the task's own files with --data_dir"
        ) from error
    return builder


def _text(path: Path, row: dict[str, Any], feature: str) -> str:
    value = row[feature]
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: row {row['idx']}: {feature!r} is not valid UTF-8; prepare the dataset anew"
        ) from None


def _labels(
    task: Task, path: Path, feature: Any, rows: Sequence[dict[str, Any]], split: str
) -> np.ndarray | None:
    """Returns values, or indices into the task's own labels, which the dataset orders differently."""
    if split.startswith("test"):
        return None  # -1 throughout
    if task.labels is None:
        values = np.array([row["label"] for row in rows], np.float32)
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: row {int(np.argmin(np.isfinite(values)))}: the label is not a finite number;"
                " prepare the dataset anew"
            )
        return values
    order = task.label_order(feature.names)
    if order is None:
        raise UserError(
            f"{path}: its labels {', '.join(feature.names)} are not those of {task.name};"
            " read the task's own files with --data_dir"
        )
    values = np.array([row["label"] for row in rows], np.int64)
    unknown = np.flatnonzero((values < 0) | (values >= len(order)))
    if len(unknown):
        raise UserError(
            f"{path}: row {rows[unknown[0]]['idx']}: unknown label {values[unknown[0]]};"
            " prepare the dataset anew"
        )
    return np.argsort(order)[values].astype(np.int32)
