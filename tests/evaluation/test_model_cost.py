"""The analytic operation count against PyTorch's own counter on transformers' BERT."""

import numpy as np
import pytest

from bert_emd_jax.evaluation.model_cost import flops_per_sentence
from bert_emd_jax.models.bert_config import BertConfig

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
    assert flops_per_sentence(BertConfig(**sizes), lengths) == pytest.approx(np.mean(counted), rel=1e-12)
