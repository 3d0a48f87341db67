"""`layer_mapping.npz`: the transport plans, costs and layer weights of a distillation at its logged steps."""

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.errors import UserError
from bert_emd_jax.files import replacing
from bert_emd_jax.layout import LAYER_MAPPING

logger = logging.getLogger(__name__)

COST_KINDS = ("attention", "hidden")
"""What plans are usually made for: attention scores, hidden states."""


@dataclass(frozen=True)
class LayerMapping:
    """The content of `layer_mapping.npz`; `flow`, `cost` and weights by the cost kinds that the run used.

    An array that the file does not have is a missing key.
    """

    steps: Int[np.ndarray, " steps"]
    flow: dict[str, Float[np.ndarray, "steps S T"]]
    cost: dict[str, Float[np.ndarray, "steps S T"]]
    student_weights: dict[str, Float[np.ndarray, "steps S"]]
    teacher_weights: dict[str, Float[np.ndarray, "steps T"]]


class LayerMappingWriter:
    """Collects plans and costs step by step for `layer_mapping.npz`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LAYER_MAPPING
        self._rows: dict[str, list[np.ndarray]] = {}

    def resume(self, resume_step: int) -> None:
        """Takes over the rows up to `resume_step`; later ones belong to steps that will be run again."""
        if not resume_step or not self._path.is_file():
            return
        try:
            stored = _arrays(self._path)
            keep = stored["steps"] <= resume_step
            self._rows = {name: list(array[keep]) for name, array in stored.items()}
        except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
            logger.warning(
                "%s: damaged (%s); the mapping before step %d is lost", self._path, error, resume_step
            )

    def add(
        self,
        step: int,
        flow: Mapping[str, Float[np.ndarray, "S T"]],
        cost: Mapping[str, Float[np.ndarray, "S T"]],
    ) -> None:
        """Adds the plans and costs of a step by cost kind; the layer weights are the plans' marginals."""
        row: dict[str, np.ndarray | np.int64] = {"steps": np.int64(step)}
        for kind, plan in flow.items():
            row[f"{kind}_flow"] = plan
            row[f"{kind}_cost"] = cost[kind]
            row[f"{kind}_student_weights"] = plan.sum(axis=1)
            row[f"{kind}_teacher_weights"] = plan.sum(axis=0)
        for name, value in row.items():
            self._rows.setdefault(name, []).append(np.asarray(value))

    def write(self) -> None:
        """Writes the file anew, if there is anything to write."""
        if not self._rows:
            return
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.stack(rows) for name, rows in self._rows.items()})  # pyright: ignore


def read_mapping(path: Path) -> LayerMapping:
    """Reads `layer_mapping.npz`; of a step that is there twice, the last entry.

    Raises:
      UserError: the file is damaged; the message names it.
    """
    try:
        arrays = _arrays(path)
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for damaged bytes
        raise UserError(f"{path} is not a readable npz file ({error}): restore it, or run again") from error
    if "steps" not in arrays or arrays["steps"].ndim != 1 or arrays["steps"].dtype.kind not in "iu":
        raise UserError(f"{path}: expected an array of integers steps [moments]: restore it, or run again")
    count = len(arrays["steps"])
    students, teachers = _layer_counts(path, arrays)
    shapes = {
        "flow": (count, students, teachers),
        "cost": (count, students, teachers),
        "student_weights": (count, students),
        "teacher_weights": (count, teachers),
    }
    found: dict[str, dict[str, np.ndarray]] = {part: {} for part in shapes}
    steps, from_the_end = np.unique(arrays["steps"][::-1], return_index=True)
    last_entries = count - 1 - from_the_end
    for kind in _kinds(arrays):
        for part, shape in shapes.items():
            name = f"{kind}_{part}"
            if (array := arrays.get(name)) is None:
                continue
            if array.shape != shape or array.dtype.kind not in "fiu":
                raise UserError(
                    f"{path}: {name} is {array.dtype} of shape {array.shape}, expected numbers of shape "
                    f"{shape}: restore it, or run again"
                )
            found[part][kind] = array[last_entries].astype(np.float64)
    return LayerMapping(steps=steps.astype(np.int64), **found)


def entropy(flow: Float[np.ndarray, "steps S T"]) -> Float[np.ndarray, " steps"]:
    """Returns the entropy of each plan in nats, `-Σ F log F`."""
    positive = np.where(flow > 0, flow, 1.0)
    return -np.sum(np.where(flow > 0, flow, 0.0) * np.log(positive), axis=(1, 2))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile("not a zip archive")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _kinds(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The cost kinds of a file, the usual ones first."""
    others = [name.removesuffix("_flow") for name in arrays if name.endswith("_flow")]
    return list(dict.fromkeys([*COST_KINDS, *others]))


def _layer_counts(path: Path, arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    for kind in _kinds(arrays):
        for part in ("flow", "cost"):
            array = arrays.get(f"{kind}_{part}")
            if array is not None and array.ndim == 3 and 0 not in array.shape[1:]:
                return array.shape[1], array.shape[2]
    raise UserError(
        f"{path}: expected attention_flow or hidden_flow of shape [moments, student layers, teacher layers]: "
        "restore it, or run again"
    )
