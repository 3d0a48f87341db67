"""Whether a run keeps its teacher's outputs, and where: in memory, on its devices or in files."""

import contextlib
import dataclasses
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.devices.device_needs import device_memory
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.layer_losses import reads
from bert_emd_jax.distillation.outputs_on_devices import OutputsOnDevices, Tables, outputs_from_tables
from bert_emd_jax.distillation.teacher_outputs import KINDS, TeacherOutputs, given_output
from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import flops_per_sentence
from bert_emd_jax.files import cache_directory
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.heads import ModelOutput
from bert_emd_jax.training.kept_logits import outputs_hash
from bert_emd_jax.training.row_source import RowSource

logger = logging.getLogger(__name__)

# What "auto" takes at most of the machine's memory, of a device's, and of the room left on the disk.
_SHARE_OF_MEMORY = 1 / 8
_SHARE_OF_DEVICE = 1 / 4
_SHARE_OF_DISK = 1 / 4
# The cache brings programs of its own: their compilation takes as long as so many operations, on a CPU and on
# a GPU.
_LEAST_FLOPS_SAVED = 2e12
_LEAST_FLOPS_SAVED_ON_GPUS = 1e15
_KEPT_FREE_BYTES = 10**9
_MADE_OF = {"projections": "hidden_states"}  # which the step multiplies with the teacher's own parameters
_VERSION = 1

Place = Literal["memory", "device", "disk", "off"]


@dataclasses.dataclass(frozen=True)
class RowsWithTeacher:
    """Training rows that bring the teacher's outputs along (`RowSource`).

    fill: makes the outputs. files: the directory that is deleted once the run is done.
    """

    rows: RowSource
    outputs: TeacherOutputs | OutputsOnDevices
    fill: Callable[[], None]
    files: Path | None = None

    @property
    def tables(self) -> Tables | None:
        """The outputs that are on the devices, once `prepared` was entered."""
        return self.outputs.tables if isinstance(self.outputs, OutputsOnDevices) else None

    @property
    def steps_per_epoch(self) -> int:
        return self.rows.steps_per_epoch

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        return self.rows.lengths

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        self.fill()
        with self.rows.prepared():
            yield
        # A run that was interrupted finds them when it is resumed.
        if self.files is not None:
            shutil.rmtree(self.files, ignore_errors=True)

    def batch(self, step: int) -> BatchRows:
        return self.rows.batch(step)

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> Batch:
        kept = self.outputs.collate(batch.rows, batch.length, padded_rows)
        return {**self.rows.arrays(step, batch, padded_rows), **kept}  # pyright: ignore[reportReturnType]


def rows_with_teacher(
    config: DistillConfig,
    rows: RowSource,
    dataset: EncodedDataset,
    teacher: LoadedModel,
    module: nn.Module,
    place_before: Place | None,
) -> tuple[RowSource, Place]:
    """`rows`, with the teacher's outputs if --teacher_cache says so, and where these are kept.

    A resumed run does what it did before, if it can: outputs in bfloat16 give other last digits.

    Args:
      dataset: what the rows are taken from.
      place_before: where the run to be resumed kept them; None for a new run.

    Raises:
      UserError: what the flag asks for is impossible here, or not what the run to be resumed did.
    """
    if config.teacher_cache == "off":
        _check_resumed(place_before, "off")
        return rows, "off"
    if obstacle := _obstacle(config):
        if config.teacher_cache != "auto":
            raise UserError(f"--teacher_cache {config.teacher_cache}: {obstacle}; use off")
        return rows, "off"
    kinds = _kinds(config)
    on_host = TeacherOutputs(teacher.config, dataset, kinds)
    on_devices = OutputsOnDevices(teacher.config, dataset, kinds)
    if config.teacher_cache != "auto":
        place: Place = config.teacher_cache
        _check_resumed(place_before, place)
    else:
        place = place_before or _automatic_place(config, on_host.bytes, on_devices.bytes, teacher, dataset)
    parts = module, teacher.params
    if place == "off":
        return rows, place
    if place == "device":
        _check_devices(on_devices.bytes)
        _announce(on_devices.bytes, "in the memory of every device")
        return RowsWithTeacher(rows, on_devices, functools.partial(on_devices.fill, *parts)), place
    if place == "memory":
        _check_memory(on_host.bytes)
        _announce(on_host.bytes, "in memory")
        return RowsWithTeacher(rows, on_host, functools.partial(on_host.fill_memory, *parts)), place
    parent, temporary = config.task.cache_dir or cache_directory(), config.teacher_cache == "auto"
    if temporary:
        parent = config.program.output_dir / layout.TEACHER_OUTPUTS
    directory = parent / f"teacher-{_content_hash(module, teacher, dataset)}"
    _check_room(on_host.bytes, directory)
    _announce(on_host.bytes, f"in {directory}{' until the run is done' * temporary}")
    fill = functools.partial(on_host.fill_files, directory, *parts)
    return RowsWithTeacher(rows, on_host, fill, parent if temporary else None), place


