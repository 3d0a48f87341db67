"""Directories without weights that we read: one line says what is there and what to do."""

import json

import numpy as np
import pytest

from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint
from bert_emd_jax.checkpoints.huggingface import write_safetensors
from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.errors import UserError


def put(*names):
    def make(directory):
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(b"x")

    return make


def adapter(directory):
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/bert"}))
    put("adapter_model.safetensors")(directory)


def dangling(directory):
    (directory / "model.safetensors").symlink_to("../../blobs/gone")


DIRECTORIES = {
    "TensorFlow": (put("tf_model.h5", "config.json"), "TensorFlow alone; load it with .*from_tf=True"),
    "Flax": (put("flax_model.msgpack"), "own Flax models alone; .*from_flax=True"),
    "ONNX": (put("onnx/model.onnx"), "an ONNX graph"),
    "PEFT": (adapter, r"an adapter \(PEFT\) of some/bert; merge it"),
    "damaged PEFT": (put("adapter_config.json"), "an adapter"),
    "a folder of a module": (put("0_BERT/pytorch_model.bin"), "the model is in .*0_BERT: name that"),
    "hub cache": (put("refs/main", "snapshots/abc123/model.safetensors"), "in .*snapshots/abc123: name that"),
    "training": (put("checkpoint-500/model.safetensors", "log"), "in .*checkpoint-500: name that"),
    "link": (dangling, "model.safetensors is a link to ../../blobs/gone, where"),
    "something": (
        put("a.txt", "b.txt"),
        "holds neither params/ nor a weights file .*; there are a.txt, b.txt",
    ),
    "nothing": (lambda directory: None, "it is empty"),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_what_is_there_is_said(tmp_path, name):
    make, message = DIRECTORIES[name]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        load_model(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "prefix", ["base_model.model.", "0.auto_model.", "model.", "module.", "model.module."]
)
def test_a_wrapper_around_all_tensors_is_taken_off(tmp_path, prefix):
    names = ("bert.embeddings.word_embeddings.weight", "classifier.bias")
    write_safetensors(
        tmp_path / "model.safetensors", {prefix + name: np.ones(3, np.float32) for name in names}
    )
    assert set(read_checkpoint(tmp_path).tensors) == set(names)
    mixed = {f"{prefix}{names[0]}": np.ones(3, np.float32), names[1]: np.ones(3, np.float32)}
    write_safetensors(tmp_path / "model.safetensors", mixed)
    assert set(read_checkpoint(tmp_path).tensors) == set(mixed)
