"""What a model costs to use: parameters, bytes, operations and milliseconds per sentence."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Int

from bert_emd_jax.devices.machine import Machine, load_average, machine
from bert_emd_jax.devices.parallel import jit_inference
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.embedding_config import DenseModule
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import forward

LATENCY_BATCH_SIZES = (1, 32)


def size_of(config: EncoderConfig, params: Any) -> dict[str, int]:
    """The sizes that describe a model in a results file; `file_bytes` is that of float32 weights."""
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
    return {
        "parameters": parameters,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "file_bytes": 4 * parameters,
    }


def flops_per_sentence(config: EncoderConfig, lengths: Int[np.ndarray, " rows"]) -> float:
    """Floating-point operations of a model's forward pass without padding, mean over rows of `lengths`.

    Those of the matrix products alone, a multiplication and an addition counted as two: next to them, the
    rest is a few percent. Counted as papers count, every layer at every token; prediction spares most of the
    last one.
    """
    tokens = np.asarray(lengths, np.float64)
    width = config.hidden_size
    per_token = 4 * width**2 + 2 * width * config.intermediate_size  # query, key, value, output; feed-forward
    scores_and_values = 2 * tokens**2 * width
    layers = config.num_hidden_layers * (per_token * tokens + scores_and_values)
    if config.embedding_width != width:  # their projection
        layers += config.embedding_width * width * tokens
    heads = tokens if config.head in ("token", "answer") else 1
    return float(np.mean(2 * (layers + heads * _products_of_head(config))))


def _products_of_head(config: EncoderConfig) -> int:
    """Multiplications of a classifier and the dense layer before it, of a token's head, or of an embedder's
    dense modules."""
    width = config.hidden_size
    if config.head in ("token", "answer"):
        return width * config.num_labels
    if config.embedding is None:
        return width**2 + width * config.num_labels
    dense = [module for module in config.embedding.modules if isinstance(module, DenseModule)]
    sizes = [config.embedding.pooled_size(width), *(module.out_features for module in dense)]
    return sum(before * after for before, after in itertools.pairwise(sizes))


class Latency(NamedTuple):
    """Median milliseconds per sentence, {model: {batch size: ms}}, of sentences of `tokens` on `machine`."""

    milliseconds: dict[str, dict[str, float]]
    tokens: int
    machine: Machine

    def timed_on(self) -> dict[str, Any]:
        """What a results file says beside the milliseconds."""
        return {"tokens": self.tokens, **self.machine.as_json()}


def measure_latency(
    modules: dict[str, tuple[nn.Module, Any]], dataset: EncodedDataset, rounds: int = 10
) -> Latency:
    """Times each model on one device, from token ids in NumPy to logits in NumPy.

    The models run in turn, so that a noisy moment of the machine hits all of them. The sentences are padded
    to the median length of the dataset's, whatever lengths a program pads to, so that programs agree.

    Args:
      modules: name → (module, parameters on the host).
    """
    load_before = load_average()
    batches = latency_batches(dataset)
    models = {name: logits_on_device(module, params) for name, (module, params) in modules.items()}
    result: dict[str, dict[str, float]] = {name: {} for name in modules}
    for batch_size, batch in batches.items():
        calls = {name: functools.partial(logits, batch) for name, logits in models.items()}
        seconds_in_turn(calls, 1)  # compiles
        for name, seconds in seconds_in_turn(calls, rounds).items():
            result[name][str(batch_size)] = 1000 * float(np.median(seconds)) / batch_size
    length = batches[1]["input_ids"].shape[1]
    return Latency(result, length, machine(jax.local_devices()[0].device_kind, load_before))


def logits_on_device(module: nn.Module, params: Any) -> Callable[[Any], np.ndarray]:
    """Returns the compiled forward pass of a classifier: a batch in NumPy to logits in NumPy."""
    on_device = jax.device_put(params, jax.local_devices()[0])
    compute = _jit_logits(module)
    return lambda batch: np.asarray(compute(on_device, batch))


def compile_for_latency(module: nn.Module, params: Any, dataset: EncodedDataset, batch_size: int) -> None:
    """Compiles one of the programs that `measure_latency` times, for the cache of programs."""
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), params
    )
    _jit_logits(module).lower(shapes, latency_batches(dataset)[batch_size]).compile()


def _jit_logits(module: nn.Module) -> Callable[..., Any]:
    return jit_inference(lambda params, batch: forward(module, params, batch, logits_only=True).logits)


def latency_batches(dataset: EncodedDataset) -> dict[int, Batch]:
    """Returns the batches that are timed, by their number of rows."""
    length = min(8 * math.ceil(np.median(dataset.lengths) / 8), int(dataset.lengths.max()))
    fitting = np.flatnonzero(dataset.lengths <= length)
    return {rows: dataset.collate(np.resize(fitting, rows), length) for rows in LATENCY_BATCH_SIZES}


def seconds_in_turn(
    calls: Mapping[Any, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Any, list[float]]:
    """Returns the seconds of every call in every round; the calls take turns, so that noise hits them all.

    A call must not return before its work is done.
    """
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times