def _announce(size: int, where: str) -> None:
    logger.info(
        "the teacher's outputs for all training rows, %.2f GB, are computed once and kept %s",
        size / 1e9,
        where,
    )


def kept_output(batch: Batch, tables: Tables | None) -> ModelOutput | None:
    """The teacher's output for a batch, if it is kept; kinds that are not kept are None.

    Args:
      tables: outputs that are on the devices; else a batch brings its own along.
    """
    if tables is None:
        return given_output(batch)
    assert "kept_rows" in batch
    return outputs_from_tables(tables, batch["kept_rows"], batch["input_ids"].shape[1])


def _obstacle(config: DistillConfig) -> str | None:
    """Why this run cannot keep the teacher's outputs."""
    if config.layers.padding == "include":
        return "with --padding include costs depend on the padding of each batch, which is not kept"
    if config.layers.attention == "fused" and reads(config.learned_layers.costs, "attention_scores"):
        return "with --attention fused there are no attention scores to keep"
    if jax.process_count() > 1:
        return "it works in one process"
    return None


def _kinds(config: DistillConfig) -> tuple[str, ...]:
    """The outputs that this run's losses read."""
    needed = {_MADE_OF.get(cost.reads, cost.reads) for cost in config.learned_layers.costs}
    if config.prediction.learns_predictions:
        needed.add("logits")
    return tuple(kind for kind in KINDS if kind in needed)


def _check_resumed(before: Place | None, place: Place) -> None:
    if before is not None and (before == "off") != (place == "off"):
        raise UserError(
            f"--resume: the run began with --teacher_cache {before}, and another choice than that changes its"
            f" last digits; give --teacher_cache {before} or auto"
        )


def _automatic_place(
    config: DistillConfig,
    bytes_on_host: int,
    bytes_on_device: int,
    teacher: LoadedModel,
    dataset: EncodedDataset,
) -> Place:
    """Where it pays: a CPU reads faster than it computes, a GPU its own memory alone.

    TPUs are slow to read single elements, as scores without padding are.
    """
    visits = int(config.optimizer.num_train_epochs * len(dataset))
    if config.optimizer.max_steps:
        visits = min(visits, config.optimizer.max_steps * config.optimizer.train_batch_size)
    saved = (visits - len(dataset)) * flops_per_sentence(teacher.config, dataset.lengths)
    if jax.default_backend() == "gpu":
        pays = saved >= _LEAST_FLOPS_SAVED_ON_GPUS
        return "device" if pays and bytes_on_device <= _SHARE_OF_DEVICE * (device_memory() or 0) else "off"
    if jax.default_backend() != "cpu":
        return "off"
    if saved < _LEAST_FLOPS_SAVED:
        return "off"
    if bytes_on_host <= _SHARE_OF_MEMORY * _memory_bytes():
        return "memory"
    if bytes_on_host <= _SHARE_OF_DISK * _free_bytes(config.program.output_dir):
        return "disk"
    logger.info(
        "the teacher runs in every step: its outputs, %.0f GB, would take too much of the memory or the disk"
        " (--teacher_cache disk with a roomy --cache_dir keeps them)",
        bytes_on_host / 1e9,
    )
    return "off"


def _check_memory(needed: int) -> None:
    if needed > _memory_bytes():
        raise UserError(
            f"--teacher_cache memory: the teacher's outputs are {needed / 1e9:.2f} GB, this machine has"
            f" {_memory_bytes() / 1e9:.0f} GB; use disk or off"
        )


def _check_devices(needed: int) -> None:
    room = device_memory()
    if room is not None and needed > room:
        raise UserError(
            f"--teacher_cache device: the teacher's outputs are {needed / 1e9:.2f} GB, and a device has"
            f" {room / 1e9:.0f} GB for everything; use auto"
        )


def _check_room(needed: int, directory: Path) -> None:
    there = sum(path.stat().st_size for path in directory.glob("*.bin")) if directory.is_dir() else 0
    free = _free_bytes(directory)
    if needed - there > free - _KEPT_FREE_BYTES:
        raise UserError(
            f"--teacher_cache: the teacher's outputs need {(needed - there) / 1e9:.1f} GB in"
            f" {directory.parent}, where {free / 1e9:.1f} GB are free; another --cache_dir may have room"
        )


def _free_bytes(directory: Path) -> int:
    path = directory.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.is_dir())
    return shutil.disk_usage(existing).free


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _content_hash(module: Any, teacher: LoadedModel, dataset: EncodedDataset) -> str:
    """Of everything that the outputs follow from."""
    arrays = {name: getattr(dataset, name) for name in ("token_ids", "offsets", "segment_a_lengths")}
    return outputs_hash(module, teacher, arrays, [_VERSION])[:32]
