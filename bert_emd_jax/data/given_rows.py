"""Rows that a program has in memory as the files of a task: lists, tables, a `datasets.Dataset`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import cache_directory, new_directory

_TEXT, _PAIR, _LABEL = "text", "text_pair", "label"
_WORDS, _TAGS = "tokens", "tags"


def written_splits(splits: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Writes splits that are given as objects, and returns the flags with which programs read them.

    The files are JSON lines in the cache, in a directory named after their content, so that the same rows are
    the same files: a run on them is resumed as any other.

    Args:
      splits: "train", "dev" and "test" → what `rows_of` takes, or None.
      flags: those of the program, which say the kind; `unlabelled` may be rows, too.

    Raises:
      UserError: no such object, or `data_dir` is given, too.
    """
    given = {split: value for split, value in splits.items() if value is not None}
    flags = _with_unlabelled_file(flags)
    if not given:
        return flags
    if flags.get("data_dir") is not None:
        raise UserError(f"data_dir and {', '.join(given)}: give files or objects, not both")
    if flags.get("task_name", "custom") != "custom":
        raise UserError(f"task_name {flags['task_name']}: rows that are given as objects are a custom task")
    is_of_words = flags.get("kind") == "token"
    rows = {split: rows_of(split, value, is_of_words=is_of_words) for split, value in given.items()}
    found: dict[str, Any] = {"data_dir": _written(rows), "task_name": "custom"}
    if any(_PAIR in row for of_split in rows.values() for row in of_split[:1]):
        found |= {"text_column": _TEXT, "text_pair_column": _PAIR}
    return found | flags


def _with_unlabelled_file(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags with a file in place of rows of `unlabelled`, whose texts have the names that flags give."""
    given = flags.get("unlabelled")
    if given is None or isinstance(given, str | PathLike):
        return dict(flags)
    names = {_TEXT: flags.get("text_column") or _TEXT, _PAIR: flags.get("text_pair_column") or _PAIR}
    rows = rows_of("unlabelled", given, is_of_words=flags.get("kind") == "token")
    named = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    return {**flags, "unlabelled": _written({"unlabelled": named}) / "unlabelled.jsonl"}


def _written(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Writes rows by split, and returns their directory."""
    contents = {split: _as_json_lines(of_split) for split, of_split in rows.items()}
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()
    directory = cache_directory() / f"rows-{digest[:32]}"
    with new_directory(directory) as written:
        if written is not None:
            for split, content in contents.items():
                (written / f"{split}.jsonl").write_text(content, encoding="utf-8")
    return directory


def rows_of(name: str, given: Any, *, is_of_words: bool = False) -> list[dict[str, Any]]:
    """Returns rows as objects of JSON.

    Args:
      name: what is given, for messages.
      given: (texts, labels), texts alone, a list of dictionaries, a pandas DataFrame or a `datasets.Dataset`.
        A text may be a pair, or with `is_of_words` a list of words.

    Raises:
      UserError: it is none of these, or texts and labels are not equally many.
    """
    if hasattr(given, "features") and hasattr(given, "column_names"):
        names = {column: _class_names(feature) for column, feature in given.features.items()}
        return [{key: _named(value, names[key]) for key, value in row.items()} for row in given]
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        known = given.astype(object).where(given.notna(), None)  # what is missing is NaN, NaT or NA there
        return known.to_dict("records")
    if isinstance(given, tuple) and len(given) == 2:
        texts, labels = (_listed(name, side) for side in given)
        if len(texts) != len(labels):
            raise UserError(f"{name}: {len(texts)} texts and {len(labels)} labels; give as many of each")
        label = _TAGS if is_of_words else _LABEL
        rows = [_text_row(name, number, text, is_of_words) for number, text in enumerate(texts)]
        return [row | {label: value} for row, value in zip(rows, labels, strict=True)]
    items = _listed(name, given)
    if items and all(isinstance(item, Mapping) for item in items):
        return [dict(item) for item in items]
    return [_text_row(name, number, item, is_of_words) for number, item in enumerate(items)]


def _listed(name: str, side: Any) -> list[Any]:
    if isinstance(side, str | bytes | Mapping) or not hasattr(side, "__iter__"):
        raise UserError(
            f"{name}: is {type(side).__name__}; give (texts, labels), a list of dictionaries, a DataFrame or"
            " a Dataset"
        )
    return list(side)


def _text_row(name: str, number: int, text: Any, is_of_words: bool) -> dict[str, Any]:
    if is_of_words and isinstance(text, Sequence) and not isinstance(text, str):
        return {_WORDS: list(text)}
    if isinstance(text, str) and not is_of_words:
        return {_TEXT: text}
    if isinstance(text, list | tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
        return {_TEXT: text[0], _PAIR: text[1]}
    wanted = "a list of words" if is_of_words else "a text or a pair of texts"
    hint = '; lists of words need kind="token"' if isinstance(text, list | tuple) and not is_of_words else ""
    raise UserError(f"{name}, row {number}: {str(text)[:40]!r} is {type(text).__name__}, not {wanted}{hint}")


def _as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, default=_plain) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    """A NumPy number or array as Python has it; what else JSON does not know as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _class_names(feature: Any) -> Sequence[str] | None:
    """The names of a `datasets.ClassLabel`, or of a sequence of them."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return getattr(inner, "names", None)


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if value >= 0 else ""
