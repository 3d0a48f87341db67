"""PyTorch's own files (`torch.save`): the tensors in them, without PyTorch.

Two formats. Since PyTorch 1.6: a zip archive of one pickle and one uncompressed member per storage. Before:
five pickles one after another, then the storages. Either way a pickle describes tensors as views (offset,
shape, strides) of storages, and several tensors may share a storage.
"""

import math
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.checkpoints.mapped_files import DTYPES, forget_copied, map_file, quoted
from bert_emd_jax.checkpoints.torch_format.objects import PickleError, StorageReference, TensorReference
from bert_emd_jax.checkpoints.torch_format.unpickler import TorchUnpickler
from bert_emd_jax.checkpoints.torch_format.zip_archive import Member, ZipError, zip_members
from bert_emd_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys of the model's state dict in training checkpoints, beside the optimizer's and the epoch."""

_MAX_DIMENSIONS = 32
_MAX_EMPTY_SHAPE = 1 << 40


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads the state dict in a file of `torch.save`, under the names in the file.

    The state dict may be the file's object or lie in it under `state_dict`, `model_state_dict`, `model` or
    `module`. What is not a tensor is left out. Arrays are read-only views of the mapped file if its bytes
    are as NumPy needs them; tensors that share a storage share memory.

    Raises:
      UserError: no such file, damaged, of an unsupported type, or with anything but data in it.
    """
    data = map_file(path)
    try:
        content, storages = _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_legacy(data)
        references = _state_dict(content)
        return {name: _tensor(name, reference, storages) for name, reference in references.items()}
    except (PickleError, ZipError) as error:
        raise UserError(f"{path}: not a readable PyTorch weights file: it holds {error}") from None


