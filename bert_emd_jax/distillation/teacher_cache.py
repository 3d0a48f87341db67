"""Whether a run keeps its teacher's outputs, and where: in memory, in files, or not at all."""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.layer_losses import reads
from bert_emd_jax.distillation.teacher_outputs import KINDS, TeacherOutputs
from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import flops_per_sentence
from bert_emd_jax.files import cache_directory, content_hash
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.ensemble import Ensemble
from bert_emd_jax.models.params import flatten
from bert_emd_jax.training.classifiers import members_of
from bert_emd_jax.training.row_source import RowSource

logger = logging.getLogger(__name__)

# What "auto" takes at most of the machine's memory, and of the room left on the disk.
_SHARE_OF_MEMORY = 1 / 8
_SHARE_OF_DISK = 1 / 4
# The cache brings programs of its own: their compilation takes as long as a CPU needs for so many operations.
_LEAST_FLOPS_SAVED = 2e12
_KEPT_FREE_BYTES = 10**9
_VERSION = 1

Place = Literal["memory", "disk", "off"]


@dataclasses.dataclass(frozen=True)
class RowsWithTeacher:
    """Training rows that bring the teacher's outputs along (`RowSource`).

    directory: of the files; None keeps the outputs in memory. temporary: the files go when the run is done.
    """

    rows: RowSource
    outputs: TeacherOutputs
    module: nn.Module
    params: Any
    directory: Path | None
    temporary: bool

    @property
    def steps_per_epoch(self) -> int:
        return self.rows.steps_per_epoch

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        return self.rows.lengths

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        if self.directory is None:
            self.outputs.fill_memory(self.module, self.params)
        else:
            self.outputs.fill_files(self.directory, self.module, self.params)
        with self.rows.prepared():
            yield
        # A run that was interrupted finds them when it is resumed.
        if self.directory is not None and self.temporary:
            shutil.rmtree(self.directory.parent, ignore_errors=True)

    def batch(self, step: int) -> BatchRows:
        return self.rows.batch(step)

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> Batch:
        kept = self.outputs.collate(batch.rows, batch.length, padded_rows)
        return {**self.rows.arrays(step, batch, padded_rows), "teacher": kept}


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
    outputs = TeacherOutputs(teacher.config, dataset, _kinds(config))
    temporary = config.teacher_cache == "auto"
    parent = config.task.cache_dir or cache_directory()
    if temporary:
        parent = config.program.output_dir / layout.TEACHER_OUTPUTS
    directory = parent / f"teacher-{_content_hash(module, teacher, dataset)}"
    place: Place
    if config.teacher_cache != "auto":
        place = config.teacher_cache
        _check_resumed(place_before, place)
    else:
        place = place_before or _automatic_place(config, outputs, teacher, dataset)
    size = f"{outputs.bytes / 1e9:.2f} GB"
    if place == "memory" and outputs.bytes > _memory_bytes():
        raise UserError(
            f"--teacher_cache memory: the teacher's outputs are {size}, this machine has"
            f" {_memory_bytes() / 1e9:.0f} GB; use disk or off"
        )
    if place == "disk":
        _check_room(outputs.bytes, directory)
    if place == "off":
        return rows, place
    where = "in memory" if place == "memory" else f"in {directory}{' until the run is done' * temporary}"
    logger.info("the teacher's outputs for all training rows, %s, are computed once and kept %s", size, where)
    kept_in = directory if place == "disk" else None
    return RowsWithTeacher(rows, outputs, module, teacher.params, kept_in, temporary), place


def _obstacle(config: DistillConfig) -> str | None:
    """Why this run cannot keep the teacher's outputs."""
    if config.layers.padding == "include":
        return "with --padding include costs depend on the padding of each batch, which is not kept"
    if reads(config.learned_layers.costs, "projections"):
        return "queries, keys and values, which --use_relation compares, are not kept"
    if jax.process_count() > 1:
        return "it works in one process"
    return None


def _kinds(config: DistillConfig) -> tuple[str, ...]:
    """The outputs that this run's losses read."""
    reads = {cost.reads for cost in config.learned_layers.costs}
    if config.prediction.learns_predictions:
        reads.add("logits")
    return tuple(kind for kind in KINDS if kind in reads)


def _check_resumed(before: Place | None, place: Place) -> None:
    if before is not None and (before == "off") != (place == "off"):
        raise UserError(
            f"--resume: the run began with --teacher_cache {before}, and another choice than that changes its"
            f" last digits; give --teacher_cache {before} or auto"
        )


def _automatic_place(
    config: DistillConfig,
    outputs: TeacherOutputs,
    teacher: LoadedModel,
    dataset: EncodedDataset,
) -> Place:
    """Where it pays: a CPU computes more slowly than it reads, an accelerator does not."""
    if jax.default_backend() != "cpu":
        return "off"
    visits = int(config.optimizer.num_train_epochs * len(dataset))
    if config.optimizer.max_steps:
        visits = min(visits, config.optimizer.max_steps * config.optimizer.train_batch_size)
    saved = (visits - len(dataset)) * flops_per_sentence(teacher.config, dataset.lengths)
    if saved < _LEAST_FLOPS_SAVED:
        return "off"
    if outputs.bytes <= _SHARE_OF_MEMORY * _memory_bytes():
        return "memory"
    if outputs.bytes <= _SHARE_OF_DISK * _free_bytes(config.program.output_dir):
        return "disk"
    logger.info(
        "the teacher runs in every step: its outputs, %.0f GB, would take too much of the memory or the disk"
        " (--teacher_cache disk with a roomy --cache_dir keeps them)",
        outputs.bytes / 1e9,
    )
    return "off"


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
    facts = [
        _VERSION,
        str(np.dtype(module.dtype)),
        jax.default_backend(),
        *(one.config.values() for one in members_of(teacher)),
    ]
    if isinstance(module, Ensemble):
        facts.append(module.temperature)
    arrays = {"token_ids": dataset.token_ids, "offsets": dataset.offsets}
    arrays["segment_a_lengths"] = dataset.segment_a_lengths
    return content_hash(facts, flatten(teacher.params) | arrays)[:32]
