"""Shared by the benchmark programs: models, texts, FLOPs, and timing several calls in turn."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from comparison.records import processor

from bert_emd_jax.commands import demo, demo_assets
from bert_emd_jax.evaluation.model_cost import seconds_in_turn as seconds_in_turn
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.tokenization.tokenizer import Tokenizer

TEACHER = EncoderConfig()  # bert-base
STUDENT = EncoderConfig(  # TinyBERT-4
    hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200
)
SMALL_TEACHER = EncoderConfig(
    hidden_size=96, num_hidden_layers=3, num_attention_heads=2, intermediate_size=192
)
SMALL_STUDENT = EncoderConfig(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96
)


def machine() -> str:
    """Returns processor, cores, load and accelerator in words."""
    device = jax.devices()[0]
    text = f"{processor()}, load {os.getloadavg()[0]:.1f}"
    return text if device.platform == "cpu" else f"{text}, {jax.device_count()} x {device.device_kind}"


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns the mean of repetitions, and their standard deviation if there are several."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""The seconds that passed, or those that all cores spent on this process (where others use the machine)."""


def seconds(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Returns how long a call takes; it must not return before its work is done."""
    start = clock()
    call()
    return clock() - start


def medians(times: Mapping[Any, list[float]]) -> dict[Any, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def median_ratio(above: list[float], below: list[float]) -> float:
    """Returns the median over the rounds of a quotient; in a round both were timed one after the other."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def matmul_call(dtype: str = "float32") -> tuple[Callable[[], object], float]:
    """Returns one large compiled matrix product, which reaches the peak of a device, and its FLOPs."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    return lambda: multiply(matrix, matrix).block_until_ready(), 2.0 * size**3


def forward_flops(config: EncoderConfig, rows: int, length: int) -> float:
    """Returns multiplications and additions of the matrix products of a forward pass, padding included."""
    width, tokens = config.hidden_size, rows * length
    dense = 2 * tokens * (4 * width**2 + 2 * width * config.intermediate_size)
    per_layer = dense + 4 * tokens * length * width
    return config.num_hidden_layers * per_layer + 2 * rows * width**2


def step_flops(
    student: EncoderConfig, teacher: EncoderConfig, rows: int, length: int, *, with_teacher: bool = True
) -> float:
    """Returns the FLOPs of a distillation step: teacher, student forward and backward, projection, costs."""
    tokens = rows * length
    pairs = student.num_hidden_layers * teacher.num_hidden_layers
    projection = 2 * tokens * (student.num_hidden_layers + 1) * student.hidden_size * teacher.hidden_size
    costs = 2 * pairs * tokens * (teacher.hidden_size + student.num_attention_heads * length)
    # A cost matrix has one product forward and one, for the student's side, backward.
    trained = 3 * (forward_flops(student, rows, length) + projection) + 2 * costs
    return trained + (forward_flops(teacher, rows, length) if with_teacher else 0)


def uncased_tokenizer(vocab_file: Path | None) -> Tokenizer:
    """Returns the tokenizer of a vocabulary; without one, that of the demo's teacher (BERT, uncased)."""
    with tempfile.TemporaryDirectory() as directory:
        if vocab_file is None:
            demo_assets.unpack_minilm(Path(directory))
        else:
            (Path(directory) / "vocab.txt").write_bytes(vocab_file.read_bytes())
        return Tokenizer.from_directory(directory, do_lower_case=True)


def rotten_tomatoes(directory: Path) -> Path:
    """Writes the demo's sentences as a custom task and returns the directory."""
    demo.write_splits(directory, {"dev": demo.DEV_ROWS, "test": demo.TEST_ROWS})
    return directory
