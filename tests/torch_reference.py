"""transformers' BERT on torch as the oracle: everything our model returns, computed by theirs."""

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def tiny_torch_model(directory: Path, *, num_labels: int = 3, kind: str = "classifier", **config):
    """Saves a random tiny transformers BERT (safetensors) and returns it in eval mode."""
    values = {
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    their_config = transformers.BertConfig(**(values | config), num_labels=num_labels)
    classes = {
        "classifier": transformers.BertForSequenceClassification,
        "masked_lm": transformers.BertForMaskedLM,
        "encoder": transformers.BertModel,
        "pretraining": transformers.BertForPreTraining,
        "token_classifier": transformers.BertForTokenClassification,
    }
    model = classes[kind](their_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are 0 and scales 1: a mix-up would not show
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(directory)
    return model


def random_batch(vocab_size: int, rows: int = 5, length: int = 17, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ids with padding of different lengths and two segments."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, length + 1, size=rows)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids = rng.integers(1, vocab_size, size=(rows, length)).astype(np.int32) * mask
    segments = (np.arange(length) >= lengths[:, None] // 2).astype(np.int32) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


def torch_outputs(model, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """hidden_states, attention_scores, pooled and logits (where the model has them) as NumPy arrays."""
    encoder = model.base_model
    projected: dict[tuple[str, int], torch.Tensor] = {}
    pooled = []
    handles = [
        getattr(layer.attention.self, name).register_forward_hook(
            lambda _module, _inputs, output, key=(name, index): projected.__setitem__(key, output)
        )
        for index, layer in enumerate(encoder.encoder.layer)
        for name in ("query", "key")
    ]
    if encoder.pooler is not None:
        handles.append(encoder.pooler.register_forward_hook(lambda _m, _i, output: pooled.append(output)))
    with torch.no_grad():
        output = model(
            **{name: torch.tensor(value, dtype=torch.long) for name, value in batch.items()},
            output_hidden_states=True,
        )
    for handle in handles:
        handle.remove()
    heads = model.config.num_attention_heads

    def split(tensor):
        return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)

    scores = []
    for index in range(len(encoder.encoder.layer)):
        query, key = split(projected["query", index]), split(projected["key", index])
        scores.append(query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]))
    result = {
        "hidden_states": torch.stack(output.hidden_states),
        "attention_scores": torch.stack(scores),
    }
    if pooled:
        result["pooled"] = pooled[0]
    if "logits" in output:
        result["logits"] = output.logits
    return {name: value.numpy() for name, value in result.items()}
