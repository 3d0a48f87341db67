"""Every key of a Hugging Face BERT config off its default, one by one: equal outputs, or a refusal."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch_reference import random_batch, tiny_torch_model, torch_outputs

from bert_emd_jax.checkpoints.model_directory import load_model, load_whole_model, save_model
from bert_emd_jax.data.kinds import kind_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import SequenceClassifier, forward

HONOURED = {
    "vocab_size": 70,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "classifier_dropout": 0.4,
    "max_position_embeddings": 40,
    "type_vocab_size": 5,
    "initializer_range": 0.5,
    "layer_norm_eps": 1e-2,
    "pad_token_id": 3,
    "id2label": {0: "a", 1: "b", 2: "c", 3: "d"},
    "label2id": {"x": 0, "y": 1, "z": 2},
    "problem_type": "multi_label_classification",
    "chunk_size_feed_forward": 6,
    "use_cache": False,
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": 5,
    "eos_token_id": 6,
    "architectures": ["BertForMaskedLM"],
    "transformers_version": "4.0.0",
    "_name_or_path": "elsewhere",
    "position_embedding_type": None,
}
REFUSED = {
    "is_encoder_decoder": True,
    "is_decoder": True,
    "add_cross_attention": True,
    "model_type": "roberta",
    "position_embedding_type": "relative_key_query",
    "num_hidden_layers": None,
    "pruned_heads": {"0": [1]},
}
VOCABULARY = [f"[{word}]" for word in ("PAD", "UNK", "CLS", "SEP", "MASK")]


def save(tmp_path, changes):
    """transformers' tiny model with these keys; keys that its own class refuses are written into the file."""
    own = {"return_dict", "architectures", "transformers_version", "_name_or_path", "output_attentions"}
    own |= {"output_hidden_states", "dtype", "position_embedding_type"}
    given = {key: value for key, value in changes.items() if key not in own}
    num_labels = len(given.get("id2label", "abc"))
    model = tiny_torch_model(tmp_path, num_labels=num_labels, **given)
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {key: changes[key] for key in own & set(changes)})
    )
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, *map(str, range(50))]) + "\n")
    return model


@pytest.mark.parametrize("key", HONOURED)
def test_what_changes_outputs_is_honoured_both_ways(tmp_path, key):
    theirs = save(tmp_path, {key: HONOURED[key]})
    batch = random_batch(55, length=12)
    expected = torch_outputs(theirs, batch)["logits"]
    model = load_model(tmp_path)
    save_model(tmp_path / "again", model)
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "again" / "pytorch").eval()
    np.testing.assert_allclose(torch_outputs(again, batch)["logits"], expected, atol=1e-5)
    for ours in (model, load_model(tmp_path / "again")):
        module = SequenceClassifier(ours.config)
        logits = jax.jit(lambda params, module=module: forward(module, params, batch).logits)(ours.params)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    if key != "label2id":
        assert again.config.id2label == theirs.config.id2label


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, key):
    save(tmp_path, {})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: REFUSED[key]}))
    with pytest.raises(UserError, match=key) as refused:
        load_model(tmp_path)
    assert "\n" not in str(refused.value)


def test_no_key_is_forgotten():
    # What save() itself decides.
    theirs = set(transformers.BertConfig().to_dict())
    assert theirs <= set(HONOURED) | set(REFUSED)


@pytest.mark.parametrize(
    ("num_labels", "problem_type"),
    [(3, "multi_label_classification"), (1, "multi_label_classification"), (3, "regression"), (3, None)],
)
def test_a_conversion_keeps_the_kind_of_problem(tmp_path, num_labels, problem_type):
    """transformers' pipeline gives what it gave before."""
    tiny_torch_model(tmp_path, num_labels=num_labels, problem_type=problem_type)
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, *map(str, range(50))]) + "\n")
    model = load_whole_model(tmp_path)
    save_model(tmp_path / "again", model)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "again" / "pytorch")
    assert config.problem_type == (problem_type or "single_label_classification")
    config, source = load_model(tmp_path / "again").config, tmp_path / "again"
    if problem_type == "regression":
        with pytest.raises(UserError, match="problem_type 'regression' with 3 labels: not supported"):
            kind_of(config, source)
    else:
        assert kind_of(config, source).name == ("multi_label" if problem_type else "classification")


def test_a_regressor_says_so_to_transformers():
    """Or its pipeline would give the sigmoid of the value."""
    config = EncoderConfig(num_labels=1)
    assert config.to_dict()["problem_type"] == "regression"
    assert EncoderConfig.from_dict(config.to_dict()) == config


def test_names_that_are_null_are_none():
    values = EncoderConfig(num_labels=3).to_dict() | {"id2label": {"0": None, "1": None, "2": None}}
    assert EncoderConfig.from_dict(values) == EncoderConfig(num_labels=3)
