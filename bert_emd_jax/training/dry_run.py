"""What a training run would do: its size, memory and time from a few real steps, and any obstacle."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.devices.parallel import pmap_step, replicate, rows_for_devices
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.model_cost import size_of
from bert_emd_jax.runs.run_directory import RESULTS, check_run_directory
from bert_emd_jax.training.config import MappingConfig, TrainingConfig
from bert_emd_jax.training.loop import total_steps
from bert_emd_jax.training.prefetch import step_inputs
from bert_emd_jax.training.run import Method, Target, fresh_state

# The longest batches are tried first; when that took longer, the commonest ones are not.
_PATIENCE_SECONDS = 12.0
_TIMED_STEPS, _TIMING_SECONDS = 3, 4.0


def describe_run(
    config: TrainingConfig,
    program: str,
    models: Mapping[str, Model],
    target: Target,
    method: Method,
    lengths: Int[np.ndarray, " rows"],
) -> dict[str, Any]:
    """Facts about the run that `run_training` would make of the same arguments, ready for JSON.

    Args:
      models: "student", which is trained, and perhaps its "teacher".
      lengths: tokens of every training row.

    `refused` is why the run would not start, or None. Memory and times are those of compiled steps on this
    machine: `memory` in bytes on each device, `seconds_per_step` by padded length, `seconds` of all steps,
    without compilation, evaluations and checkpoints.
    """
    rows, steps = target.rows, total_steps(config, target.rows)
    padded_lengths = [rows.batch(step).length for step in range(rows.steps_per_epoch)]
    padded_rows = rows_for_devices(
        config.train_batch_size, jax.device_count(), config.gradient_accumulation_steps
    )
    batches = Counter(padded_lengths)
    measured = _measured(config, models["student"], target, method, padded_lengths, padded_rows)
    device = jax.local_devices()[0]
    return {
        "program": program,
        "rows": len(lengths),
        "tokens_per_epoch": int(lengths.sum()),
        "padded_tokens_per_epoch": padded_rows * sum(padded_lengths),
        "rows_per_batch": config.train_batch_size,
        "batches_per_epoch": {length: batches[length] for length in sorted(batches)},
        "steps_per_epoch": rows.steps_per_epoch,
        "steps": steps,
        **{name: size_of(model.config, model.params) for name, model in models.items()},
        "mapping": _mapping(config, models),
        "devices": [device.device_kind] * jax.device_count(),
        "device_memory": (device.memory_stats() or {}).get("bytes_limit"),
        **measured,
        "seconds": _seconds(measured["seconds_per_step"], batches, steps / rows.steps_per_epoch),
        **method.facts,
        "finished": config.resume and (config.output_dir / RESULTS).is_file(),
        "refused": _refusal(config, program),
    }


def _measured(
    config: TrainingConfig,
    model: Model,
    target: Target,
    method: Method,
    padded_lengths: list[int],
    padded_rows: int,
) -> dict[str, Any]:
    """Memory and seconds of the longest batch's step and, if there is time, of the commonest one's."""
    state, optimizer, _ = fresh_state(config, model, target, method)
    step, frozen = pmap_step(method.make_step(optimizer)), method.frozen(0)
    start, memory, seconds = time.perf_counter(), 0, {}
    for length in dict.fromkeys((max(padded_lengths), Counter(padded_lengths).most_common(1)[0][0])):
        if seconds and time.perf_counter() - start > _PATIENCE_SECONDS:
            break
        first = padded_lengths.index(length)
        accumulation = config.gradient_accumulation_steps
        inputs = step_inputs(target.rows, first, first + 1, padded_rows, accumulation)
        with contextlib.closing(inputs):
            _, batch = next(inputs)
        # A step takes over the memory of its state, so each shape starts from a new one.
        device_state = replicate(state)
        compiled = step.lower(device_state, frozen, batch).compile()  # pyright: ignore[reportFunctionMemberAccess]
        memory = max(memory, _bytes(compiled.memory_analysis()))
        seconds[length] = _step_seconds(compiled, device_state, frozen, batch)
    return {"memory": memory or None, "seconds_per_step": seconds}


def _bytes(analysis: Any) -> int:
    """What a compiled program holds at once; 0 where the backend does not say."""
    if analysis is None:
        return 0
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def _step_seconds(compiled: Any, state: Any, frozen: Any, batch: Any) -> float:
    """The fastest of a few steps after the first."""
    times, begin = [], time.perf_counter()
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, frozen, batch))
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


def _mapping(config: TrainingConfig, models: Mapping[str, Model]) -> dict[str, Any] | None:
    if not isinstance(config, MappingConfig):
        return None
    return {
        "name": config.mapping,
        "student_layers": models["student"].config.num_hidden_layers,
        "teacher_layers": models["teacher"].config.num_hidden_layers,
        "layer_weight_rule": config.layer_weight_rule if config.transports else None,
    }


def _refusal(config: TrainingConfig, program: str) -> str | None:
    try:
        check_run_directory(config, program)
    except UserError as error:
        return str(error)
    return None
