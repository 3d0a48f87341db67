"""What a model costs to use: parameters, bytes, operations and milliseconds per sentence."""

import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.devices.parallel import jit_inference
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.heads import forward

LATENCY_BATCH_SIZES = (1, 32)


def size_of(config: BertConfig, params: Any) -> dict[str, int]:
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


def flops_per_sentence(config: BertConfig, lengths: Int[np.ndarray, " rows"]) -> float:
    """Floating-point operations of a classifier's forward pass without padding, mean over rows of `lengths`.

    Those of the matrix products alone, a multiplication and an addition counted as two: next to them, the
    rest is a few percent. Counted as papers count, every layer at every token; prediction spares most of the
    last one.
    """
    tokens = np.asarray(lengths, np.float64)
    width = config.hidden_size
    per_token = 4 * width**2 + 2 * width * config.intermediate_size  # query, key, value, output; feed-forward
    scores_and_values = 2 * tokens**2 * width
    pooler_and_classifier = width**2 + width * config.num_labels
    layers = config.num_hidden_layers * (per_token * tokens + scores_and_values)
    return float(np.mean(2 * (layers + pooler_and_classifier)))


def milliseconds_per_sentence(
    modules: dict[str, tuple[nn.Module, Any]],
    dataset: EncodedDataset,
    bucket_lengths: tuple[int, ...],
    repeats: int = 10,
) -> dict[str, dict[str, float]]:
    """Median milliseconds per sentence of each model on one device: {model: {batch size: ms}}.

    The models run in turn, so that a noisy moment of the machine hits all of them.

    Args:
      modules: name → (module, parameters on the host).
      bucket_lengths: the sentences are padded to the smallest that holds the median row; longer rows are
        left out of the sample.
    """
    length = min(bucket for bucket in bucket_lengths if bucket >= np.median(dataset.lengths))
    device = jax.local_devices()[0]
    fitting = np.flatnonzero(dataset.lengths <= length)
    on_device = {name: jax.device_put(params, device) for name, (_, params) in modules.items()}
    compiled = {
        name: jit_inference(
            lambda params, batch, module=module: forward(module, params, batch, logits_only=True).logits
        )
        for name, (module, _) in modules.items()
    }
    result: dict[str, dict[str, float]] = {name: {} for name in modules}
    for batch_size in LATENCY_BATCH_SIZES:
        batch = jax.device_put(dataset.collate(np.resize(fitting, batch_size), length), device)
        seconds: dict[str, list[float]] = {name: [] for name in modules}
        for repeat in range(repeats + 1):
            for name, compute in compiled.items():
                start = time.perf_counter()
                compute(on_device[name], batch).block_until_ready()
                if repeat:  # the first call compiles
                    seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            result[name][str(batch_size)] = 1000 * float(np.median(times)) / batch_size
    return result