class _Storages:
    """The stored blocks; one is copied, once, only if its bytes must be swapped or moved."""

    def __init__(self, data: mmap.mmap, members: Mapping[str, Member], swapped: bool):
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._members = members
        self._swapped = swapped
        self._blocks: dict[str, np.ndarray] = {}

    def elements(self, storage: StorageReference, item_size: int) -> np.ndarray:
        """Returns the bytes of a storage's elements, aligned to their size and in the machine's order."""
        if storage.key not in self._blocks:
            self._blocks[storage.key] = self._block(storage, item_size)
        unit = item_size if storage.dtype else 1
        return self._blocks[storage.key][storage.start * unit : (storage.start + storage.size) * unit]

    def _block(self, storage: StorageReference, item_size: int) -> np.ndarray:
        member = self._members.get(storage.key)
        if member is None:
            raise PickleError(f"no data of the storage {quoted(storage.key)}")
        size = storage.total * (item_size if storage.dtype else 1)
        if not size <= member.size < size + item_size:
            raise PickleError(f"{member.size} bytes of the storage {quoted(storage.key)} instead of {size}")
        block = self._bytes[member.start : member.start + size // item_size * item_size]
        if self._swapped and item_size > 1:
            block = block.view(f"u{item_size}").byteswap().view(np.uint8)
        elif block.ctypes.data % item_size:
            block = block.copy()
        else:
            return block
        forget_copied(self._data, *member)
        block.flags.writeable = False
        return block


def _read_zip(data: mmap.mmap) -> tuple[Any, _Storages]:
    """Reads the object in a zip archive and its storages."""
    members = zip_members(data)
    roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ZipError("a zip archive without PyTorch's data.pkl")
    root = roots[0]

    def content(name: str) -> bytes | None:
        member = members.get(f"{root}/{name}")
        return None if member is None else data[member.start : member.start + min(member.size, 16)]

    byte_order = content("byteorder") or b"little"
    if byte_order not in (b"little", b"big"):
        raise ZipError("an unknown byte order")
    start, size = members[f"{root}/data.pkl"]
    pickle = TorchUnpickler(data, start, end=start + size)
    prefix = f"{root}/data/"
    blocks = {name.removeprefix(prefix): block for name, block in members.items() if name.startswith(prefix)}
    return pickle.load(), _Storages(data, blocks, swapped=byte_order.decode() != sys.byteorder)


def _read_legacy(data: mmap.mmap) -> tuple[Any, _Storages]:
    """Reads the object in a file from before PyTorch 1.6 and its storages, which are always little-endian."""
    if data[:1] != b"\x80":
        raise PickleError("neither a zip archive nor a pickle; its name or its download may be wrong")
    pickle = TorchUnpickler(data)
    if pickle.load() != _LEGACY_MAGIC:
        raise PickleError("a pickle that torch.save did not write")
    version, _, content, keys = (pickle.load() for _ in range(4))
    if version != _LEGACY_VERSION or not isinstance(keys, list):
        raise PickleError("a form that PyTorch never had")
    blocks = {}
    position = pickle.position
    for key in keys:
        storage = pickle.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in blocks:
            raise PickleError("data of a storage that no tensor has")
        count = int.from_bytes(data[position : position + 8], "little", signed=True)
        position += 8
        size = storage.total * _item_size(storage.dtype)
        if size > len(data) - position:
            raise PickleError(f"no data of the storage {quoted(key)}: only a part of the file is there")
        if count != storage.total:
            raise PickleError(f"{count} elements of the storage {quoted(key)} instead of {storage.total}")
        blocks[key] = Member(position, size)
        position += size
    return content, _Storages(data, blocks, swapped=sys.byteorder != "little")


def _item_size(dtype: str | None) -> int:
    """Returns the bytes of an element, for every type that storages have names for."""
    if dtype is None:
        return 1
    return {"complex64": 8, "complex128": 16}.get(dtype) or DTYPES[dtype].itemsize


def _state_dict(content: Any) -> dict[str, TensorReference]:
    """Returns the tensors of a state dict, or of the one in a training checkpoint."""
    if not isinstance(content, dict):
        raise PickleError("no state dict")
    outer, inner = [content], []
    for _ in range(2):  # {"state_dict": …}, {"model": {"state_dict": …}}
        outer = [each[key] for each in outer for key in _WRAPPERS if isinstance(each.get(key), dict)]
        inner += [each for each in outer if _tensors_of(each)]
    if any(each is not inner[0] for each in inner):
        raise PickleError(f"several models under {', '.join(_WRAPPERS)}; save the one you want by itself")
    tensors = _tensors_of(inner[0] if inner else content)
    if not tensors:
        keys = ", ".join(quoted(key) for key in list(content)[:8]) or "nothing"
        raise PickleError(f"no tensors by themselves or under {', '.join(_WRAPPERS)}, but {keys}")
    return tensors


def _tensors_of(state: dict[str, Any]) -> dict[str, TensorReference]:
    return {name: value for name, value in state.items() if isinstance(value, TensorReference)}


def _tensor(name: str, reference: TensorReference, storages: _Storages) -> np.ndarray:
    """Returns the array that a reference describes, checked to lie in its storage."""
    dtype = DTYPES.get(reference.dtype or "uint8")
    if dtype is None:
        raise PickleError(f"the tensor {quoted(name)} of type {reference.dtype}, which no BERT needs")
    if reference.has_flags:
        raise PickleError(f"the tensor {quoted(name)} as a conjugated or negated view; save a copy of it")
    offset, shape, strides = reference.offset, reference.shape, reference.strides
    if (
        not (_are_counts((offset,)) and _are_counts(shape) and _are_counts(strides))
        or len(shape) != len(strides)
        or len(shape) > _MAX_DIMENSIONS
    ):
        raise PickleError(f"the tensor {quoted(name)} without a proper offset, shape and strides")
    elements = math.prod(shape)
    if elements == 0:
        if math.prod(max(length, 1) for length in shape) > _MAX_EMPTY_SHAPE:
            raise PickleError(f"the empty tensor {quoted(name)} of an absurd shape")
        return np.empty(shape, dtype)
    # Zero strides let one element stand for any number of them; copying such a view would take memory
    # that the file does not account for.
    block = storages.elements(reference.storage, dtype.itemsize)
    stored = len(block) // dtype.itemsize
    if elements > stored:
        raise PickleError(f"the tensor {quoted(name)} of more elements than its storage has")
    if offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) >= stored:
        raise PickleError(f"the tensor {quoted(name)} beyond the end of its storage")
    steps = [stride * dtype.itemsize if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)]
    return np.ndarray(shape, dtype, buffer=block, offset=offset * dtype.itemsize, strides=steps)


def _are_counts(values: Any) -> bool:
    """Returns whether it is a sequence of sizes; bounded, so that their sums and products stay small."""
    return isinstance(values, tuple | list) and all(
        type(value) is int and 0 <= value < 1 << 48 for value in values
    )
