"""convert_pytorch_checkpoints.py: every flag, and what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bert_emd_jax.checkpoints.model_directory import load_model, load_whole_model
from bert_emd_jax.commands import convert


@pytest.fixture
def torch_form(tmp_path, tiny_model_dir) -> Path:
    """A Hugging Face directory of a classifier."""
    return tiny_model_dir("model", num_hidden_layers=2) / "pytorch"


def run(*flags: object) -> int:
    return convert.main([str(flag) for flag in flags])


def refused(capsys, *flags: object) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def edit_weights(directory: Path, **changes) -> None:
    path = directory / "model.safetensors"
    tensors = {**safetensors.numpy.load_file(path), **changes}
    safetensors.numpy.save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}, path
    )


def test_there_and_back(tmp_path, torch_form, capsys):
    assert run("--input", torch_form, "--output_dir", tmp_path / "ours") == 0
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {
        *("config.json", "params", "vocab.txt", "tokenizer_config.json"),
    }
    assert run("--input", tmp_path / "ours", "--output_dir", tmp_path / "back", "--to_pytorch") == 0
    capsys.readouterr()
    before, after = ((path / "model.safetensors").read_bytes() for path in (torch_form, tmp_path / "back"))
    assert before == after
    assert json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8")) == json.loads(
        (torch_form / "config.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(("flag", "kept"), [("none", {"bert"}), ("classifier", {"bert", "classifier"})])
def test_the_head_to_keep(tmp_path, torch_form, flag, kept):
    assert run("--input", torch_form, "--output_dir", tmp_path / "ours", "--head", flag) == 0
    assert set(load_whole_model(tmp_path / "ours").params) == kept


def test_the_relu_before_the_classifier(tmp_path, torch_form, capsys):
    edit_weights(torch_form, **{"fit_dense.weight": np.zeros((3, 16), np.float32)})
    values = json.loads((torch_form / "config.json").read_text(encoding="utf-8"))
    del values["classifier_activation"]  # transformers has no such key
    (torch_form / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert run("--input", torch_form, "--output_dir", tmp_path / "relu") == 0
    assert "a relu stands before the classifier" in capsys.readouterr().out
    assert load_model(tmp_path / "relu").config.classifier_activation == "relu"
    flags = ("--input", torch_form, "--output_dir", tmp_path / "none", "--classifier_activation", "none")
    assert run(*flags) == 0
    assert "a relu stands" not in capsys.readouterr().out
    assert load_model(tmp_path / "none").config.classifier_activation == "none"
    assert run("--input", tmp_path / "relu", "--output_dir", tmp_path / "back", "--to_pytorch") == 0
    assert "not part of transformers' model" in capsys.readouterr().out


def test_inspect_shows_every_tensor_and_writes_nothing(tmp_path, torch_form, capsys):
    edit_weights(torch_form, **{"cls.seq_relationship.bias": np.zeros(2, np.float16)})
    before = sorted(tmp_path.rglob("*"))
    assert run("--input", torch_form, "--inspect") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(tmp_path.rglob("*")) == before
    rows = {line.split("  ")[0]: line for line in lines}
    tensors = safetensors.numpy.load_file(torch_form / "model.safetensors")
    assert tensors.keys() <= rows.keys()
    row = " ".join(rows["bert.encoder.layer.1.intermediate.dense.weight"].split())
    assert row.endswith("[24, 16] float32 bert/layer_1/intermediate/kernel (transposed)")
    assert " ".join(rows["cls.seq_relationship.bias"].split()).endswith("[2] float16 ignored")
    parameters = sum(tensor.size for tensor in tensors.values()) - 2
    summary = (
        f"{len(tensors)} tensors: {len(tensors) - 1} used ({parameters:,} parameters), 1 ignored, 0 left over"
    )
    assert summary in lines
    assert "labels: bad, good; before the classifier: none" in lines

    assert run("--input", torch_form.parent, "--inspect") == 0  # a model directory has Flax's names
    assert "bert/layer_1/intermediate/kernel" in capsys.readouterr().out


def test_inspect_of_what_cannot_be_converted(torch_form, capsys):
    edit_weights(
        torch_form,
        **{"bert.pooler.dense.bias": None, "bert.extra.weight": np.zeros(3, np.float32)},
    )
    assert run("--input", torch_form, "--inspect") == 2
    output = capsys.readouterr()
    assert "missing: pooler.dense.bias" in output.err
    assert "left over: bert.extra.weight" in output.err
    assert output.err.count("\n") == 1
    row = next(line for line in output.out.splitlines() if line.startswith("bert.extra.weight"))
    assert row.endswith("left over")


def test_verify_compares_what_was_written(tmp_path, torch_form, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    assert run("--input", torch_form, "--output_dir", tmp_path / "ours", "--verify") == 0
    output = capsys.readouterr().out
    assert "PASS: every layer equals transformers' within 1e-05" in output
    rows = [line.split()[0] for line in output.splitlines() if "e-0" in line.split()[-1]]
    assert rows == ["embeddings", "layer", "layer", "pooled", "logits"]

    # A model directory alone, and one whose config does not tell the truth about its weights.
    config = tmp_path / "ours" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"none"', '"relu"'), encoding="utf-8")
    assert run("--input", tmp_path / "ours", "--verify") == 0
    assert "the relu before the classifier was put into transformers' model" in capsys.readouterr().out
    values = json.loads((torch_form / "config.json").read_text(encoding="utf-8"))
    (torch_form / "config.json").write_text(
        json.dumps(values | {"classifier_activation": "relu"}), encoding="utf-8"
    )
    flags = ("--input", torch_form, "--verify", "--classifier_activation", "none")
    assert run(*flags) == 0
    capsys.readouterr()


def test_verify_fails_where_the_models_differ(torch_form, capsys, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from bert_emd_jax.checkpoints import model_directory

    def spoiled(*args, **kwargs):
        model = original(*args, **kwargs)
        scale = np.array(model.params["bert"]["layer_1"]["output_layer_norm"]["scale"])
        scale[3] *= 1.001
        model.params["bert"]["layer_1"]["output_layer_norm"]["scale"] = scale
        return model

    original = model_directory.load_whole_model
    monkeypatch.setattr(model_directory, "load_whole_model", spoiled)
    error = refused(capsys, "--input", torch_form, "--verify")
    assert "FAIL: differs from transformers by more than 1e-05: layer 2, pooled, logits" in error


def test_verify_of_the_exported_classifier(tmp_path, torch_form, capsys):
    for package in ("torch", "transformers", "flatbuffers"):
        pytest.importorskip(package)
    flags = ("--input", torch_form, "--output_dir", tmp_path / "out", "--to_stablehlo", "--verify")
    assert run(*flags) == 0
    assert "\nStableHLO" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("classifier.stablehlo", "classifier.safetensors", "config.json"),
        *("vocab.txt", "tokenizer_config.json"),
    }


def test_packages_that_are_missing_are_named(tmp_path, torch_form, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    absent = ("torch", "transformers", "flatbuffers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    output = tmp_path / "out"
    assert "pip install torch transformers" in refused(
        capsys, "--input", torch_form, "--verify", "--output_dir", output
    )
    assert "pip install flatbuffers" in refused(
        capsys, "--input", torch_form, "--to_stablehlo", "--output_dir", output
    )
    assert not output.exists()


def test_flags_that_do_not_go_together(tmp_path, torch_form, capsys):
    assert "--output_dir is needed" in refused(capsys, "--input", torch_form)
    both = ("--to_pytorch", "--to_stablehlo")
    assert "--output_dir is needed" in refused(capsys, "--input", torch_form, "--verify", "--to_pytorch")
    assert "choose one" in refused(capsys, "--input", torch_form, "--verify", "--inspect")
    assert "choose one" in refused(capsys, "--input", torch_form, "--output_dir", tmp_path / "out", *both)
    assert "not empty" in refused(capsys, "--input", torch_form, "--output_dir", torch_form)
    error = refused(capsys, "--input", torch_form, "--output_dir", tmp_path / "out", "--head", "masked_lm")
    assert "missing: cls.predictions.transform.dense.weight" in error
    assert not (tmp_path / "out").exists()
