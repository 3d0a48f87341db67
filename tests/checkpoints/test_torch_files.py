"""Files that PyTorch itself wrote, read without it: equal bit for bit."""

import argparse
import collections
import pathlib
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_archives import (
    dict_of,
    number,
    pickle_of,
    storage,
    tensor,
    text,
    tuple_of,
    write_legacy,
    write_zip,
)

from bert_emd_jax.checkpoints.torch_format.reader import read_torch_file
from bert_emd_jax.errors import UserError

FORMS = {"zip": {"_use_new_zipfile_serialization": True}, "legacy": {"_use_new_zipfile_serialization": False}}
DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")

every_form = pytest.mark.parametrize("form", FORMS)


def save(path: Path, content, form: str, **options) -> Path:
    torch.save(content, path, **FORMS[form], **options)
    return path


def bits(tensor) -> bytes:
    """The bytes of a tensor's elements in row-major order."""
    return bytes(
        tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy()
    )


def assert_equal_bits(read: dict[str, np.ndarray], written: dict) -> None:
    assert list(read) == list(written)
    for name, expected in written.items():
        array = read[name]
        assert array.shape == tuple(expected.shape), name
        assert array.dtype.name == str(expected.dtype).removeprefix("torch."), name
        assert array.tobytes() == bits(expected), name
        assert array.flags.aligned, name
        assert not array.flags.writeable or array.size == 0, name


@pytest.fixture
def state() -> dict:
    """Tensors of every kind that a state dict may hold."""
    torch.manual_seed(0)
    base = torch.randn(10, 7)
    tied = torch.randn(4, 3)
    return {
        "base": base,
        "transposed": base.T,
        "view": base[2:5, 1::2],
        "offset": base.reshape(-1)[13:],
        "column": base[:, 3],
        "tied": tied,
        "tied_again": tied,
        "permuted": torch.randn(2, 3, 4, 5).permute(3, 0, 2, 1),
        "row of one": torch.randn(1, 6)[:, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 768),
        "position_ids": torch.arange(12).expand((1, -1)),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
        **{dtype: (10 * torch.randn(5, 3)).to(getattr(torch, dtype)) for dtype in DTYPES},
    }


@every_form
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_equals_what_was_saved(tmp_path, state, form, protocol):
    path = save(tmp_path / "model.bin", state, form, pickle_protocol=protocol)
    assert_equal_bits(read_torch_file(path), state)


@every_form
def test_state_dict_of_a_module(tmp_path, form):
    """An OrderedDict with `_metadata`; parameters kept as such; a parameter with attributes of its own."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.BatchNorm1d(3)).half()
    state = module.state_dict()
    assert isinstance(state, collections.OrderedDict)
    assert hasattr(state, "_metadata")
    assert_equal_bits(read_torch_file(save(tmp_path / "a.bin", state, form)), state)

    module[0].weight.note = "an attribute"
    state = module.state_dict(keep_vars=True)
    assert_equal_bits(read_torch_file(save(tmp_path / "b.bin", state, form)), state)

    with_attribute = torch.randn(2, 2)
    with_attribute.note = "an attribute"
    assert_equal_bits(
        read_torch_file(save(tmp_path / "c.bin", {"x": with_attribute}, form)), {"x": with_attribute}
    )


@every_form
def test_training_checkpoints(tmp_path, state, form):
    """The model's tensors come out of whatever lies beside them, from real optimizers and arguments."""
    parameter = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    beside = {
        "epoch": 3,
        "best": 0.5,
        "name": "run",
        "args": argparse.Namespace(
            lr=1e-3, out=pathlib.PurePosixPath("a").name, layers={1, 2}, path=Path("x")
        ),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"_last_lr": [1e-3], "last_epoch": 3, "done": None},
        "rng_state": torch.get_rng_state(),
        "numpy_rng": np.random.default_rng(0).random(3),
        "metric": np.float64(0.25),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "shape": torch.Size([1, 2]),
        "history": collections.defaultdict(list, loss=[0.5, 0.25]),
        "queue": collections.deque([1, 2]),
        "storage": torch.zeros(2).untyped_storage(),
        "bytes": b"abc",
        "large": 1 << 100,
    }
    for number_, wrapper in enumerate(("state_dict", "model", "model_state_dict", "module")):
        for protocol in (2, 4):
            path = tmp_path / f"{number_}-{protocol}.bin"
            save(path, {**beside, wrapper: state}, form, pickle_protocol=protocol)
            assert_equal_bits(read_torch_file(path), state)
    nested = save(tmp_path / "nested.bin", {"model": {"state_dict": state, "step": 1}, **beside}, form)
    assert_equal_bits(read_torch_file(nested), state)
    beside_tensors = save(tmp_path / "beside.bin", {**state, "epoch": 3, "args": beside["args"]}, form)
    assert_equal_bits(read_torch_file(beside_tensors), state)


@every_form
def test_what_is_no_state_dict_is_named(tmp_path, form):
    tensor_ = torch.zeros(2)
    several = save(tmp_path / "several.bin", {"model": {"a": tensor_}, "module": {"a": tensor_ + 1}}, form)
    with pytest.raises(UserError, match="several models"):
        read_torch_file(several)
    other = save(tmp_path / "other.bin", {"student": {"a": tensor_}, "teacher": {"a": tensor_}}, form)
    with pytest.raises(UserError, match="'student', 'teacher'"):
        read_torch_file(other)
    with pytest.raises(UserError, match="no state dict"):
        read_torch_file(save(tmp_path / "list.bin", [tensor_], form))
    whole = save(tmp_path / "whole.bin", torch.nn.Linear(2, 2), form)
    with pytest.raises(UserError, match=r"'torch\.nn\.modules\.linear\.Linear'.*state_dict|no storage"):
        read_torch_file(whole)


