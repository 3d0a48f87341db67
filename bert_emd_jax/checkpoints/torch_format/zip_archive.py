"""Where the members of an uncompressed zip archive lie in it.

Python's `zipfile` builds an object of ten times the size of a directory entry and looks at no member before
it is read. Here the whole directory is checked first, the way PyTorch writes it: nothing compressed (so no
member is larger than its bytes in the file), encrypted, twice there, or overlapping another. Names are keys
only, never paths.
"""

import mmap
import struct
from itertools import pairwise
from typing import NamedTuple

from bert_emd_jax.checkpoints.mapped_files import quoted

_END = b"PK\x05\x06"
_END_FORM = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000

MAX_MEMBERS = 100_000
"""A checkpoint of a 24-layer BERT with its optimizer has about 1,200."""


class ZipError(Exception):
    """An archive that is damaged or that PyTorch does not write; the message lacks the file's name."""


class Member(NamedTuple):
    """The content of one member: its first byte in the file, and its length."""

    start: int
    size: int


def zip_members(data: mmap.mmap | bytes) -> dict[str, Member]:
    """Returns name → position of every member.

    Raises:
      ZipError: the archive is damaged or is none that PyTorch writes.
    """
    count, directory, directory_end = _find_directory(data)
    members: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    position = directory
    for _ in range(count):
        name, header, size, position = _directory_entry(data, position, directory_end)
        if name in members:
            raise ZipError(f"two members named {quoted(name)}")
        start = _content_start(data, name, header, directory)
        if start + size > directory:
            raise ZipError(f"the member {quoted(name)} beyond the end of the file")
        members[name] = Member(start, size)
        spans.append((header, start + size))
    spans.sort()
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise ZipError("members that overlap")
    return members


def _find_directory(data: mmap.mmap | bytes) -> tuple[int, int, int]:
    """Returns the number of entries, first byte and end of the central directory."""
    end = data.rfind(_END, max(0, len(data) - _END_FORM.size - _MAX_COMMENT))
    if end < 0:
        raise ZipError("a zip archive without its end: only a part of the file is there")
    disks, count, size, start = _read_end(data, end)
    if disks or count > MAX_MEMBERS:
        raise ZipError("a zip archive of several files" if disks else f"more than {MAX_MEMBERS:,} members")
    if start + size > end:
        raise ZipError("a zip archive whose directory lies outside of the file")
    return count, start, start + size


def _read_end(data: mmap.mmap | bytes, end: int) -> tuple[bool, int, int, int]:
    """Returns whether it is one of several files, and the directory's number of entries, size and start."""
    if len(data) - end < _END_FORM.size:
        raise ZipError("a zip archive without its end: only a part of the file is there")
    _, disk, directory_disk, here, count, size, start, _ = _END_FORM.unpack_from(data, end)
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        _, _, end64, _ = _END64_LOCATOR.unpack_from(data, locator)
        if end64 > locator - _END64.size or data[end64 : end64 + 4] != b"PK\x06\x06":
            raise ZipError("a zip archive with a damaged end")
        _, _, _, _, disk, directory_disk, here, count, size, start = _END64.unpack_from(data, end64)
    return bool(disk or directory_disk or here != count), count, size, start


def _directory_entry(data: mmap.mmap | bytes, position: int, directory_end: int) -> tuple[str, int, int, int]:
    """Returns name, local header and size of one entry, and where the next begins."""
    if position + _ENTRY.size > directory_end:
        raise ZipError("a zip archive with a damaged directory")
    fields = _ENTRY.unpack_from(data, position)
    signature, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, comment_size = fields[:13]
    header = fields[16]
    name_start = position + _ENTRY.size
    extra_start = name_start + name_size
    following = extra_start + extra_size + comment_size
    if signature != b"PK\x01\x02" or following > directory_end:
        raise ZipError("a zip archive with a damaged directory")
    try:
        name = data[name_start:extra_start].decode("utf-8")
    except UnicodeDecodeError:
        raise ZipError("a member whose name is not UTF-8") from None
    wide = [value for value in (size, packed, header) if value == _IN_ZIP64]
    if wide:
        large = iter(_zip64_values(data[extra_start : extra_start + extra_size], len(wide)))
        size, packed, header = (
            next(large) if value == _IN_ZIP64 else value for value in (size, packed, header)
        )
    if flags & _ENCRYPTED:
        raise ZipError(f"the encrypted member {quoted(name)}")
    if method != 0 or packed != size:
        raise ZipError(
            f"the compressed member {quoted(name)}, as TorchScript programs do; save the model's state_dict()"
        )
    return name, header, size, following


def _zip64_values(extra: bytes, count: int) -> tuple[int, ...]:
    """Returns the first `count` 64-bit numbers of the zip64 extra field."""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1 and size >= 8 * count and position + 8 * count <= len(extra):
            return struct.unpack_from(f"<{count}Q", extra, position)
        position += size
    raise ZipError("a large member without its size")


def _content_start(data: mmap.mmap | bytes, name: str, header: int, directory: int) -> int:
    """Returns the first byte of a member's content, behind its local header."""
    if header + _LOCAL.size > directory:
        raise ZipError(f"the member {quoted(name)} beyond the end of the file")
    signature, _, flags, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack_from(data, header)
    name_start = header + _LOCAL.size
    stored_name = data[name_start : name_start + name_size]
    if signature != b"PK\x03\x04" or method != 0 or flags & _ENCRYPTED or stored_name != name.encode():
        raise ZipError(f"the member {quoted(name)} with two different descriptions")
    return name_start + name_size + extra_size
