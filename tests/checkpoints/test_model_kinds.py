"""Every kind of BERT checkpoint: into a model directory, and back to what transformers loads."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch_reference import random_batch, tiny_torch_model, torch_outputs

from bert_emd_jax.checkpoints import checkpoint_files, model_directory
from bert_emd_jax.checkpoints.model_directory import (
    load_model,
    load_whole_model,
    save_huggingface,
    save_model,
)
from bert_emd_jax.checkpoints.verification import differences_from_torch
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import MaskedLanguageModel, SequenceClassifier, forward
from bert_emd_jax.models.initialization import NewHead
from bert_emd_jax.models.params import flatten

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "good")
TINYBERT_CONFIG = {  # the keys of the released General_TinyBERT_4L_312D: no model_type, three of its own
    **{"attention_probs_dropout_prob": 0.1, "cell": {}, "emb_size": 24, "hidden_act": "gelu"},
    **{"hidden_dropout_prob": 0.1, "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40},
    **{"max_position_embeddings": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "pre_trained": ""},
    **{"structure": [], "type_vocab_size": 2, "vocab_size": 61},
}


def torch_directory(directory: Path, kind: str, **config):
    """A tiny transformers model with a vocabulary."""
    model = tiny_torch_model(directory, kind=kind, **config)
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return model


def tinybert_directory(directory: Path, kind: str, *, projections: tuple[str, ...]):
    """The model in the form of the released TinyBERT: an old .bin file, a bare config, extra tensors."""
    model = torch_directory(directory, kind)
    tensors = model.state_dict() | {
        f"{name}.{part}": torch.randn(shape)
        for name in projections
        for part, shape in (("weight", (30, 24)), ("bias", (30,)))
    }
    (directory / "model.safetensors").unlink()
    torch.save(tensors, directory / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (directory / "config.json").write_text(json.dumps(TINYBERT_CONFIG), encoding="utf-8")
    return model


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(
        json.dumps({key: value for key, value in values.items() if value is not None}), encoding="utf-8"
    )


@pytest.mark.parametrize("kind", ["classifier", "token_classifier", "masked_lm", "encoder", "pretraining"])
def test_there_and_back_is_bit_identical(tmp_path, kind):
    theirs = torch_directory(tmp_path / "theirs", kind)
    model = load_whole_model(tmp_path / "theirs")
    save_model(tmp_path / "ours", model, with_pytorch=False)
    assert not (tmp_path / "ours" / "pytorch").exists()
    stored = load_whole_model(tmp_path / "ours")
    assert stored.config == model.config
    save_huggingface(tmp_path / "back", stored)

    classes = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))["architectures"]
    exported = {"pretraining": "BertForMaskedLM"}.get(kind, type(theirs).__name__)
    assert classes == [exported]
    back, report = getattr(transformers, exported).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not report["missing_keys"]
    if kind == "pretraining":  # the class has no pooler; the file keeps it for those that have
        assert report["unexpected_keys"] == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
        encoder = transformers.BertModel.from_pretrained(tmp_path / "back")
        assert torch.equal(encoder.pooler.dense.weight, theirs.bert.pooler.dense.weight)
    else:
        assert not report["unexpected_keys"]
        assert back.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["token_classifier", "masked_lm", "encoder", "pretraining"])
def test_every_output_equals_transformers(tmp_path, kind):
    torch_directory(tmp_path, kind)
    model = load_whole_model(tmp_path)
    differences = differences_from_torch(model.config, model.params, tmp_path)
    names = ["embeddings", "layer 1", "layer 2", "layer 3"]
    names += ["pooled"] * (kind in ("encoder", "pretraining")) + ["logits"] * (kind != "encoder")
    assert [row.name for row in differences] == names
    assert all(row.passes for row in differences), differences


def test_an_encoder_directory_serves_every_use(tmp_path):
    torch_directory(tmp_path / "theirs", "encoder")
    save_model(tmp_path / "ours", load_whole_model(tmp_path / "theirs"), with_pytorch=False)
    with pytest.raises(UserError, match=r"missing: classifier/kernel, classifier/bias"):
        load_model(tmp_path / "ours")
    classifier = load_model(tmp_path / "ours", new_head=NewHead(3, seed=1))
    assert classifier.params["classifier"]["kernel"].shape == (24, 3)
    with pytest.raises(UserError, match=r"missing: lm_transform/kernel"):
        load_model(tmp_path / "ours", head="masked_lm")
    masked_lm = load_model(tmp_path / "ours", head="masked_lm", new_head=NewHead(3, seed=1))
    assert masked_lm.params["lm_bias"].shape == (61,)
    assert "pooler" not in masked_lm.params["bert"]
    for params in (classifier.params, masked_lm.params):
        kernel = params["bert"]["layer_2"]["output"]["kernel"]
        assert np.array_equal(
            kernel, load_model(tmp_path / "theirs", head="none").params["bert"]["layer_2"]["output"]["kernel"]
        )


def test_a_pretraining_directory_serves_every_use(tmp_path, caplog):
    theirs = torch_directory(tmp_path / "theirs", "pretraining")
    with caplog.at_level("INFO", "bert_emd_jax"):
        save_model(tmp_path / "ours", load_whole_model(tmp_path / "theirs"), with_pytorch=False)
    assert "ignored: cls.seq_relationship.bias, cls.seq_relationship.weight" in caplog.text
    classifier = load_model(tmp_path / "ours", new_head=NewHead(2, seed=1))
    assert np.array_equal(
        classifier.params["bert"]["pooler"]["kernel"].T, theirs.bert.pooler.dense.weight.detach()
    )
    assert "lm_bias" not in classifier.params
    masked_lm = load_model(tmp_path / "ours", head="masked_lm")
    assert "pooler" not in masked_lm.params["bert"]
    assert np.array_equal(masked_lm.params["lm_bias"], theirs.cls.predictions.bias.detach())
    encoder = load_whole_model(tmp_path / "theirs", head="none")
    assert set(encoder.params) == {"bert"}
    assert "pooler" in encoder.params["bert"]


def test_a_missing_pooler_is_new_for_a_use_and_not_invented_by_a_conversion(tmp_path):
    torch_directory(tmp_path, "masked_lm")
    assert "pooler" not in load_whole_model(tmp_path).params["bert"]
    assert "pooler" not in load_whole_model(tmp_path, head="none").params["bert"]
    assert load_model(tmp_path, head="none").params["bert"]["pooler"]["kernel"].shape == (24, 24)


def test_tinybert_general_model(tmp_path, caplog):
    projections = ("fit_denses.0", "fit_denses.1")
    theirs = tinybert_directory(tmp_path, "pretraining", projections=projections)
    with caplog.at_level("INFO", "bert_emd_jax"):
        model = load_model(tmp_path, head="masked_lm")
    assert "fit_denses.0.bias, fit_denses.0.weight, fit_denses.1.bias" in caplog.text
    assert model.config.classifier_activation == "none"
    batch = random_batch(61)
    with torch.no_grad():
        expected = theirs(**{name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()})
    ours = forward(MaskedLanguageModel(model.config), model.params, batch).logits
    np.testing.assert_allclose(ours, expected.prediction_logits, atol=1e-5)


def test_tinybert_task_model_has_its_relu(tmp_path, caplog):
    theirs = tinybert_directory(tmp_path / "theirs", "classifier", projections=("fit_dense",))
    with caplog.at_level("INFO", "bert_emd_jax"):
        model = load_model(tmp_path / "theirs")
    assert "ignored: fit_dense.bias, fit_dense.weight" in caplog.text
    assert "a relu stands before the classifier" in caplog.text
    assert (model.config.num_labels, model.config.classifier_activation) == (3, "relu")
    batch = random_batch(61)
    with torch.no_grad():
        pooled = torch.tensor(torch_outputs(theirs, batch)["pooled"])
        expected = theirs.classifier(torch.relu(pooled)).numpy()
    ours = forward(SequenceClassifier(model.config), model.params, batch).logits
    np.testing.assert_allclose(ours, expected, atol=1e-5)

    # A head that we train has none, and a conversion may leave it out.
    assert load_model(tmp_path / "theirs", new_head=NewHead(3, 0)).config.classifier_activation == "none"
    plain = load_whole_model(tmp_path / "theirs", classifier_activation="none")
    assert plain.config.classifier_activation == "none"
    # What was decided stays in the config, where it counts more than the tensors.
    save_model(tmp_path / "ours", model, with_pytorch=False)
    assert load_model(tmp_path / "ours").config.classifier_activation == "relu"
    edit_config(tmp_path / "theirs", classifier_activation="none")
    assert load_model(tmp_path / "theirs").config.classifier_activation == "none"

    with caplog.at_level("INFO", "bert_emd_jax"):
        save_huggingface(tmp_path / "back", model)
    assert "the relu before the classifier is not part of transformers' model" in caplog.text
    back = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "back").state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path, dtype):
    theirs = torch_directory(tmp_path, "encoder").to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    params = flatten(load_whole_model(tmp_path).params)
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}
    expected = theirs.encoder.layer[1].intermediate.dense.weight.detach().float().numpy()
    assert np.array_equal(params["bert/layer_1/intermediate/kernel"].T, expected)


def test_a_decoder_of_its_own_is_refused_for_masked_lm_only(tmp_path):
    theirs = torch_directory(tmp_path, "masked_lm", tie_word_embeddings=False)
    assert not torch.equal(
        theirs.cls.predictions.decoder.weight, theirs.bert.embeddings.word_embeddings.weight
    )
    for load in (load_whole_model, lambda path: load_model(path, head="masked_lm")):
        with pytest.raises(UserError, match=r"cls\.predictions\.decoder\.weight is not tied"):
            load(tmp_path)
    load_whole_model(tmp_path, head="none")


def test_a_stored_copy_of_the_tied_decoder_is_fine(tmp_path):
    theirs = torch_directory(tmp_path, "masked_lm")
    (tmp_path / "model.safetensors").unlink()
    tensors = theirs.state_dict()
    del tensors["cls.predictions.bias"]  # its other name remains: cls.predictions.decoder.bias
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    params = load_whole_model(tmp_path).params
    assert np.array_equal(params["lm_bias"], theirs.cls.predictions.bias.detach())


def test_half_a_pooler_or_half_another_masked_lm_head_is_no_model(tmp_path):
    theirs = torch_directory(tmp_path, "pretraining")
    (tmp_path / "model.safetensors").unlink()
    tensors = theirs.state_dict() | {"cls.predictions.transform.second.weight": torch.zeros(3)}
    del tensors["bert.pooler.dense.bias"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"missing: pooler\.dense\.bias; left over: cls\.predictions\.transform"
    ):
        load_whole_model(tmp_path)
    for head in ("none", "classifier"):
        with pytest.raises(UserError, match=r"missing: pooler\.dense\.bias"):
            load_model(tmp_path, head=head)
    with pytest.raises(UserError, match=r"left over: cls\.predictions\.transform\.second"):
        load_model(tmp_path, head="masked_lm")


def test_a_model_directory_with_more_layers_than_its_config_says(tmp_path):
    torch_directory(tmp_path / "theirs", "classifier")
    save_model(tmp_path / "ours", load_whole_model(tmp_path / "theirs"), with_pytorch=False)
    edit_config(tmp_path / "ours", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"left over: bert/layer_2/"):
        load_model(tmp_path / "ours")


def test_a_classifier_of_tokens_is_no_classifier_of_texts(tmp_path):
    torch_directory(tmp_path, "token_classifier")
    with pytest.raises(UserError, match=r"missing: classifier\.weight, .*ignored: classifier\.bias"):
        load_model(tmp_path)
    with pytest.raises(UserError, match=r"missing: classifier\.weight"):
        load_model(tmp_path, head="classifier")
    assert load_model(tmp_path, head=None).config.head == "token"
    fresh = load_model(tmp_path, new_head=NewHead(3, seed=0))
    assert not fresh.params["classifier"]["bias"].any()
    assert fresh.config.head is None
    edit_config(tmp_path, architectures=None)  # the missing pooler says it as well
    with pytest.raises(UserError, match=r"missing: classifier\.weight"):
        load_model(tmp_path)
    model = load_model(tmp_path, new_head=NewHead(3, seed=0))  # as many labels as the one of tokens
    assert not model.params["classifier"]["bias"].any()
    assert set(load_whole_model(tmp_path).params) == {"bert"}


def test_a_classifier_of_texts_is_none_of_tokens(tmp_path):
    torch_directory(tmp_path / "theirs", "classifier")
    new_head = NewHead(3, seed=0, problem_type="token_classification")
    with pytest.raises(UserError, match=r"missing: classifier\.weight, .*ignored: classifier\.bias"):
        load_model(tmp_path / "theirs", head="token")
    fresh = load_model(tmp_path / "theirs", head="token", new_head=new_head)
    assert not fresh.params["classifier"]["bias"].any()
    assert fresh.config.head == "token"
    # Through a model directory, too, and back.
    save_model(tmp_path / "ours", fresh)
    with pytest.raises(UserError, match=r"missing: classifier/kernel"):
        load_model(tmp_path / "ours")
    assert load_whole_model(tmp_path / "ours").config == fresh.config
    back = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "ours" / "pytorch")
    assert torch.equal(back.classifier.weight, torch.tensor(fresh.params["classifier"]["kernel"].T))


def test_a_weights_file_takes_config_and_vocabulary_from_beside_it(tmp_path):
    torch_directory(tmp_path, "classifier")
    model = load_model(tmp_path / "model.safetensors")
    assert model.tokenizer.vocab_size == len(WORDS)
    assert model.config == load_model(tmp_path).config


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_the_config_is_read_once_and_the_weights_are_found_once(tmp_path, monkeypatch, file):
    torch_directory(tmp_path, "classifier")
    calls = []

    def counted(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, **options: calls.append(name) or function(*args, **options)
        )

    counted(EncoderConfig, "from_dict")
    for module in (model_directory, checkpoint_files):
        counted(module, "find_weights")
    for load in (load_model, load_whole_model):
        load(tmp_path / file)
        assert sorted(calls) == ["find_weights", "from_dict"]
        calls.clear()
    save_model(tmp_path / "ours", load_whole_model(tmp_path), with_pytorch=False)
    calls.clear()
    load_model(tmp_path / "ours")
    assert calls == ["from_dict"]


def test_a_hub_id_is_resolved(tmp_path, monkeypatch):
    torch_directory(tmp_path, "classifier")
    asked = []
    monkeypatch.setattr(model_directory, "resolve_model", lambda name: asked.append(str(name)) or tmp_path)
    load_model(Path("google-bert/bert-base-uncased"))
    load_whole_model(Path("google-bert/bert-base-uncased"))
    assert asked == ["google-bert/bert-base-uncased"] * 2


def test_the_same_tensor_under_two_names_is_refused(tmp_path):
    theirs = torch_directory(tmp_path, "classifier")
    tensors = theirs.state_dict()
    tensors["pooler.dense.bias"] = tensors["bert.pooler.dense.bias"] + 1
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pooler\.dense\.bias and .*pooler\.dense\.bias are the same"):
        load_model(tmp_path)