@every_form
@pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fn", "uint16"])
def test_other_types_are_refused_by_name(tmp_path, form, dtype):
    state = {"weight": torch.zeros(3).to(getattr(torch, dtype))}
    with pytest.raises(UserError, match=f"'weight' of type {dtype}"):
        read_torch_file(save(tmp_path / "model.bin", state, form))


def test_expanded_views_are_refused(tmp_path):
    """One stored row that stands for a thousand would need memory that the file does not account for."""
    state = {"weight": torch.randn(1, 8).expand(1000, 8)}
    with pytest.raises(UserError, match="more elements than its storage"):
        read_torch_file(save(tmp_path / "model.bin", state, "zip"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "model.pt"))
    with pytest.raises(UserError, match="TorchScript"):
        read_torch_file(tmp_path / "model.pt")


def test_zip_members_are_views_of_the_file(tmp_path):
    state = {"weight": torch.randn(1000, 10), "bias": torch.randn(10)}
    read = read_torch_file(save(tmp_path / "model.bin", state, "zip"))
    assert not any(array.flags.owndata for array in read.values())


def test_tied_tensors_share_memory(tmp_path, state):
    for form in FORMS:
        read = read_torch_file(save(tmp_path / f"{form}.bin", state, form))
        assert np.shares_memory(read["tied"], read["tied_again"])
        assert np.shares_memory(read["base"], read["view"])


def test_big_endian_files(tmp_path):
    """The `byteorder` member, against torch.load, which swaps as well."""
    elements = np.arange(6, dtype=np.float32)
    pickled = pickle_of(dict_of({"weight": tensor()}))
    path = write_zip(
        tmp_path / "model.bin",
        pickled,
        {"0": elements.astype(">f4").tobytes()},
        {"byteorder": b"big", "version": b"3\n"},
    )
    expected = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(expected["weight"].numpy(), elements.reshape(2, 3))
    assert_equal_bits(read_torch_file(path), expected)

    values = elements.astype(ml_dtypes.bfloat16)
    stored = storage(kind="BFloat16Storage")
    write_zip(
        path,
        pickle_of(dict_of({"weight": tensor(stored)})),
        {"0": values.view(np.uint16).astype(">u2").tobytes()},
        {"byteorder": b"big", "version": b"3\n"},
    )
    assert_equal_bits(read_torch_file(path), torch.load(path, weights_only=True))


def test_views_of_storages_in_the_legacy_form(tmp_path):
    """PyTorch of 2017 could store a storage as a part of another one; torch.load still reads it."""
    part = tuple_of(text("part"), number(2), number(4))
    pickled = pickle_of(
        dict_of(
            {
                "whole": tensor(storage(view=b"N")),
                "part": tensor(storage(view=part), shape=(2, 2), strides=(2, 1)),
                "within": tensor(storage(view=part), offset=1, shape=(3,), strides=(1,)),
            }
        )
    )
    content = np.arange(6, dtype=np.float32).tobytes()
    path = write_legacy(tmp_path / "model.bin", pickled, {"0": (6, content)})
    expected = torch.load(path, weights_only=False)
    np.testing.assert_array_equal(expected["part"].numpy(), [[2, 3], [4, 5]])
    assert_equal_bits(read_torch_file(path), expected)

    beyond = tensor(storage(view=part), shape=(5,), strides=(1,))
    write_legacy(path, pickle_of(dict_of({"beyond": beyond})), {"0": (6, content)})
    with pytest.raises(UserError, match="more elements"):
        read_torch_file(path)


def test_python_2_strings(tmp_path):
    """Python 2 wrote names as SHORT_BINSTRING, and an OrderedDict with its items as an argument."""
    items = b"]](U\x06weight" + tensor(storage(view=b"N")) + b"ea"
    pickled = pickle_of(b"ccollections\nOrderedDict\n" + items + b"\x85R").replace(
        text("storage"), b"U\x07storage"
    )
    content = np.arange(6, dtype=np.float32).tobytes()
    path = write_legacy(tmp_path / "model.bin", pickled, {"0": (6, content)})
    assert_equal_bits(read_torch_file(path), torch.load(path, weights_only=False))


def test_zip64_archives(tmp_path, monkeypatch):
    """The 64-bit fields that archives beyond 4 GB have, forced on a small one."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    content = np.arange(6, dtype=np.float32).tobytes()
    path = write_zip(
        tmp_path / "model.bin", pickle_of(dict_of({"weight": tensor()})), {"0": content}, {"version": b"3\n"}
    )
    assert path.read_bytes().count(b"PK\x06\x06") == 1
    assert path.read_bytes().count(b"\xff\xff\xff\xff") >= 3
    assert_equal_bits(read_torch_file(path), torch.load(path, weights_only=True))


def test_torch_is_not_imported(tmp_path, state):
    path = save(tmp_path / "model.bin", state, "zip")
    code = (
        "import sys, pathlib; from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint;"
        "read_checkpoint(pathlib.Path(sys.argv[1])); assert not {'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
