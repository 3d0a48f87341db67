"""What a PyTorch weights file may name, and what each name becomes here. Nothing named is ever imported.

A pickle builds its content by calling functions that it names. This table is all that our reader knows:
tensors and storages become references (plain data), containers become dicts, and what training checkpoints
keep beside their tensors (arguments, NumPy scalars, paths) becomes `INERT`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


class PickleError(Exception):
    """A pickle that is damaged or is not of a weights file; the message lacks the file's name."""


class Inert:
    """Stands for an object that holds no weights and is never built."""


INERT = Inert()


@dataclasses.dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages; `dtype` is None if the tensor has its own."""

    dtype: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class TorchDtype:
    """A `torch.dtype`, by its name without `torch.`."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class StorageReference:
    """`size` elements of the stored block `key` from element `start` on; the block holds `total`."""

    key: str
    dtype: str | None
    total: int
    start: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class TensorReference:
    """A tensor as the file describes it. Unchecked: every field but `storage` is whatever stood there."""

    storage: StorageReference
    offset: Any
    shape: Any
    strides: Any
    dtype: str | None
    has_flags: bool
    """Whether it is a lazily conjugated or negated view of its storage."""


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A callable of the table; `call` returns what it would have built, as plain data."""

    call: Callable[[tuple[Any, ...]], Any]


def _tensor(args: tuple[Any, ...]) -> TensorReference:
    """`_rebuild_tensor(storage, offset, shape, strides)`."""
    return _reference(args, 4, 4)


def _tensor_v2(args: tuple[Any, ...]) -> TensorReference:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])`."""
    return _reference(args, 6, 7)


def _tensor_v3(args: tuple[Any, ...]) -> TensorReference:
    """`_rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype[, metadata])`."""
    if not 7 <= len(args) <= 8 or not isinstance(args[6], TorchDtype):
        raise PickleError("a tensor with the wrong arguments")
    return _reference(args, 7, 8, args[6].name)


def _reference(args: tuple[Any, ...], fewest: int, most: int, dtype: str | None = None) -> TensorReference:
    """Returns a tensor; what stands behind the `fewest` arguments is its metadata."""
    if not fewest <= len(args) <= most:
        raise PickleError("a tensor with the wrong number of arguments")
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, StorageReference):
        raise PickleError("a tensor without a storage")
    has_flags = any(metadata not in (None, {}) for metadata in args[fewest:])
    return TensorReference(storage, offset, shape, strides, dtype or storage.dtype, has_flags)


def _parameter(args: tuple[Any, ...]) -> TensorReference:
    """`_rebuild_parameter(tensor, requires_grad, hooks[, state])`: the tensor."""
    if not 3 <= len(args) <= 4 or not isinstance(args[0], TensorReference):
        raise PickleError("a parameter without a tensor")
    return args[0]


def _tensor_of_type(args: tuple[Any, ...]) -> TensorReference:
    """`_rebuild_from_type_v2(rebuild, type, arguments, attributes)`: the tensor without its attributes."""
    if len(args) != 4 or not isinstance(args[2], tuple):
        raise PickleError("a tensor with the wrong arguments")
    rebuild = args[0]
    if not isinstance(rebuild, Function) or rebuild.call not in (_tensor, _tensor_v2, _tensor_v3, _parameter):
        raise PickleError("a tensor of an unknown type")
    return rebuild.call(args[2])


def _ordered_dict(args: tuple[Any, ...]) -> dict[str, Any]:
    """`OrderedDict()`, or Python 2's `OrderedDict([[key, value], …])`."""
    if not args:
        return {}
    pairs = args[0]
    if (
        len(args) != 1
        or not isinstance(pairs, list)
        or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    ):
        raise PickleError("an OrderedDict with the wrong arguments")
    return {key: value for key, value in pairs if isinstance(key, str)}


def _shape(args: tuple[Any, ...]) -> Any:
    """`torch.Size(numbers)`: the numbers."""
    if len(args) != 1 or not isinstance(args[0], tuple | list):
        raise PickleError("a torch.Size with the wrong arguments")
    return args[0]


_STORAGE_DTYPES = {
    **{"FloatStorage": "float32", "DoubleStorage": "float64"},
    **{"HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
    **{"ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
}
_DTYPES = (
    *_STORAGE_DTYPES.values(),
    *("uint16", "uint32", "uint64", "complex32"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    "float4_e2m1fn_x2",
)
_INERT_NAMES = (
    *("torch device", "torch Tensor", "torch.nn.parameter Parameter", "argparse Namespace"),
    *("pathlib PosixPath", "pathlib WindowsPath", "pathlib._local PosixPath", "pathlib._local WindowsPath"),
    *(
        f"{module} {name}"
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "dict", "list", "int", "float", "bytearray", "bytes", "complex")
    ),
    *("collections deque", "numpy dtype", "numpy ndarray", "_codecs encode"),
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)

KNOWN_NAMES: dict[str, Any] = {
    "torch._utils _rebuild_tensor": Function(_tensor),
    "torch._utils _rebuild_tensor_v2": Function(_tensor_v2),
    "torch._utils _rebuild_tensor_v3": Function(_tensor_v3),
    "torch._utils _rebuild_parameter": Function(_parameter),
    "torch._utils _rebuild_parameter_with_state": Function(_parameter),
    "torch._tensor _rebuild_from_type_v2": Function(_tensor_of_type),
    "torch Size": Function(_shape),
    "collections OrderedDict": Function(_ordered_dict),
    "collections defaultdict": Function(lambda args: {}),
    "collections Counter": Function(lambda args: {}),
    "torch.storage UntypedStorage": StorageType(None),
    **{f"torch {name}": StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{f"torch {name}": TorchDtype(name) for name in _DTYPES},
    **dict.fromkeys(_INERT_NAMES, INERT),
}
"""`module name` → what it becomes."""
