"""A train step on some of the CPU devices that tests have, and uneven batches for it."""

from collections.abc import Callable

import jax
import numpy as np

from bert_emd_jax.devices.parallel import DEVICES

ROWS, LENGTH = 24, 12


def uneven_batch(rows: int = ROWS, fillers: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of different lengths, the last ones fillers of weight 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, LENGTH + 1, rows)
    weights = (np.arange(rows) < rows - fillers).astype(np.float32)
    mask = ((np.arange(LENGTH) < lengths[:, None]) * weights[:, None]).astype(np.int32)
    return {
        "input_ids": (rng.integers(1, 40, (rows, LENGTH)) * mask).astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": np.zeros((rows, LENGTH), np.int32),
        "labels": rng.integers(0, 3, rows).astype(np.int32),
        "weights": weights,
    }


def split(batch: dict[str, np.ndarray], devices: int, micro_batches: int = 1) -> dict[str, np.ndarray]:
    return jax.tree.map(lambda values: values.reshape(devices, micro_batches, -1, *values.shape[1:]), batch)


def pmap_on(function: Callable, devices: int) -> Callable:
    return jax.pmap(
        function,
        axis_name=DEVICES,
        in_axes=(None, None, 0),  # pyright: ignore[reportArgumentType]
        out_axes=None,  # pyright: ignore[reportArgumentType]
        devices=jax.devices()[:devices],
    )
