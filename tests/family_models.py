"""Random tiny models of every family, as transformers makes them, with tokenizers of their own kind."""

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_emd_jax.models.families import FAMILIES, Head

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OTHER_FAMILIES = [family for family in FAMILIES if family != "bert"]
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 34,
    "hidden_act": "silu",
    "layer_norm_eps": 1e-3,
    "num_labels": 3,
}
"""Under our names; none is a default."""
OTHERS: dict[str, dict[str, Any]] = {
    "roberta": {"pad_token_id": 3, "type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 2},
    "electra": {"embedding_size": 16, "type_vocab_size": 3},
    "distilbert": {"sinusoidal_pos_embds": True},
}


def their_model(family: str, head: Head, **more: Any) -> Any:
    """A model of transformers in eval mode; `more` are values of its config under our names."""
    values = SIZES | OTHERS.get(family, {}) | more
    if head == "answer":
        values["num_labels"] = 2
    keys = FAMILIES[family].keys
    values = {keys.get(name, name): value for name, value in values.items()}
    torch.manual_seed(0)
    model = getattr(transformers, FAMILIES[family].classes[head])(
        transformers.AutoConfig.for_model(family, **values)
    )
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are 0 and scales 1: a mix-up would not show
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_merges(directory: Path, text: str) -> int:
    """Writes vocab.json and merges.txt of RoBERTa's kind, learned from a text; returns their tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(text.splitlines(), trainer)
    directory.mkdir(parents=True, exist_ok=True)
    backend.model.save(str(directory))
    return backend.get_vocab_size()
