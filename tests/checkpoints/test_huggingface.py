"""Every number our model computes from a Hugging Face file, against transformers on torch."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_reference import random_batch, tiny_torch_model, torch_outputs

from bert_emd_jax.checkpoints.checkpoint_files import Checkpoint, read_checkpoint
from bert_emd_jax.checkpoints.huggingface import stored_model, write_huggingface_weights
from bert_emd_jax.checkpoints.loading import load_params, plan_loading
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig, read_config_values
from bert_emd_jax.models.heads import MaskedLanguageModel, SequenceClassifier
from bert_emd_jax.models.initialization import NewHead

TOLERANCE = 1e-5


def load(directory: Path, head="classifier", tensors=None, **options):
    """Config and parameters of a transformers directory, or of its config with other tensors."""
    checkpoint = read_checkpoint(directory) if tensors is None else Checkpoint(tensors, "file")
    values, source = read_config_values(directory)
    stored = stored_model(checkpoint, EncoderConfig.from_dict(values, source), values)
    plan = plan_loading(stored, head, **options)
    return plan.config, load_params(stored, plan)


def tensors_of(directory: Path) -> dict[str, np.ndarray]:
    return dict(read_checkpoint(directory).tensors)


def assert_equal_outputs(ours, theirs):
    compared = 0
    for name, expected in theirs.items():
        difference = np.max(np.abs(np.asarray(getattr(ours, name)) - expected))
        assert difference <= TOLERANCE, (name, difference)
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "gelu_fast"},
        {"hidden_act": "silu"},
        {"hidden_act": "mish"},
        {"layer_norm_eps": 1e-3},
        {"num_attention_heads": 1},
        {"type_vocab_size": 3, "num_labels": 1},
    ],
    ids=str,
)
def test_classifier_equals_transformers(tmp_path, changes):
    theirs = tiny_torch_model(tmp_path, **changes)
    config, params = load(tmp_path)
    batch = random_batch(config.vocab_size)
    ours = jax.jit(SequenceClassifier(config).apply)({"params": params}, **batch)
    assert config.num_labels == theirs.config.num_labels
    assert_equal_outputs(ours, torch_outputs(theirs, batch))


def test_masked_lm_equals_transformers(tmp_path):
    theirs = tiny_torch_model(tmp_path, kind="masked_lm")
    config, params = load(tmp_path, head="masked_lm")
    batch = random_batch(config.vocab_size)
    ours = MaskedLanguageModel(config).apply({"params": params}, **batch)
    assert_equal_outputs(ours, torch_outputs(theirs, batch))


def test_bfloat16_compute_keeps_float32_parameters_and_stays_near(tmp_path):
    theirs = tiny_torch_model(tmp_path)
    config, params = load(tmp_path)
    batch = random_batch(config.vocab_size)
    ours = SequenceClassifier(config, jnp.bfloat16).apply({"params": params}, **batch)
    assert ours.hidden_states.dtype == jnp.bfloat16
    assert ours.logits.dtype == jnp.float32
    expected = torch_outputs(theirs, batch)["hidden_states"]
    # bfloat16 has 8 bits of mantissa: 3 layers of residuals of size ~3 stay within a few of its steps.
    assert np.max(np.abs(np.asarray(ours.hidden_states, np.float32) - expected)) < 0.1


def test_transformers_loads_what_we_write(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = tiny_torch_model(tmp_path / "theirs", id2label={0: "no", 1: "maybe", 2: "yes"})
    config, params = load(tmp_path / "theirs")
    write_huggingface_weights(tmp_path / "ours", params, config)
    back, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    for name, tensor in theirs.state_dict().items():  # bit-identical round trip
        assert np.array_equal(tensor.numpy(), back.state_dict()[name].numpy()), name


def test_bare_encoder_gets_a_new_classifier_only_where_one_is_trained(tmp_path):
    tiny_torch_model(tmp_path, kind="encoder")
    with pytest.raises(UserError, match=r"missing: classifier\.weight, classifier\.bias"):
        load(tmp_path)
    config, params = load(tmp_path, new_head=NewHead(5, seed=1, id2label=tuple("abcde")))
    assert config.id2label == tuple("abcde")
    assert params["classifier"]["kernel"].shape == (24, 5)
    assert 0.01 < params["classifier"]["kernel"].std() < 0.03
    assert not params["classifier"]["bias"].any()


def test_classifier_of_another_size_is_replaced_only_where_one_is_trained(tmp_path):
    theirs = tiny_torch_model(tmp_path, num_labels=3)
    config, params = load(tmp_path, new_head=NewHead(2, seed=1))
    assert config.num_labels == 2
    assert params["classifier"]["kernel"].shape == (24, 2)
    _, kept = load(tmp_path, new_head=NewHead(3, seed=1))
    assert np.array_equal(kept["classifier"]["kernel"].T, theirs.classifier.weight.detach().numpy())


def test_label_count_is_the_rows_of_the_classifier(tmp_path):
    tiny_torch_model(tmp_path, num_labels=4)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    values.pop("id2label")
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert load(tmp_path)[0].num_labels == 4


def test_old_names_and_heads_of_other_tasks(tmp_path, caplog):
    theirs = tiny_torch_model(tmp_path)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors_of(tmp_path).items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in tensors
    names = ("cls.predictions.bias", "qa_outputs.weight", "bert.embeddings.position_ids")
    with caplog.at_level("INFO", "bert_emd_jax"):
        config, params = load(tmp_path, tensors=tensors | {name: np.zeros(3, np.float32) for name in names})
    assert f"ignored: {', '.join(sorted(names))}" in caplog.text
    batch = random_batch(config.vocab_size)
    ours = SequenceClassifier(config).apply({"params": params}, **batch)
    assert_equal_outputs(ours, torch_outputs(theirs, batch))


def test_every_problem_is_listed_in_one_line(tmp_path):
    tiny_torch_model(tmp_path)
    tensors = tensors_of(tmp_path)
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    del tensors["bert.embeddings.LayerNorm.weight"]
    tensors["bert.encoder.layer.9.output.dense.bias"] = np.zeros(24, np.float32)
    tensors["bert.pooler.dense.weight"] = np.zeros((24, 23), np.float32)
    tensors["bert.pooler.dense.bias"] = np.zeros(24, np.int8)
    with pytest.raises(UserError) as raised:
        load(tmp_path, tensors=tensors)
    message = str(raised.value)
    assert "missing: embeddings.LayerNorm.weight, encoder.layer.1.output.dense.bias" in message
    assert "left over: bert.encoder.layer.9.output.dense.bias" in message
    assert "bert.pooler.dense.weight [24, 23], expected [24, 24]" in message
    assert "bert.pooler.dense.bias (int8)" in message
    assert "\n" not in message
