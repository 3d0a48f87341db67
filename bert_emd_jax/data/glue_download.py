"""A GLUE task from the Hugging Face hub, written as the files of GLUE's own download."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_emd_jax.data.task import SplitFile, Task, plain_name
from bert_emd_jax.data.tfds_source import split_names, text_features
from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.files import write_text
from bert_emd_jax.tables.parquet import parquet_rows

logger = logging.getLogger(__name__)

_REPOSITORY = "nyu-mll/glue"
_TIMEOUT = 20.0  # seconds to wait for the hub's first answer
_ADVICE = "fetch the task elsewhere and name its directory with --data_dir, or try --data_dir tfds"


def fetch_glue(task: Task, directory: Path) -> dict[str, int]:
    """Writes the files of every split of a task into a directory; returns split → rows.

    Raises:
      UserError: a file is there already, the hub is not reachable, or what it has is of another form.
    """
    files = {split: directory / file.name for split, file in task.splits.items()}
    if there := [path for path in files.values() if path.exists()]:
        raise UserError(f"{there[0]}: is there already; name another directory, or delete it")
    shards = _listed()
    counts: dict[str, int] = {}
    for split, theirs in split_names(task).items():
        pattern = re.compile(rf"{plain_name(task.name)}/{theirs}-\d+-of-\d+\.parquet")
        names = sorted(name for name in shards if pattern.fullmatch(name))
        if not names:
            raise UserError(f"{_REPOSITORY} on the hub has no {theirs} of {task.name} any more; {_ADVICE}")
        rows = [row for name in names for row in _rows(task, task.splits[split], _fetched(name))]
        lines = [*_head(task.splits[split]), *rows]
        directory.mkdir(parents=True, exist_ok=True)
        write_text(files[split], "".join("\t".join(line) + "\n" for line in lines))
        counts[split] = len(rows)
    return counts


def _listed() -> list[str]:
    """Returns the names of the repository's files."""
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(_REPOSITORY, timeout=_TIMEOUT)
    except Exception as error:  # the library's transports raise their own classes, which change with it
        raise UserError(f"the Hugging Face hub is not reachable ({one_line(error)}); {_ADVICE}") from None
    return [file.rfilename for file in info.siblings or ()]


def _fetched(name: str) -> Path:
    import huggingface_hub

    logger.info("fetching %s of %s", name, _REPOSITORY)
    try:
        return Path(huggingface_hub.hf_hub_download(_REPOSITORY, name, repo_type="dataset"))
    except Exception as error:  # as above
        raise UserError(
            f"{name} of {_REPOSITORY}: cannot be fetched ({one_line(error)}); try again"
        ) from None


def _head(file: SplitFile) -> list[list[str]]:
    """Returns the line that names the columns; none for a file that has no such line."""
    if file.columns is not None:
        return []
    return [[str(column) for column in _columns(file)]]


def _columns(file: SplitFile) -> list[Any]:
    """Returns the columns that are written, in their order."""
    columns = (file.identifier, file.text_a, file.text_b, *file.label_columns)
    return [column for column in columns if column is not None]


def _rows(task: Task, file: SplitFile, path: Path) -> Iterator[list[str]]:
    """Yields the cells of every row."""
    texts = text_features(task)
    for number, (index, label, *given) in parquet_rows(path, ["idx", "label", *texts]):
        cells = dict(zip((file.text_a, file.text_b), map(_one_line, given), strict=False))
        cells[file.identifier] = str(index)
        for column in file.label_columns:
            cells[column] = _label(task, label, path, number)
        if file.columns is None:
            yield [cells[column] for column in _columns(file)]
        else:
            yield [cells.get(column, "") for column in range(file.columns)]


def _label(task: Task, label: Any, path: Path, number: int) -> str:
    """Returns a label as GLUE's files spell it."""
    if task.labels is None:
        return f"{label:.3f}"
    index = task.label_index(str(label))
    if index is None:
        raise UserError(f"{path}: row {number}: {label!r} is not a label of {task.name}; {_ADVICE}")
    return str(task.labels[index])


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", text)
