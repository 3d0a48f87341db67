"""Archives and descriptions of tensors that lie: each is refused with one line, in little memory."""

import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from torch_archives import (
    GOOD,
    MEMORY_BEYOND_THE_FILE,
    SIX_FLOATS,
    dict_of,
    number,
    pickle_of,
    refusal,
    storage,
    tensor,
    text,
    tuple_of,
    write_legacy,
    write_zip,
)

from bert_emd_jax.checkpoints.checkpoint_files import read_checkpoint
from bert_emd_jax.checkpoints.torch_format.reader import read_torch_file
from bert_emd_jax.errors import UserError


@pytest.mark.parametrize(
    ("described", "reason"),
    {
        "negative length": (tensor(shape=(-2, 3)), "proper"),
        "negative stride": (tensor(strides=(-3, 1), offset=5), "proper"),
        "negative offset": (tensor(offset=-1), "proper"),
        "offset": (tensor(offset=1), "beyond"),
        "shape": (tensor(shape=(3, 3)), "more elements"),
        "stride": (tensor(strides=(4, 1)), "beyond"),
        "zero strides": (tensor(shape=(1 << 20, 1 << 20), strides=(0, 0)), "more elements"),
        "overflowing product": (tensor(shape=(1 << 32, 1 << 32), strides=(0, 0)), "more elements"),
        "overflowing stride": (tensor(shape=(2, 3), strides=(1 << 63, 1)), "proper"),
        "giant numbers": (tensor(shape=(1 << 2000,), strides=(1,)), "proper"),
        "bool": (tensor(shape=(2, 3), strides=(3, 1)).replace(number(3), b"\x88"), "proper"),
        "many dimensions": (tensor(shape=(1,) * 65, strides=(1,) * 65), "proper"),
        "lengths differ": (tensor(shape=(2, 3), strides=(1,)), "proper"),
        "absurd and empty": (tensor(shape=(0, 1 << 40, 1 << 40), strides=(1, 1, 1)), "absurd"),
        "complex": (tensor(storage(kind="ComplexFloatStorage", size=3)), "complex64"),
        "quantised": (tensor(storage(kind="QInt8Storage")), "QInt8Storage"),
        "no such storage": (tensor(storage(key="1")), "no data"),
        "path as key": (tensor(storage(key="../../../etc/passwd")), "no data"),
        "storage too small": (tensor(storage(size=7)), "24 bytes"),
        "storage too large": (tensor(storage(size=4), shape=(2, 2), strides=(2, 1)), "24 bytes"),
        "absurd storage": (tensor(storage(size=1 << 59)), "24 bytes"),
        "negative storage": (tensor(storage(size=-6)), "wrong description"),
        "view beyond storage": (
            tensor(storage(view=tuple_of(text("v"), number(4), number(3)))),
            "beyond the end of its storage",
        ),
        "no storage": (tensor(b"N"), "without a storage"),
        "a module": (tensor(tuple_of(text("module"), b"N", b"N", b"N", b"N") + b"Q"), "not a storage"),
        "negated view": (tensor(metadata=dict_of({"neg": b"\x88"})), "negated"),
        "two types": (
            b"(" + tensor() + tensor(storage(kind="IntStorage")) + b"1" + tensor(),
            "two different descriptions",
        ),
    }.values(),
)
def test_false_descriptions_of_tensors(tmp_path, described, reason):
    path = write_zip(tmp_path / "model.bin", pickle_of(dict_of({"weight": described})))
    assert reason in refusal(path)


def test_false_sizes_in_the_legacy_form(tmp_path):
    path = tmp_path / "legacy.bin"
    for storages in (
        {},
        {"0": (7, SIX_FLOATS)},
        {"0": (-1, SIX_FLOATS)},
        {"0": (1 << 62, SIX_FLOATS)},
        {"0": (6, SIX_FLOATS[:-1])},
        {"1": (6, SIX_FLOATS)},
    ):
        assert "storage" in refusal(write_legacy(path, GOOD, storages))


