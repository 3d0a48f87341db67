"""What a training run would do: its size, memory and time from a few real steps, and any obstacle."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax

from bert_emd_jax.devices.device_needs import device_memory
from bert_emd_jax.devices.parallel import replicate, rows_for_devices
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import size_of
from bert_emd_jax.layout import RESULTS
from bert_emd_jax.runs.run_directory import RunDirectory
from bert_emd_jax.training.run import directory_of
from bert_emd_jax.training.trainer import Trainer

# The longest batches are tried first; when that took longer, the commonest ones are not.
_PATIENCE_SECONDS = 12.0
_TIMED_STEPS, _TIMING_SECONDS = 3, 4.0


def describe_run(trainer: Trainer) -> dict[str, Any]:
    """Facts about the run that `trainer.train` would make, ready for JSON.

    `refused` is why the run would not start, or None. Memory and times are those of compiled steps on this
    machine: `memory` in bytes on each device, `seconds_per_step` by padded length, `seconds` of all steps,
    without compilation, evaluations and checkpoints.
    """
    config, rows = trainer.config, trainer.rows
    optimizer, directory = config.optimizer, directory_of(config, trainer.program)
    padded_lengths = [rows.batch(step).length for step in range(rows.steps_per_epoch)]
    padded_rows = rows_for_devices(
        optimizer.train_batch_size, jax.device_count(), optimizer.gradient_accumulation_steps
    )
    batches = Counter(padded_lengths)
    facts = trainer.prepare()
    measured = _measured(trainer, padded_lengths)
    device = jax.local_devices()[0]
    return {
        "program": trainer.program,
        "rows": len(rows.lengths),
        "tokens_per_epoch": int(rows.lengths.sum()),
        "padded_tokens_per_epoch": padded_rows * sum(padded_lengths),
        "rows_per_batch": optimizer.train_batch_size,
        "batches_per_epoch": {length: batches[length] for length in sorted(batches)},
        "steps_per_epoch": rows.steps_per_epoch,
        "steps": trainer.total_steps,
        **{name: size_of(model.config, model.params) for name, model in trainer.models.items()},
        "mapping": trainer.mapping_facts(),
        "recipe": trainer.recipe(),
        "devices": [device.device_kind] * jax.device_count(),
        "device_memory": device_memory(),
        **measured,
        "seconds": _seconds(
            measured["seconds_per_step"], batches, trainer.total_steps / rows.steps_per_epoch
        ),
        **facts,
        "finished": config.run.resume and (directory.path / RESULTS).is_file(),
        "refused": _refusal(directory),
    }


def _measured(trainer: Trainer, padded_lengths: list[int]) -> dict[str, Any]:
    """Memory and seconds of the longest batch's step and, if there is time, of the commonest one's."""
    state, constants = trainer.initial_state(), trainer.constants(0)
    start, memory, seconds = time.perf_counter(), 0, {}
    for length in dict.fromkeys((max(padded_lengths), Counter(padded_lengths).most_common(1)[0][0])):
        if seconds and time.perf_counter() - start > _PATIENCE_SECONDS:
            break
        first = padded_lengths.index(length)
        with trainer.batches(first, first + 1) as inputs:
            _, batch = next(inputs)
        # A step takes over the memory of its state, so each shape starts from a new one.
        device_state = replicate(state)
        compiled = trainer.compiled_step.lower(device_state, constants, batch).compile()
        memory = max(memory, _bytes(compiled.memory_analysis()))
        seconds[length] = _step_seconds(compiled, device_state, constants, batch)
    return {"memory": memory or None, "seconds_per_step": seconds}


def _bytes(analysis: Any) -> int:
    """What a compiled program holds at once; 0 where the backend does not say."""
    if analysis is None:
        return 0
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def _step_seconds(compiled: Any, state: Any, constants: Any, batch: Any) -> float:
    """The fastest of a few steps after the first."""
    times, begin = [], time.perf_counter()
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, constants, batch))
        times.append(time.perf_counter() - start)
        if time.perf_counter() - begin > _TIMING_SECONDS:
            break
    return min(times)


def _seconds(by_length: Mapping[int, float], batches: Mapping[int, int], epochs: float) -> float:
    """All steps together; lengths that were not timed lie on the line through the others, or through 0."""
    (x0, y0), (x1, y1) = sorted({0: 0.0, **by_length}.items())[-2:]
    slope = max((y1 - y0) / (x1 - x0), 0)
    per_epoch = sum(
        count * by_length.get(length, max(y1 + slope * (length - x1), 0)) for length, count in batches.items()
    )
    return epochs * per_epoch


def _refusal(directory: RunDirectory) -> str | None:
    try:
        directory.check()
    except UserError as error:
        return str(error)
    return None
