"""Damaged, hostile and merely odd versions of a valid file. The same generator makes the same version."""

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

_DEPTH = 100_000
_MEGABYTE = 1 << 20
_ODD_TEXTS = (
    *("", "\x00", "\ufeff", "\r", "\u2028", "\u202e", "\x85", "\t", '"', "'", "\\", "../../x", "/dev/zero"),
    *("<script>", "[CLS]", "💥", "a\u0301" * 40, "nan", "-1", "%s%n", "{0}", "a" * _MEGABYTE),
)
# As they stand in a JSON file: what json.dumps would never write is among them.
_ODD_VALUES = (
    *("0", "-1", "1", "2", "0.5", "NaN", "Infinity", "-Infinity", "1e999", "-0.0", "1e-400", "1e18", "-1e18"),
    *("4294967296", "9223372036854775808", "1" + "0" * 40, "1" + "0" * 400, "9" * 5000, "true", "false"),
    *("null", "{}", "[]", "[[]]", "[null]", '[{"a": 1}]', '{"": ""}', '{"0": {"0": 0}}', '"1"', '"nan"'),
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', '"' + "x" * _MEGABYTE + '"'),
    *("[" * _DEPTH + "]" * _DEPTH, '{"a":' * _DEPTH + "1" + "}" * _DEPTH, "[" * _DEPTH),
    "[" + "0," * 20_000 + "0]",
)
_ODD_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"-inf",
    b"9" * 5000,
    b"4294967296",
    b"0x10",
    b"null",
    b"1_0",
    b"",
)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, put in, taken out or repeated, parts exchanged, or the end missing."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        end = place + rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(8):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 2 if place < len(changed):
                changed[place] = rng.choice((0x00, 0x7F, 0x80, 0xFF, 0x0A, 0x22))
            case 3:
                changed[place:place] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4:
                del changed[place:end]
            case 5:
                changed[place:place] = changed[place:end]
            case 6:
                other = rng.randrange(len(changed) + 1)
                changed[place:end] = changed[other : other + end - place]
            case 7 if rng.random() < 0.3:
                del changed[place:]
            case _:
                changed[place:end] = (rng.choice((0, 1, -1, 2**31, -(2**31), 2**62)) % 2**64).to_bytes(
                    8, "little"
                )
    return bytes(changed)


def damaged_text(content: bytes, rng: random.Random) -> bytes:
    """Lines and cells of a text: lost, repeated, exchanged, full of odd characters, or with odd numbers."""
    lines = content.split(b"\n")
    line = rng.randrange(len(lines))
    odd = rng.choice(_ODD_TEXTS).encode()
    match rng.randrange(10):
        case 0:
            del lines[line]
        case 1:
            lines.insert(line, lines[rng.randrange(len(lines))])
        case 2:
            lines[line] = odd
        case 3:
            place = rng.randrange(len(lines[line]) + 1)
            lines[line] = lines[line][:place] + odd + lines[line][place:]
        case 4:
            cells = re.split(rb"([\t, ])", lines[line])
            cells[rng.randrange(len(cells))] = odd
            lines[line] = b"".join(cells)
        case 5:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", content))
            if numbers:
                found = rng.choice(numbers)
                return content[: found.start()] + rng.choice(_ODD_NUMBERS) + content[found.end() :]
        case 6:
            return content.replace(b"\n", rng.choice((b"\r", b"\r\n", b"", b"\n\n", b"\x0b")))
        case 7:
            return content.decode(errors="replace").encode(
                rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
            )
        case 8:
            rng.shuffle(lines)
        case 9:
            lines[line] = b"\xff\xfe" + lines[line]
    return b"\n".join(lines)


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON text with one or two values exchanged for odd ones, or keys gone, doubled or renamed."""
    root = [json.loads(content)]  # in a list, so that the whole value can be exchanged too
    odd: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 2))):
        parent, key = rng.choice(_places(root))
        match rng.randrange(8):
            case 0 if parent is not root:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(_ODD_TEXTS)] = parent.pop(key)
            case 2 if isinstance(parent, dict):
                odd[mark := f"<odd {len(odd)}>"] = f"1, {json.dumps(key)}: {rng.choice(_ODD_VALUES)}"
                parent[key] = mark
            case 3:
                other, other_key = rng.choice(_places(root))
                parent[key] = copy.deepcopy(other[other_key])
            case 4 if isinstance(parent, list) and parent is not root:
                parent[key:key] = [parent[key]] * rng.choice((1, 3, 1000))
            case _:
                odd[mark := f"<odd {len(odd)}>"] = rng.choice(_ODD_VALUES)
                parent[key] = mark
    text = json.dumps(root[0]) if root else ""
    for mark, value in odd.items():
        text = text.replace(json.dumps(mark), value)
    return text.encode()


def damaged_json_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON lines of which one is damaged."""
    lines = content.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    lines[number] = damaged_json(lines[number], rng) + b"\n"
    return b"".join(lines)


def either(*mutators: Mutator) -> Mutator:
    """One of several kinds of damage, or of the extremes that every reader may meet."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.02:
            return rng.choice(
                (b"", b"\x00", b"\n", b"\xef\xbb\xbf", bytes(4096), rng.randbytes(300), b"null")
            )
        if rng.random() < 0.02:
            cut = rng.randrange(len(content) + 1)
            return content[:cut] + content[rng.randrange(len(content) + 1) :]
        return rng.choice(mutators)(content, rng)

    return mutate


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    inner = [child for key in keys if isinstance(child := value[key], dict | list)]
    return [(value, key) for key in keys] + [place for child in inner for place in _places(child)]