def zip_with(tmp_path: Path, change) -> Path:
    """A good archive with changed bytes."""
    path = write_zip(tmp_path / "model.bin", GOOD)
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_compressed_members_are_refused(tmp_path):
    bomb = write_zip(tmp_path / "bomb.bin", GOOD, {"0": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    assert "compressed" in refusal(bomb)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_and_contradictory_archives(tmp_path):
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(write_zip(path, GOOD), "a") as archive:
        archive.writestr("archive/data.pkl", pickle_of(b"N"))
    assert "two members" in refusal(path)

    with zipfile.ZipFile(write_zip(path, GOOD), "a") as archive:
        archive.writestr("other/data.pkl", GOOD)
    assert "data.pkl" in refusal(path)

    assert "byte order" in refusal(write_zip(path, GOOD, extra={"byteorder": b"middle"}))

    directory = bytes(path.read_bytes()).index(b"PK\x01\x02")

    def encrypted(content):
        content[directory + 8] |= 1

    def size_that_lies(content):
        last = content.rindex(b"PK\x01\x02")
        content[last + 20 : last + 28] = struct.pack("<2L", 1 << 30, 1 << 30)

    def header_elsewhere(content):
        last = content.rindex(b"PK\x01\x02")
        content[last + 42 : last + 46] = bytes(4)

    def overlapping(content):
        first = content.index(b"PK\x01\x02")
        size = struct.unpack_from("<L", content, first + 24)[0] + 10
        content[first + 20 : first + 28] = struct.pack("<2L", size, size)

    def too_many_entries(content):
        end = content.rindex(b"PK\x05\x06")
        content[end + 8 : end + 12] = b"\xff\xff\xff\xff"

    def directory_outside(content):
        end = content.rindex(b"PK\x05\x06")
        content[end + 16 : end + 20] = b"\xff\xff\xff\x7f"

    for change, reason in (
        (encrypted, "encrypted"),
        (size_that_lies, "beyond the end"),
        (header_elsewhere, "two different descriptions"),
        (overlapping, "overlap"),
        (too_many_entries, "damaged directory"),
        (directory_outside, "outside"),
    ):
        assert reason in refusal(zip_with(tmp_path, change)), change.__name__


def test_member_names_are_no_paths(tmp_path):
    """A traversal name is a key like any other: nothing is written, and an unused member is no harm."""
    path = write_zip(tmp_path / "model.bin", GOOD, {"0": SIX_FLOATS, "../../../../escaped": b"x"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("/absolute", b"x")
    before = sorted(tmp_path.rglob("*"))
    assert list(read_torch_file(path)) == ["weight"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_of_many_members_stays_small(tmp_path):
    """An entry is 46 bytes of file; the reader must not turn each into a large object."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 16)
    count = 200_000
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entry) * count, 30)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 30 + len(entry) * count, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "many.bin"
    path.write_bytes(b"PK\x03\x04" + bytes(26) + entry * count + end64 + locator + end)
    tracemalloc.start()
    assert "100,000 members" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < MEMORY_BEYOND_THE_FILE
    tracemalloc.stop()


def test_expanded_and_shared_storages_need_no_memory(tmp_path):
    """Many names for one storage are views of it."""
    block = bytes(8 << 20)
    stored = storage(size=len(block) // 4)
    shape, strides = (len(block) // 4,), (1,)
    items = {f"w{index}": tensor(stored, shape=shape, strides=strides) for index in range(200)}
    for path in (
        write_zip(tmp_path / "zip.bin", pickle_of(dict_of(items)), {"0": block}, {"byteorder": b"big"}),
        write_legacy(tmp_path / "legacy.bin", pickle_of(dict_of(items)), {"0": (len(block) // 4, block)}),
    ):
        tracemalloc.start()
        assert len(read_torch_file(path)) == 200
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (4 << 20)
        tracemalloc.stop()


def test_stand_ins_for_a_file(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 440473133\n", encoding="utf-8"
    )
    assert "git lfs pull" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    path.write_text("<!DOCTYPE html><html>Not found</html>", encoding="utf-8")
    assert "download" in refusal(path)
    path.write_bytes(pickle.dumps({"weight": [1.0]}, 2))
    assert "torch.save" in refusal(path)
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.bin")
