"""The embedding of padding is not trained, as with PyTorch's padding_idx: gradients of transformers."""

import jax
import numpy as np
import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from torch_reference import random_batch, tiny_torch_model

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.models.heads import MaskedLanguageModel, SequenceClassifier, forward

WORDS = ("embeddings", "word_embeddings", "embedding")


@pytest.mark.parametrize(("kind", "pad"), [("classifier", 0), ("classifier", 7), ("masked_lm", 0)])
def test_gradients_of_all_positions_are_those_of_torch(tmp_path, kind, pad):
    """A loss of all hidden states, padding included, and of the logits."""
    theirs = tiny_torch_model(tmp_path, kind=kind, pad_token_id=pad)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(50))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    batch = random_batch(61, length=9)
    batch["input_ids"] = np.where(batch["attention_mask"] > 0, batch["input_ids"], pad).astype(np.int32)
    output = theirs(
        **{name: torch.tensor(value).long() for name, value in batch.items()}, output_hidden_states=True
    )
    loss = sum((states**2).sum() for states in output.hidden_states) + (output.logits**2).sum()
    loss.backward()

    model = load_model(tmp_path, head=kind)
    module = (MaskedLanguageModel if kind == "masked_lm" else SequenceClassifier)(model.config)

    def our_loss(params):
        ours = forward(module, params, batch)
        return (ours.hidden_states**2).sum() + (ours.logits**2).sum()

    gradient = jax.grad(our_loss)(model.params)["bert"]
    for name in WORDS:
        gradient = gradient[name]
    expected = theirs.get_input_embeddings().weight.grad.numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    if kind == "classifier":
        assert not np.any(gradient[pad])
    else:  # the tied decoder trains that row
        assert np.any(gradient[pad])
