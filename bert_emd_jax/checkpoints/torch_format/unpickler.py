"""The pickles inside PyTorch files, read without executing anything.

A pickle is a program for a small stack machine whose instructions can import and call whatever they name.
This is an interpreter of the instructions that files of tensors need, over plain values and the fixed table
of `objects.py`. It is no subclass of `pickle.Unpickler`, which lets nine bytes of file (LONG_BINPUT
with a large index) allocate gigabytes. The limits below bound memory and time for a file of any size.
"""

import mmap
import pickletools
import struct
from collections.abc import Callable
from typing import Any

from bert_emd_jax.checkpoints.mapped_files import quoted
from bert_emd_jax.checkpoints.torch_format.objects import (
    INERT,
    KNOWN_NAMES,
    Function,
    Inert,
    PickleError,
    StorageReference,
    StorageType,
    TensorReference,
)

MAX_INSTRUCTIONS = 500_000
"""One creates at most about 90 bytes; the 24 layers with their optimizer have 50 thousand."""

MAX_BYTES = 1 << 24
"""Of all pickles in a file, tensors' data not included: those of BERT are below a megabyte."""

_MAX_NAME = 256


class TorchUnpickler:
    """The pickles of a PyTorch file, one after another.

    Args:
      data: holds them from `position` on, and before `end`.

    `position` moves behind each pickle that was loaded; `storages` gathers, by key, the stored blocks that
    the pickles refer to.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int = 0, end: int | None = None):
        self.position = position
        self.storages: dict[str, StorageReference] = {}
        self._data = data
        self._whole_end = len(data) if end is None else end
        self._end = min(self._whole_end, position + MAX_BYTES)
        self._instructions = 0
        self._stack: list[Any] = []
        self._stacks_below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Returns the next pickle's object. Its dicts keep only their string keys.

        Raises:
          PickleError: damaged, beyond the limits, or with anything that weights files do not have.
        """
        self._stack, self._stacks_below_marks, self._memo = [], [], {}
        while True:
            code = self._read(1)[0]
            self._count(1)
            if code == _STOP:
                return self._pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                name = _OPCODE_NAMES.get(code)
                raise PickleError(
                    f"the pickle instruction {name}, which weights files do not need"
                    if name
                    else f"the byte {code:#04x} where a pickle instruction should be"
                )
            instruction(self)

    def _count(self, instructions: int) -> None:
        self._instructions += instructions
        if self._instructions > MAX_INSTRUCTIONS:
            raise PickleError(f"a pickle of more than {MAX_INSTRUCTIONS:,} instructions")

    # Bytes of the file. Every length is checked against what is there before anything is copied.

    def _read(self, length: int) -> bytes:
        start = self.position
        if length > self._end - start:
            if self._end < self._whole_end:
                raise PickleError(f"a pickle of more than {MAX_BYTES >> 20} MiB beside the tensors")
            raise PickleError("a pickle that ends too early")
        self.position = start + length
        return self._data[start : start + length]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._read(struct.calcsize(layout)))[0]

    def _text(self, length_layout: str) -> str:
        """Reads a string behind its length. Surrogates pass, as in Python's own pickles."""
        try:
            return self._read(self._number(length_layout)).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise PickleError("a string that is not UTF-8") from None

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, min(self._end, self.position + _MAX_NAME))
        if end < 0:
            raise PickleError("a name without an end")
        try:
            return self._read(end + 1 - self.position)[:-1].decode("utf-8")
        except UnicodeDecodeError:
            raise PickleError("a name that is not UTF-8") from None

    # The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self) -> Any:
        if not self._stack:
            raise PickleError("a pickle that takes from an empty stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        del self._stack[-1]
        return value

    def _mark(self) -> None:
        self._stacks_below_marks.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        if not self._stacks_below_marks:
            raise PickleError("a pickle that lacks a mark")
        values, self._stack = self._stack, self._stacks_below_marks.pop()
        return values

    def _memoize(self, index: int) -> None:
        # Picklers number memo entries one by one, so an index beyond the instructions so far is forged.
        if index > self._instructions:
            raise PickleError("a memo index out of range")
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError("a memo entry that was never made")
        self._push(self._memo[index])

    # Containers.

    def _push_tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise PickleError("a pickle that takes from an empty stack")
        values = tuple(self._stack[-length:])
        del self._stack[-length:]
        self._push(values)

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise PickleError("items for something that is not a list")

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if len(values) % 2:
            raise PickleError("a dict key without a value")
        if isinstance(target, dict):
            # Weights have names. Other keys are dropped: hashing a deeply nested tuple overflows the C
            # stack, and chosen integers collide.
            for key, value in zip(values[::2], values[1::2], strict=True):
                if isinstance(key, str):
                    target[key] = value
        elif not isinstance(target, Inert):
            raise PickleError("items for something that is not a dict")

    # Names, calls and storages.

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a name that is not a string")
        known = KNOWN_NAMES.get(f"{module} {name}")
        if known is None:
            raise PickleError(
                f"a pickled {quoted(f'{module}.{name}')}, which is not part of a weights file and was not"
                " executed; save only the model's state_dict()"
            )
        self._push(known)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise PickleError("a call whose arguments are no tuple")
        if isinstance(function, Inert):
            self._push(INERT)
        elif isinstance(function, Function):
            # What a call copies counts as if it had been written out.
            self._count(sum(len(value) for value in arguments if isinstance(value, list)))
            self._push(function.call(arguments))
        else:
            raise PickleError("a call of something that is not a function")

    def _new_object(self) -> None:
        arguments, kind = self._pop(), self._pop()
        if not isinstance(arguments, tuple) or not isinstance(kind, Inert):
            raise PickleError("an object of an unknown class")
        self._push(INERT)

    def _build(self) -> None:
        """Drops the attributes of an object, such as the `_metadata` of a state dict."""
        self._pop()
        if not isinstance(self._top(), Inert | dict | TensorReference):
            raise PickleError("attributes for something that has none")

    def _persistent_id(self) -> None:
        """Pushes the storage of `("storage", type, key, device, size[, (key, start, size) or None])`."""
        saved = self._pop()
        if not isinstance(saved, tuple) or not 5 <= len(saved) <= 6 or saved[0] != "storage":
            raise PickleError(
                "a reference to something that is not a storage; save only the model's state_dict()"
            )
        kind, key, size = saved[1], saved[2], saved[4]
        if not isinstance(kind, StorageType) or not isinstance(key, str) or not _is_count(size):
            raise PickleError("a storage with the wrong description")
        view = saved[5] if len(saved) == 6 and saved[5] is not None else (key, 0, size)
        if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1], view[2]):
            raise PickleError("a view of a storage with the wrong description")
        _, start, view_size = view
        if start + view_size > size:
            raise PickleError(f"a view beyond the end of its storage {quoted(key)}")
        storage = StorageReference(key, kind.dtype, size, start, view_size)
        known = self.storages.setdefault(key, storage)
        if (known.dtype, known.total) != (storage.dtype, storage.total):
            raise PickleError(f"two different descriptions of the storage {quoted(key)}")
        self._push(storage)

    # The head of a pickle.

    def _protocol(self) -> None:
        version = self._read(1)[0]
        if not 2 <= version <= 5:
            raise PickleError(f"pickle protocol {version}; save the file with protocol 2 to 5")

    def _frame(self) -> None:
        if self._number("<Q") > self._end - self.position:
            raise PickleError("a pickle that ends too early")


