"""The analytic operation count against PyTorch's own counter on transformers' BERT; how time is measured."""

import time

import numpy as np
import pytest

from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.evaluation import model_cost
from bert_emd_jax.evaluation.model_cost import flops_per_sentence, measure_latency, seconds_in_turn
from bert_emd_jax.models.encoder_config import EncoderConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    sizes = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "num_labels": 3,
    }
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, attn_implementation="eager")
    ).eval()
    lengths = np.array([5, 17, 9])
    counted = []
    for length in lengths.tolist():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            theirs(torch.ones(1, length, dtype=torch.long))
        counted.append(counter.get_total_flops())
    assert flops_per_sentence(EncoderConfig(**sizes), lengths) == pytest.approx(np.mean(counted), rel=1e-12)


def test_latency_does_not_hang_on_the_lengths_of_a_program(monkeypatch):
    """Rows of the median length, rounded up to eights; what a model sleeps is its latency."""
    shapes = []

    def sleeping(seconds, params):
        def logits(batch):
            shapes.append(batch["input_ids"].shape)
            time.sleep(seconds)
            return np.zeros(1)

        return logits

    monkeypatch.setattr(model_cost, "logits_on_device", sleeping)
    lengths = np.array([3, 9, 11, 30])
    dataset = EncodedDataset(np.arange(53), np.cumsum([0, *lengths]), lengths, None, pad_id=0)
    latency = measure_latency({"slow": (0.02, None), "fast": (0.001, None)}, dataset, rounds=3)
    assert set(shapes) == {(1, 16), (32, 16)}
    assert latency.tokens == 16
    assert latency.milliseconds["slow"]["1"] == pytest.approx(20, rel=0.5)
    assert latency.milliseconds["slow"]["32"] == pytest.approx(20 / 32, rel=0.5)
    assert latency.milliseconds["fast"]["1"] < latency.milliseconds["slow"]["1"]


def test_the_calls_take_turns():
    ticks, order = iter(range(100)), []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    assert seconds_in_turn(calls, 2, clock=lambda: next(ticks)) == {"a": [1, 1], "b": [1, 1]}
    assert order == ["a", "b", "a", "b"]
