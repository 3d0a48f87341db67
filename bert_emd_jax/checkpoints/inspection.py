"""What a conversion would do with every tensor of a file, as a printed table; nothing is converted."""

import math
from pathlib import Path

import numpy as np

from bert_emd_jax.checkpoints.loading import plan_loading
from bert_emd_jax.checkpoints.model_directory import read_stored
from bert_emd_jax.checkpoints.names import param_mappings, torch_file_name
from bert_emd_jax.models.families import Head

_HEAD_NAMES: dict[Head, str] = {
    "classifier": "a classifier",
    "token": "a classifier of tokens",
    "answer": "a head for answers",
    "masked_lm": "a masked-LM head",
    "embedding": "the modules of a sentence embedder",
    "none": "no head",
}


def inspect_model(path: Path, head: Head | None) -> tuple[str, tuple[str, ...]]:
    """Returns a table of the tensors (name, shape, dtype, what each becomes), and the problems.

    Args:
      path: a local model directory, Hugging Face directory or weights file.
      head: None means the head that is stored.

    Raises:
      UserError: there is no model there, or its config describes no BERT.
    """
    stored = read_stored(path)
    plan = plan_loading(stored, head, as_stored=True)
    config = plan.config
    rows = [("tensor", "shape", "dtype", "becomes")]

    def add(name: str, array: np.ndarray, shape: list[int], becomes: str) -> None:
        rows.append((name, str(shape), str(array.dtype), becomes))

    mappings = {mapping.flax_path: mapping for mapping in param_mappings(config, plan.head)}
    for flax_path, array in stored.arrays.items():
        becomes = "ignored"
        if flax_path in plan.used:
            mapping = mappings[flax_path]
            # A model directory has Flax's names already: there, PyTorch's say more.
            becomes = flax_path if stored.mappings else torch_file_name(mapping, plan.head, config)
            becomes += " (transposed)" if mapping.transposed else ""
        add(stored.name(flax_path), array, stored.file_shape(flax_path, array.shape), becomes)
    for tensors, becomes in ((stored.ignored, "ignored"), (stored.left_over, "left over")):
        for name, array in tensors.items():
            add(name, array, list(array.shape), becomes)

    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:3]]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    parameters = sum(math.prod(stored.arrays[path].shape) for path in plan.used)
    lines += [
        "",
        f"{stored.source}: {config.family.title} with {_HEAD_NAMES[plan.head]}, {config.num_hidden_layers}"
        f" layers of width {config.hidden_size}, {config.vocab_size} word embeddings",
        f"{len(rows) - 1} tensors: {len(plan.used)} used ({parameters:,} parameters),"
        f" {len(plan.ignored)} ignored, {len(stored.left_over)} left over",
    ]
    if stored.projection is not None:
        lines.append(f"with a projection to a teacher of width {stored.projection['kernel'].shape[-1]}")
    if plan.head in ("classifier", "token"):
        labels = config.id2label or tuple(f"LABEL_{index}" for index in range(config.num_labels))
        before = f"; before the classifier: {config.classifier_activation}" * (plan.head == "classifier")
        lines.append(f"labels: {', '.join(labels)}{before}")
    return "\n".join(lines), plan.problems
