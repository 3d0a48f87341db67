"""The transport plans and layer weights that a distillation run recorded over time."""

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_emd_jax.errors import UserError

logger = logging.getLogger(__name__)

SIDES = ("attention", "hidden")


@dataclass(frozen=True)
class Mapping:
    """`layer_mapping.npz`; for each side ("attention", "hidden") that the run used:

    `flow` and `cost` [moments, student layers, teacher layers], `student_weights` [moments, student layers],
    `teacher_weights` [moments, teacher layers]. A missing array is a missing key.
    """

    steps: np.ndarray
    flow: dict[str, np.ndarray]
    cost: dict[str, np.ndarray]
    student_weights: dict[str, np.ndarray]
    teacher_weights: dict[str, np.ndarray]


def read_mapping(path: Path) -> Mapping:
    """Reads `layer_mapping.npz`. Raises UserError, naming the file, where it is damaged."""
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
        raise UserError(f"{path} is not a readable npz file ({error}): restore it, or run again") from error
    if "steps" not in arrays or arrays["steps"].ndim != 1 or arrays["steps"].dtype.kind not in "iu":
        raise UserError(f"{path}: expected an array of integers steps [moments]: restore it, or run again")
    sizes = _layer_counts(path, arrays)
    expected = {
        "flow": (len(arrays["steps"]), *sizes),
        "cost": (len(arrays["steps"]), *sizes),
        "student_weights": (len(arrays["steps"]), sizes[0]),
        "teacher_weights": (len(arrays["steps"]), sizes[1]),
    }
    found: dict[str, dict[str, np.ndarray]] = {part: {} for part in expected}
    # The last entry of a repeated step counts, as in metrics.jsonl; np.unique finds the first one.
    steps, from_the_end = np.unique(arrays["steps"][::-1], return_index=True)
    kept = len(arrays["steps"]) - 1 - from_the_end
    for side in SIDES:
        for part, shape in expected.items():
            name = f"{side}_{part}"
            array = arrays.get(name)
            if array is None:
                continue
            if array.shape != shape or array.dtype.kind not in "fiu":
                raise UserError(
                    f"{path}: {name} is {array.dtype} of shape {array.shape}, expected numbers of shape "
                    f"{shape}: restore it, or run again"
                )
            found[part][side] = array[kept].astype(np.float64)
    return Mapping(steps=steps.astype(np.int64), **found)


def _layer_counts(path: Path, arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    for side in SIDES:
        for part in ("flow", "cost"):
            array = arrays.get(f"{side}_{part}")
            if array is not None and array.ndim == 3 and 0 not in array.shape[1:]:
                return array.shape[1], array.shape[2]
    raise UserError(
        f"{path}: expected attention_flow or hidden_flow of shape [moments, student layers, teacher layers]: "
        "restore it, or run again"
    )


def entropy(flow: np.ndarray) -> np.ndarray:
    """The entropy in nats, `-Σ F log F`, of each plan in `flow` [moments, student layers, teacher layers]."""
    positive = np.where(flow > 0, flow, 1.0)
    return -np.sum(np.where(flow > 0, flow, 0.0) * np.log(positive), axis=(1, 2))


class MappingHistory:
    """Plans, costs and layer weights over time, for `layer_mapping.npz`: every array is [rows, …]."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "layer_mapping.npz"
        self._rows: dict[str, list[np.ndarray]] = {}

    def resume(self, resume_step: int) -> None:
        """Takes over the rows up to `resume_step`; later ones belong to steps that will be run again."""
        if not resume_step or not self._path.is_file():
            return
        try:
            with np.load(self._path) as stored:
                keep = stored["steps"] <= resume_step
                self._rows = {name: list(stored[name][keep]) for name in stored.files}
        except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
            logger.warning(
                "%s: damaged (%s); the mapping before step %d is lost", self._path, error, resume_step
            )

    def add(self, step: int, names, flow, cost) -> None:
        arrays = {"steps": np.int64(step)}
        for name, f, c in zip(names, flow, cost, strict=True):
            arrays |= {
                f"{name}_flow": f,
                f"{name}_cost": c,
                f"{name}_student_weights": f.sum(axis=1),
                f"{name}_teacher_weights": f.sum(axis=0),
            }
        for name, value in arrays.items():
            self._rows.setdefault(name, []).append(np.asarray(value))

    def write(self) -> None:
        """Writes the file anew (aside, then renamed), in the main process."""
        if not self._rows:
            return
        aside = self._path.with_name(f".{self._path.name}.writing.npz")
        np.savez(aside, **{name: np.stack(rows) for name, rows in self._rows.items()})  # pyright: ignore
        aside.replace(self._path)
