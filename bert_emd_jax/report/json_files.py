"""Text and JSON of a run's files; what is damaged is named."""

import json
from pathlib import Path
from typing import Any

from bert_emd_jax.errors import UserError

_LARGEST = (1 << 63) - 1  # the largest int64


def read_text(path: Path) -> str:
    """Reads UTF-8. Raises UserError, naming the file, if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): restore it, or run again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads the JSON object of a file. Raises UserError, naming the file, if it holds none."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it, or run again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object: restore it, or run again")
    return content


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that NumPy can hold."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= _LARGEST)
