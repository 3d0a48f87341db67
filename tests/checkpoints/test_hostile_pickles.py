"""Pickles made to execute something, to exhaust memory, or to crash: each gives tensors or one line."""

import os
import pickle
import pickletools
import random
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from torch_archives import (
    GOOD,
    MEMORY_BEYOND_THE_FILE,
    SIX_FLOATS,
    call,
    dict_of,
    name,
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

from bert_emd_jax.checkpoints.torch_format.reader import read_torch_file
from bert_emd_jax.errors import UserError


def survives(path: Path) -> bool:
    """Whether a file can be read; anything but tensors or a one-line refusal fails the test."""
    try:
        for array in read_torch_file(path).values():
            array.sum()
    except UserError:
        refusal(path)
        return False
    return True


def test_the_parts_make_a_good_file(tmp_path):
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = read_torch_file(write_zip(tmp_path / "zip.bin", GOOD))
    np.testing.assert_array_equal(read["weight"], expected)
    read = read_torch_file(write_legacy(tmp_path / "legacy.bin", GOOD, {"0": (6, SIX_FLOATS)}))
    np.testing.assert_array_equal(read["weight"], expected)


class Reduced:
    """What an attacker's object says of itself: call this with those arguments to build me."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def executing_pickles(canary: Path) -> dict[str, bytes]:
    """Programs that leave a file behind when a real unpickler runs them."""
    command = f"touch {canary}"
    shell = text(command)
    source = f"open({str(canary)!r}, 'w')"
    chain = Reduced(getattr, Reduced(__import__, "os"), "system")
    pickles = {
        "system": pickle.dumps(Reduced(os.system, command), 2),
        "system, protocol 4": pickle.dumps(Reduced(os.system, command), 4),
        "eval": pickle.dumps(Reduced(eval, source), 2),
        "exec": pickle.dumps(Reduced(exec, source), 4),
        "chain": pickle.dumps([chain, Reduced(eval, source)], 4),
        "in a state dict": pickle_of(dict_of({"weight": tensor(), "x": call("os", "system", shell)})),
        "as a dict's attribute": pickle_of(
            dict_of({"weight": tensor()}) + dict_of({"_metadata": call("posix", "system", shell)}) + b"b"
        ),
        "as a tensor's hooks": pickle_of(
            dict_of({"weight": tensor(metadata=call("builtins", "eval", text(source)))})
        ),
        "as a storage": pickle_of(dict_of({"weight": tensor(stored=call("os", "system", shell))})),
        "as a reference": pickle_of(call("os", "system", shell) + b"Q"),
        "nested names": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + shell + b"\x85R.",
        "nested GLOBAL": pickle_of(call("torch", "serialization.os.system", shell)),
        "memoised names": b"\x80\x04"
        + text("system")
        + b"\x940"
        + text("os")
        + b"h\x00\x93"
        + shell
        + b"\x85R.",
        "name by a call": b"\x80\x04" + text("os") + call("builtins", "str", text("system")) + b"\x93.",
        "name that is a tuple": b"\x80\x04" + text("os") + text("system") + b"\x85\x93" + shell + b"\x85R.",
        "torch's own loader": pickle_of(call("torch.storage", "_load_from_bytes", b"C\x01x")),
        "rebuild by eval": pickle_of(
            call(
                "torch._tensor",
                "_rebuild_from_type_v2",
                name("builtins", "eval"),
                b"N",
                shell + b"\x85",
                b"N",
            )
        ),
        "factory": pickle_of(call("collections", "defaultdict", name("os", "getcwd"))),
        "map": pickle_of(call("builtins", "map", name("os", "system"), b"]" + shell + b"a")),
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": pickle_of(b"(" + name("os", "system") + shell + b"o"),
        "NEWOBJ": pickle_of(name("subprocess", "Popen") + shell + b"\x85\x81"),
        "NEWOBJ_EX": b"\x80\x04" + name("subprocess", "Popen") + shell + b"\x85}\x92.",
        "EXT1": pickle_of(b"\x82\x01"),
        "EXT4": pickle_of(b"\x84\x01\x00\x00\x00"),
        "PERSID": b"Pos.system\n.",
        "call of a string": pickle_of(text("os.system") + shell + b"\x85R"),
        "call of a tensor": pickle_of(tensor() + shell + b"\x85R"),
        "attributes of a function": pickle_of(
            name("collections", "OrderedDict") + dict_of({"x": shell}) + b"b"
        ),
        "new object of a function": pickle_of(name("torch._utils", "_rebuild_tensor_v2") + b")\x81"),
        "new line in a name": b"\x80\x04" + text("o\ns") + text("sys\ntem") + b"\x93.",
    }
    return pickles


def test_the_corpus_is_hostile(tmp_path):
    """Python's own unpickler executes these: the canary is no decoration."""
    canary = tmp_path / "canary"
    pickles = executing_pickles(canary)
    for title in ("system", "system, protocol 4", "eval", "exec", "chain", "memoised names", "INST", "OBJ"):
        pickle.loads(pickles[title])
        assert canary.exists(), title
        canary.unlink()


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_nothing_is_executed(tmp_path, form):
    canary = tmp_path / "canary"
    for title, pickled in executing_pickles(canary).items():
        path = tmp_path / f"{title}.bin"
        if form == "zip":
            write_zip(path, pickled)
        elif form == "legacy":
            write_legacy(path, pickled, {"0": (6, SIX_FLOATS)})
        else:
            path.write_bytes(pickled)
        message = refusal(path)
        assert not canary.exists(), title
        if form == "zip" and title in ("system", "eval", "nested names", "nested GLOBAL", "memoised names"):
            assert "not executed" in message
            assert ("eval" if title == "eval" else "system") in message


def bombs() -> dict[str, bytes]:
    """Pickles of few bytes that ask for much memory, time or stack."""
    many = 600_000
    length = struct.pack("<Q", 1 << 62)
    return {
        "LONG_BINPUT": b"\x80\x02Nr\xff\xff\xff\x0f.",
        "LONG_BINGET": b"\x80\x02j\xff\xff\xff\x7f.",
        "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 10 + b".",
        "BINUNICODE": b"\x80\x02X\xff\xff\xff\xff.",
        "BINSTRING": b"\x80\x02T\xff\xff\xff\xff.",
        "BINUNICODE8": b"\x80\x04\x8d" + length + b".",
        "BINBYTES8": b"\x80\x04\x8e" + length + b".",
        "BYTEARRAY8": b"\x80\x05\x96" + length + b".",
        "FRAME": b"\x80\x04\x95" + length + b".",
        "memoised dicts": b"\x80\x04" + b"}\x94" * (many // 2),
        "marks": b"\x80\x02" + b"(" * many,
        "nested lists": b"\x80\x02" + b"](" * (many // 2) + b"e" * (many // 2) + b".",
        "a nested key": b"\x80\x02}N" + b"\x85" * 450_000 + b"Ns.",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a dict in itself": pickle_of(b"}q\x00(" + text("model") + b"h\x00u"),
        "copies of a list": b"\x80\x02]q\x00("
        + tuple_of(text("a"), b"N") * 100_000
        + b"eq\x01"
        + (name("collections", "OrderedDict") + b"h\x01\x85R") * 100
        + b".",
        "colliding keys": b"\x80\x02}("
        + b"".join(number(k * ((1 << 61) - 1)) + b"N" for k in range(100_000))
        + b"u.",
        "wide text": b"\x80\x02" + text("a" * 200 + "\N{GRINNING FACE}") * 60_000 + b".",
        "a long name": b"\x80\x02c" + b"a" * 5_000_000 + b"\nb\n.",
        "a large pickle": b"\x80\x02B" + struct.pack("<I", 20 << 20) + bytes(20 << 20) + b".",
    }


BOMBS = bombs()


@pytest.mark.parametrize("title", BOMBS)
def test_bombs_stay_small(tmp_path, title):
    path = write_zip(tmp_path / "bomb.bin", BOMBS[title])
    started = time.monotonic()
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BEYOND_THE_FILE
    assert time.monotonic() - started < 30


def good_files(tmp_path: Path) -> dict[str, bytes]:
    content = dict_of({"a": tensor(), "b": tensor(shape=(3, 2), strides=(1, 3)), "epoch": number(3)})
    pickled = pickle_of(dict_of({"state_dict": content, "args": name("argparse", "Namespace") + b")\x81}b"}))
    return {
        "zip": write_zip(tmp_path / "zip.bin", pickled).read_bytes(),
        "legacy": write_legacy(tmp_path / "legacy.bin", pickled, {"0": (6, SIX_FLOATS)}).read_bytes(),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(tmp_path, form):
    content = good_files(tmp_path)[form]
    path = tmp_path / "cut.bin"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert refusal(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_changed_bytes_never_crash(tmp_path, form):
    """2,000 files with one to four changed bytes, the half of them exchanged for pickle instructions."""
    content = good_files(tmp_path)[form]
    rng = random.Random(20)
    instructions = [ord(op.code) for op in pickletools.opcodes]
    path = tmp_path / "changed.bin"
    outcomes = []
    for _ in range(2000):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = (
                rng.choice(instructions) if rng.random() < 0.5 else rng.randrange(256)
            )
        path.write_bytes(changed)
        outcomes.append(survives(path))
    assert {True, False} == set(outcomes)


def test_random_instructions_never_crash(tmp_path):
    """3,000 programs of random fragments that get further than random bytes do."""
    rng = random.Random(21)
    fragments = [
        *(bytes([code]) for code in b"N()]}012t\x85\x86\x87aesuRbQ\x81\x8f\x90\x91\x93\x94"),
        *(b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x88", number(0), number(6), number(-1)),
        *(text("weight"), text("storage"), text("torch"), tensor(), storage()),
        *(dict_of({"weight": tensor()}), name("torch", "FloatStorage"), name("torch", "Size")),
        *(name("collections", "OrderedDict"), name("torch._utils", "_rebuild_tensor_v2"), text("model")),
        *(name("torch._utils", "_rebuild_parameter"), name("torch._tensor", "_rebuild_from_type_v2")),
        *(name("torch._utils", "_rebuild_tensor_v3"), name("torch", "float32"), name("numpy", "dtype")),
    ]
    path = tmp_path / "random.bin"
    for _ in range(3000):
        program = b"\x80\x02" + b"".join(rng.choices(fragments, k=rng.randint(2, 24))) + b"."
        survives(write_zip(path, program))
