"""PyTorch files put together by hand, instruction by instruction: what `torch.save` would never write."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bert_emd_jax.checkpoints.torch_format.reader import read_torch_file
from bert_emd_jax.errors import UserError

MEMORY_BEYOND_THE_FILE = 128 << 20
"""What reading any file may take, in bytes."""


def name(module: str, attribute: str) -> bytes:
    """GLOBAL: pushes what it names."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + tuple_of(*arguments) + b"R"


def storage(key: str = "0", kind: str = "FloatStorage", size: int = 6, view: bytes = b"") -> bytes:
    """A reference to a storage; `view` only in the legacy form."""
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(size), view) + b"Q"


def tensor(
    stored: bytes | None = None, offset=0, shape=(2, 3), strides=(3, 1), metadata: bytes = b""
) -> bytes:
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage() if stored is None else stored,
        number(offset),
        tuple_of(*map(number, shape)),
        tuple_of(*map(number, strides)),
        b"\x89",
        call("collections", "OrderedDict"),
        metadata,
    )


def dict_of(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickle_of(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


GOOD = pickle_of(dict_of({"weight": tensor()}))
SIX_FLOATS = struct.pack("<6f", *range(6))


def write_zip(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] = {"0": SIX_FLOATS},
    extra: Mapping[str, bytes] = {"byteorder": b"little"},
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """The zip form with any pickle and any storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for member, content in extra.items():
            archive.writestr(f"archive/{member}", content)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def write_legacy(path: Path, pickled: bytes, storages: Mapping[str, tuple[int, bytes]]) -> Path:
    """The form before PyTorch 1.6; `storages`: key → (number of elements, bytes)."""
    parts = [
        pickle_of(number(0x1950A86A20F9469CFC6C)),
        pickle_of(number(1001)),
        pickle_of(dict_of({"little_endian": b"\x88"})),
        pickled,
        pickle_of(b"](" + b"".join(map(text, storages)) + b"e"),
        *(struct.pack("<q", count) + content for count, content in storages.values()),
    ]
    path.write_bytes(b"".join(parts))
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(UserError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message
