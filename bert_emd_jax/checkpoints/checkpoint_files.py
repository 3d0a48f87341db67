"""Weights files in every format that BERT models are published in: where they are, and their tensors."""

import dataclasses
import json
import mmap
from pathlib import Path

import numpy as np
import safetensors

from bert_emd_jax.checkpoints.mapped_files import DTYPES, map_file
from bert_emd_jax.checkpoints.tensorflow_checkpoint import read_tensorflow_checkpoint
from bert_emd_jax.checkpoints.torch_format.reader import read_torch_file
from bert_emd_jax.errors import UserError, one_line

SAFETENSORS_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
TENSORFLOW_FILE = "bert_model.ckpt.index"

WEIGHTS_FILES = (
    SAFETENSORS_FILE,
    f"{SAFETENSORS_FILE}.index.json",
    TORCH_FILE,
    f"{TORCH_FILE}.index.json",
    TENSORFLOW_FILE,
)
"""What a directory may hold, in the order of preference, which is that of transformers."""

_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "0.auto_model.", "model.")
"""What DataParallel, torch.compile, PEFT, sentence-transformers and Lightning put before every name."""

_MAX_JSON_SIZE = 1 << 22
"""Of a header or an index; those of BERT have some 50 kB, and parsed JSON is many times its text."""

_SAFETENSORS_DTYPES = {
    **{"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "BOOL": "bool"},
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model as they are stored.

    Attributes:
      tensors: by PyTorch's names, without the prefix of a DataParallel wrapper. Types are those of the file;
        bfloat16 is `ml_dtypes.bfloat16`. Arrays are read-only, mostly views of the mapped file, which must
        not be overwritten in place while they live; tensors stored once share memory.
      source: the file, for messages.
    """

    tensors: dict[str, np.ndarray]
    source: str


def find_weights(path: Path) -> Path | None:
    """Returns the weights file of a directory, or the file that `path` names itself; None if there is none.

    A sharded model is its `*.index.json`, a TensorFlow checkpoint its `*.index` (`path` may be its prefix).

    Raises:
      UserError: a directory with several TensorFlow checkpoints, none of them `bert_model.ckpt`.
    """
    if path.is_dir():
        for name in WEIGHTS_FILES:
            if (path / name).is_file():
                return path / name
        others = sorted(path.glob("*.ckpt*.index"))
        if len(others) > 1:
            raise UserError(
                f"{path}: several TensorFlow checkpoints; name one, as {others[-1].with_suffix('')}"
            )
        return others[0] if others else None
    if path.is_file():
        return path
    return tensorflow_index(path)


def tensorflow_index(prefix: Path) -> Path | None:
    """Returns the `*.index` of the TensorFlow checkpoint with this prefix; None if there is none."""
    index = prefix.with_name(f"{prefix.name}.index")
    return index if index.is_file() else None


def config_directory(path: Path) -> Path:
    """Returns the directory whose config.json and vocabulary belong to the weights at `path`."""
    return path if path.is_dir() else path.parent


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the tensors of a directory or of one weights file.

    Raises:
      UserError: no weights there, or not readable; see `find_weights`.
    """
    weights = find_weights(path)
    if weights is None:
        if not path.exists():
            raise UserError(f"{path}: no such file or directory")
        raise UserError(f"{path}: holds no weights ({', '.join(WEIGHTS_FILES)}); name a model's directory")
    return read_weights(weights)


def read_weights(weights: Path) -> Checkpoint:
    """Reads the tensors of a file that `find_weights` returned.

    Raises:
      UserError: not readable in any format.
    """
    if weights.name.endswith(".index.json"):
        tensors = _read_shards(weights)
    elif weights.suffix == ".index":
        tensors = read_tensorflow_checkpoint(weights)
    else:
        tensors = _read_single_file(weights)
    return Checkpoint(_without_wrapper_prefix(tensors), str(weights))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a safetensors file, as read-only views of the mapped file.

    Raises:
      UserError: the file is damaged or holds a type that BERT models do not have.
    """
    data = map_file(path)
    header_end = 8 + int.from_bytes(data[:8], "little")
    if header_end > min(len(data), _MAX_JSON_SIZE):
        raise UserError(
            f"{path}: not a readable safetensors file (a header of {header_end - 8} bytes); fetch it again"
        )
    try:
        # The library checks the header: sizes, offsets, overlaps, gaps. Its NumPy side lacks bfloat16
        # and copies everything.
        with safetensors.safe_open(path, framework="numpy"):
            pass
        header = json.loads(data[8:header_end])
        header.pop("__metadata__", None)
        return {name: _safetensors_tensor(data, header_end, name, **entry) for name, entry in header.items()}
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({one_line(error)}); fetch it again"
        ) from None


def _safetensors_tensor(
    data: mmap.mmap, header_end: int, name: str, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> np.ndarray:
    if dtype not in _SAFETENSORS_DTYPES:
        raise ValueError(f"the tensor {name!r} has the type {dtype}, which no BERT needs")
    numpy_dtype = DTYPES[_SAFETENSORS_DTYPES[dtype]]
    start, end = data_offsets
    flat = np.frombuffer(data, np.uint8, count=end - start, offset=header_end + start)
    if flat.ctypes.data % numpy_dtype.itemsize:
        flat = flat.copy()
    return flat.view(numpy_dtype).reshape(shape)


def _read_single_file(path: Path) -> dict[str, np.ndarray]:
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a model in several files, by the file that lists which is where."""
    tensors: dict[str, np.ndarray] = {}
    shards: dict[str, list[str]] = {}
    for name, shard in _weight_map(index).items():
        shards.setdefault(shard, []).append(name)
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise UserError(f"{index}: lists files that are not beside it: {', '.join(missing)}; copy them there")
    for shard, names in shards.items():
        stored = _read_single_file(index.parent / shard)
        absent = [name for name in names if name not in stored]
        if absent:
            raise UserError(
                f"{index.parent / shard}: lacks tensors that {index.name} lists: {', '.join(absent)};"
                " fetch it again"
            )
        tensors |= {name: stored[name] for name in names}
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    """Reads tensor → shard, each shard the plain name of a file beside the index."""
    data = map_file(index)
    if len(data) > _MAX_JSON_SIZE:
        raise UserError(f"{index}: larger than any index of shards; fetch it again")
    try:
        weight_map = json.loads(data[:])["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index}: not an index of shards ({one_line(error)}); fetch it again") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: not an index of shards (weight_map is not a table); fetch it again")
    for shard in weight_map.values():
        plain = isinstance(shard, str) and shard.isprintable() and Path(shard).name == shard[:255]
        if not plain or "\\" in shard or shard in ("", ".", ".."):
            raise UserError(
                f"{index}: names {one_line(repr(shard))}, which is not a plain file name; fetch it again"
            )
    return weight_map


def _without_wrapper_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _WRAPPER_PREFIXES * 2:  # one wrapper may be around the other
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
