"""Weights files mapped into memory: arrays are views of the file, and nothing is read before it is used."""

import mmap
from pathlib import Path

import ml_dtypes
import numpy as np

from bert_emd_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {
    name: np.dtype(name)
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
"""The types that tensors of a BERT file have."""

_POINTER = b"version https://git-lfs"


def map_file(path: Path) -> mmap.mmap:
    """Maps the bytes of a weights file, read-only.

    Arrays over it keep it open. They follow the file: it must not be overwritten in place while they live
    (replacing it by a rename is harmless).

    Raises:
      UserError: unreadable, empty, or the stand-in that git leaves for a large file.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError:
        raise UserError(f"{path}: the file is empty; fetch it again") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    if data[: len(_POINTER)] == _POINTER:
        raise UserError(f"{path}: only a git-lfs pointer, not the weights; run `git lfs pull` there")
    return data


def quoted(text: str) -> str:
    """Returns text from a file, fit for a one-line message."""
    return ascii(text[:80])


def forget_copied(data: mmap.mmap, start: int, size: int) -> None:
    """Lets the system drop the pages of bytes that have been copied, which would count as ours as well."""
    if hasattr(mmap, "MADV_DONTNEED"):
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, first, start + size - first)
