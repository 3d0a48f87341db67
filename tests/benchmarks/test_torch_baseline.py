"""The baseline in torch runs a model's modules by itself: their outputs are those of transformers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("ot")

from torch_baseline import outputs, torch_model

from bert_emd_jax.models.encoder_config import EncoderConfig


@torch.no_grad()
def test_outputs_are_those_of_transformers():
    model = torch_model(
        EncoderConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    ).eval()
    inputs = {
        "input_ids": torch.randint(100, 200, (2, 7), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
        "token_type_ids": torch.tensor([[0] * 3 + [1] * 4] * 2),
    }
    ours = outputs(model, **inputs)
    model.set_attn_implementation("eager")  # whose attentions are probabilities
    theirs = model(**inputs, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(ours.logits, theirs.logits)
    for one, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(one, other)
    padding = (1 - inputs["attention_mask"])[:, None, None, :] * torch.finfo(torch.float32).min
    for scores, probabilities in zip(ours.scores, theirs.attentions, strict=True):
        torch.testing.assert_close(torch.softmax(scores + padding, dim=-1), probabilities)
