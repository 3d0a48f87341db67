"""Valid but unusual model directories, drawn at random: the logits are those of transformers."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file
from torch_reference import random_batch

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.models.heads import SequenceClassifier, forward

PREFIXES = ("", "module.", "_orig_mod.", "model.", "base_model.model.", "0.auto_model.")


def write_directory(directory: Path, draw: random.Random) -> dict:
    """Saves a random classifier in an unusual form; returns what was drawn."""
    heads = draw.choice([1, 3, 5])
    values = {
        "vocab_size": draw.choice([31, 101]),
        "hidden_size": heads * draw.choice([2, 7]),
        "num_attention_heads": heads,
        "num_hidden_layers": draw.choice([1, 3]),
        "intermediate_size": draw.choice([1, 13, 40]),
        "max_position_embeddings": draw.choice([17, 600]),
        "type_vocab_size": draw.choice([1, 2, 5]),
        "hidden_act": draw.choice(["gelu", "gelu_new", "relu", "silu"]),
        "layer_norm_eps": draw.choice([1e-12, 1e-5]),
        "num_labels": draw.choice([1, 2, 4]),
    }
    form = {"dtype": draw.choice(["float32", "bfloat16", "float16"]), "prefix": draw.choice(PREFIXES)}
    form |= {"shards": draw.random() < 0.3, "buffers": draw.random() < 0.5, "pickled": draw.random() < 0.3}
    torch.manual_seed(draw.randrange(1000))
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**values)).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    model = model.to(getattr(torch, form["dtype"]))
    model.save_pretrained(directory, max_shard_size="3KB" if form["shards"] else "5GB")
    if not form["shards"]:
        tensors = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        if form["buffers"]:
            positions = torch.arange(values["max_position_embeddings"])[None]
            tensors["bert.embeddings.position_ids"] = positions
        tensors = {form["prefix"] + name: tensor for name, tensor in tensors.items()}
        if form["pickled"]:
            torch.save(tensors, directory / "pytorch_model.bin")
        else:
            save_file(tensors, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    if draw.random() < 0.5:  # an older writer's: the number alone
        config.pop("id2label", None), config.pop("label2id", None)
        config["num_labels"] = values["num_labels"]
    (directory / "config.json").write_text(json.dumps(config))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(values["vocab_size"] - 5))]
    (directory / "vocab.txt").write_text("\n".join(words))
    return {"model": model.float(), **values, **form}


@pytest.mark.parametrize("seed", range(24))
def test_logits_are_those_of_transformers(tmp_path, seed):
    drawn = write_directory(tmp_path, random.Random(seed))
    ours = load_model(tmp_path)
    batch = random_batch(drawn["vocab_size"], rows=4, seed=seed)
    batch["token_type_ids"] %= drawn["type_vocab_size"]
    with torch.no_grad():
        inputs = {name: torch.tensor(value).long() for name, value in batch.items()}
        expected = drawn["model"](**inputs).logits.numpy()
    logits = forward(SequenceClassifier(ours.config), ours.params, batch).logits
    assert ours.config.num_labels == drawn["num_labels"]
    np.testing.assert_allclose(logits, expected, atol=3e-5 * max(1, np.abs(expected).max()))