def _is_count(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 60 for value in values)


_OPCODE_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_STOP = ord(".")
_INSTRUCTIONS: dict[int, Callable[[TorchUnpickler], object]] = {
    ord(code): instruction
    for code, instruction in {
        "\x80": lambda p: p._protocol(),
        "\x95": lambda p: p._frame(),
        "(": lambda p: p._mark(),
        "0": lambda p: p._pop(),
        "1": lambda p: p._pop_to_mark(),
        # Constants.
        "N": lambda p: p._push(None),
        "\x88": lambda p: p._push(True),
        "\x89": lambda p: p._push(False),
        "J": lambda p: p._push(p._number("<i")),
        "K": lambda p: p._push(p._number("<B")),
        "M": lambda p: p._push(p._number("<H")),
        "\x8a": lambda p: p._push(int.from_bytes(p._read(p._number("<B")), "little", signed=True)),
        "G": lambda p: p._push(p._number(">d")),
        "U": lambda p: p._push(p._text("<B")),  # Python 2's str
        "T": lambda p: p._push(p._text("<I")),
        "\x8c": lambda p: p._push(p._text("<B")),
        "X": lambda p: p._push(p._text("<I")),
        "\x8d": lambda p: p._push(p._text("<Q")),
        "C": lambda p: p._push(p._read(p._number("<B"))),
        "B": lambda p: p._push(p._read(p._number("<I"))),
        "\x8e": lambda p: p._push(p._read(p._number("<Q"))),
        "\x96": lambda p: p._push(p._read(p._number("<Q"))),
        # Containers; sets hold no weights.
        ")": lambda p: p._push(()),
        "\x85": lambda p: p._push_tuple(1),
        "\x86": lambda p: p._push_tuple(2),
        "\x87": lambda p: p._push_tuple(3),
        "t": lambda p: p._push(tuple(p._pop_to_mark())),
        "]": lambda p: p._push([]),
        "a": lambda p: p._append([p._pop()]),
        "e": lambda p: p._append(p._pop_to_mark()),
        "}": lambda p: p._push({}),
        "s": lambda p: p._set_items([p._pop(), p._pop()][::-1]),
        "u": lambda p: p._set_items(p._pop_to_mark()),
        "\x8f": lambda p: p._push(INERT),
        "\x90": lambda p: p._append(p._pop_to_mark()),
        "\x91": lambda p: (p._pop_to_mark(), p._push(INERT)),
        # The memo.
        "q": lambda p: p._memoize(p._number("<B")),
        "r": lambda p: p._memoize(p._number("<I")),
        "\x94": lambda p: p._memoize(len(p._memo)),
        "h": lambda p: p._recall(p._number("<B")),
        "j": lambda p: p._recall(p._number("<I")),
        # Names and calls.
        "c": lambda p: p._global(p._line(), p._line()),
        "\x93": lambda p: p._global(*[p._pop(), p._pop()][::-1]),
        "R": lambda p: p._call(),
        "\x81": lambda p: p._new_object(),
        "b": lambda p: p._build(),
        "Q": lambda p: p._persistent_id(),
    }.items()
}
