"""Finding weights and reading them: safetensors, shards, wrappers, and the files' names."""

import json
import struct
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_archives import dict_of, pickle_of, storage, tensor, write_zip

from bert_emd_jax.checkpoints.checkpoint_files import (
    config_directory,
    find_weights,
    read_checkpoint,
    read_safetensors,
)
from bert_emd_jax.errors import UserError


def write_safetensors(path: Path, **tensors) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors or {"weight": np.ones(2, np.float32)}, path)
    return path


def raw_safetensors(path: Path, header, content: bytes = b"") -> Path:
    """A safetensors file with any header."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content)
    return path


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_safetensors_equal_the_library(tmp_path):
    rng = np.random.default_rng(0)
    dtypes = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
    tensors = {dtype: (10 * rng.standard_normal((3, 5))).astype(dtype) for dtype in dtypes}
    tensors |= {"scalar": np.full((), 2.5, np.float32), "empty": np.zeros((0, 7), np.float32)}
    path = write_safetensors(tmp_path / "model.safetensors", **tensors)
    read = read_safetensors(path)
    expected = safetensors.numpy.load_file(path)
    assert set(read) == set(expected)
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()
        assert not read[name].flags.writeable


def test_bfloat16_safetensors_equal_torch(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    tensors = {"weight": torch.randn(4, 3).to(torch.bfloat16), "odd": torch.zeros(3, dtype=torch.uint8)}
    safetensors_torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = read_safetensors(tmp_path / "model.safetensors")
    assert read["weight"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read["weight"].view(np.int16), tensors["weight"].view(torch.int16).numpy())


def test_unaligned_safetensors(tmp_path):
    """Old writers did not pad the header."""
    values = np.arange(3, dtype=np.float32)
    header = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    for spaces in range(4):
        path = raw_safetensors(tmp_path / "model.safetensors", header + b" " * spaces, values.tobytes())
        read = read_safetensors(path)["w"]
        np.testing.assert_array_equal(read, values)
        assert read.flags.aligned


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, "F8_E4M3"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "not a readable"),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "not a readable"),
        ({"w": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 4]}}, "not a readable"),
        ({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "not a readable"),
        (b"{" * 100_000, "not a readable"),
        (b"{" + b" " * (5 << 20) + b"}", "header of 5242882 bytes"),
        ([], "not a readable"),
    ],
)
def test_damaged_safetensors(tmp_path, header, reason):
    path = raw_safetensors(tmp_path / "model.safetensors", header, bytes(4))
    assert reason in refusal(read_checkpoint, path)


def test_safetensors_cut_anywhere(tmp_path):
    content = write_safetensors(tmp_path / "model.safetensors").read_bytes()
    for length in range(len(content)):
        (tmp_path / "model.safetensors").write_bytes(content[:length])
        refusal(read_checkpoint, tmp_path)


def test_safetensors_are_mapped(tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", weight=np.zeros((1 << 20, 4), np.float32))
    tracemalloc.start()
    read = read_safetensors(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert read["weight"].sum() == 0


def test_order_of_preference(tmp_path):
    assert find_weights(tmp_path) is None
    for name in (
        "bert_model.ckpt.index",
        "pytorch_model.bin.index.json",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "model.safetensors",
    ):
        (tmp_path / name).touch()
        assert find_weights(tmp_path) == tmp_path / name
    assert config_directory(tmp_path) == tmp_path
    assert config_directory(tmp_path / "model.safetensors") == tmp_path


def test_tensorflow_checkpoints_are_found(tmp_path):
    (tmp_path / "model.ckpt-100.index").touch()
    assert find_weights(tmp_path) == tmp_path / "model.ckpt-100.index"
    assert find_weights(tmp_path / "model.ckpt-100") == tmp_path / "model.ckpt-100.index"
    assert config_directory(tmp_path / "model.ckpt-100") == tmp_path
    (tmp_path / "model.ckpt-200.index").touch()
    assert "model.ckpt-200" in refusal(find_weights, tmp_path)


def test_single_files_of_any_name(tmp_path):
    pickled = pickle_of(dict_of({"weight": tensor()}))
    for name in ("student.bin", "epoch3.pt", "best.pth", "last.ckpt"):
        checkpoint = read_checkpoint(write_zip(tmp_path / name, pickled))
        assert list(checkpoint.tensors) == ["weight"]
        assert checkpoint.source == str(tmp_path / name)
    read_checkpoint(write_safetensors(tmp_path / "student.safetensors"))


def test_nothing_there(tmp_path):
    assert "no such file or directory" in refusal(read_checkpoint, tmp_path / "absent")
    assert "holds no weights" in refusal(read_checkpoint, tmp_path)
    (tmp_path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n", encoding="utf-8"
    )
    assert "git lfs pull" in refusal(read_checkpoint, tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_wrapper_prefixes(tmp_path, prefix):
    path = write_safetensors(
        tmp_path / "model.safetensors", **{f"{prefix}{name}": np.ones(1, np.float32) for name in "ab"}
    )
    assert set(read_checkpoint(path).tensors) == {"a", "b"}


def test_a_prefix_of_some_names_stays(tmp_path):
    path = write_safetensors(
        tmp_path / "model.safetensors", **{"module.a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    )
    assert set(read_checkpoint(path).tensors) == {"module.a", "b"}


def sharded(directory: Path, weight_map) -> Path:
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}), encoding="utf-8")
    return index


def test_shards(tmp_path):
    a, b = np.ones(2, np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", **{"module.a": a})
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", **{"module.b": b})
    weight_map = {
        "module.a": "model-00001-of-00002.safetensors",
        "module.b": "model-00002-of-00002.safetensors",
    }
    index = sharded(tmp_path, weight_map)
    for path in (tmp_path, index):
        read = read_checkpoint(path).tensors
        np.testing.assert_array_equal(read["a"], a)
        np.testing.assert_array_equal(read["b"], b)

    sharded(tmp_path, weight_map | {"module.c": "model-00002-of-00002.safetensors"})
    assert "lacks tensors" in refusal(read_checkpoint, tmp_path)
    sharded(tmp_path, weight_map | {"c": "model-00003-of-00003.safetensors"})
    assert "model-00003-of-00003.safetensors" in refusal(read_checkpoint, tmp_path)


def test_torch_shards(tmp_path):
    write_zip(tmp_path / "pytorch_model-00001-of-00002.bin", pickle_of(dict_of({"a": tensor()})))
    stored = tensor(storage(size=1), shape=(1,), strides=(1,))
    write_zip(
        tmp_path / "pytorch_model-00002-of-00002.bin", pickle_of(dict_of({"b": stored})), {"0": bytes(4)}
    )
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps(
            {"weight_map": {n: f"pytorch_model-0000{i}-of-00002.bin" for n, i in (("a", 1), ("b", 2))}}
        ),
        encoding="utf-8",
    )
    read = read_checkpoint(tmp_path).tensors
    np.testing.assert_array_equal(read["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read["b"], [0])


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "a\nb", 3, None]
)
def test_shards_stay_inside_the_directory(tmp_path, shard):
    write_safetensors(tmp_path / "model.safetensors")
    directory = tmp_path / "inner"
    directory.mkdir()
    sharded(directory, {"weight": shard})
    assert "not a plain file name" in refusal(read_checkpoint, directory)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000]
)
def test_damaged_indexes(tmp_path, content):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content, encoding="utf-8")
    assert "index" in refusal(read_checkpoint, tmp_path)


def test_shards_as_transformers_writes_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert not (tmp_path / "model.safetensors").exists()
    read = read_checkpoint(tmp_path).tensors
    expected = {name: value.numpy() for name, value in model.state_dict().items()}
    assert set(read) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value)
