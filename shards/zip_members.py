"""Where the members of a zip lie (PKWARE APPNOTE 6.3.10): its directory, read once from end to end.

For crops that are used in place, and for single pictures. Nothing is unpacked, so names are only
names; `packer.zip_archive` reads whole raw trees.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.errors import FormatError

__all__ = [
    "DEFLATED",
    "STORED",
    "Member",
    "comment",
    "data_offset",
    "members",
    "read_member",
    "why_unread",
]

STORED, DEFLATED = 0, 8
MAX_BYTES = 1 << 28  # of a member that is read whole
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4xHH4x3L3H8xL")
_LOCAL = struct.Struct("<4s22xHH")
_FULL = 0xFFFFFFFF
_BLOCK = 1 << 22


class Member(NamedTuple):
    """One entry of the directory.

    ``packed`` and ``size`` are bytes in the file and unpacked, ``header`` is the byte offset of the
    member's own header, which its data follow.
    """

    name: str
    method: int
    encrypted: bool
    crc32: int
    packed: int
    size: int
    header: int


def _directory(handle: BinaryIO, path: Path) -> tuple[int, int, bytes]:
    """First byte and size of the directory, and the comment of the zip."""
    total = handle.seek(0, 2)
    tail_at = max(0, total - _END.size - 0xFFFF)
    handle.seek(tail_at)
    tail = handle.read()
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and at + _END.size <= len(tail):
        fields = _END.unpack_from(tail, at)
        if at + _END.size + fields[7] == len(tail):
            break
        at = tail.rfind(b"PK\5\6", 0, at)
    else:
        raise FormatError(f"{path}: no zip, or cut off: it has no directory at its end")
    disks, size, start = fields[1:3], fields[5], fields[6]
    end = tail_at + at
    if end >= _LOCATOR.size:
        handle.seek(end - _LOCATOR.size)
        signature, _, end64_at, _ = _LOCATOR.unpack(handle.read(_LOCATOR.size))
        if signature == b"PK\6\7":
            handle.seek(min(end64_at, total))
            record = handle.read(_END64.size)
            if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
                raise FormatError(f"{path}: damaged: its Zip64 end record is missing")
            *_, size, start = _END64.unpack(record)
            disks, end = _END64.unpack(record)[4:6], end64_at
    if any(disks):
        raise FormatError(f"{path}: one part of a split zip; join the parts first")
    if start + size != end:
        raise FormatError(
            f"{path}: damaged: its directory should end at byte {start + size}, and ends at {end}"
        )
    return start, size, tail[at + _END.size :]


def comment(path: Path) -> bytes:
    """Comment of a zip.

    Raises
    ------
    FormatError : if it is none, or damaged
    OSError : if it cannot be read
    """
    with path.open("rb") as handle:
        return _directory(handle, path)[2]


def members(path: Path) -> Iterator[Member]:
    """Every member of a zip, in the order of its directory; folders are passed over.

    Raises
    ------
    FormatError : if it is no zip, is damaged, or a name is absolute or has ``..``
    OSError : if it cannot be read
    """
    with path.open("rb") as handle:
        start, left, _ = _directory(handle, path)
        handle.seek(start)
        block, at = b"", 0
        while left > 0:
            if len(block) - at < _CENTRAL.size + 3 * 0xFFFF and len(block) - at < left:
                block, at = block[at:] + handle.read(min(_BLOCK, left - (len(block) - at))), 0
            if len(block) - at < _CENTRAL.size:
                raise FormatError(f"{path}: damaged: its directory ends within an entry")
            member, used = _entry(block, at, path)
            at, left = at + used, left - used
            if not member.name.endswith("/"):
                yield member


def _entry(block: bytes, at: int, path: Path) -> tuple[Member, int]:
    signature, flags, method, crc, packed, size, name_size, extra_size, comment_size, header = (
        _CENTRAL.unpack_from(block, at)
    )
    name_at = at + _CENTRAL.size
    extra_at = name_at + name_size
    used = _CENTRAL.size + name_size + extra_size + comment_size
    if signature != b"PK\1\2" or at + used > len(block):
        raise FormatError(f"{path}: damaged: its directory has an entry that is none")
    raw = block[name_at:extra_at]
    name = raw.decode("utf-8", "backslashreplace")
    parts = name.removesuffix("/").split("/")
    if ".." in parts or name.startswith("/") or "\\" in name or "\0" in name:
        raise FormatError(
            f"{path}: member {name!r}: an absolute path or one with '..' is refused; repack the "
            "zip without"
        )
    if _FULL in (size, packed, header):
        wide = [size, packed, header]
        size, packed, header = _widened(block[extra_at : extra_at + extra_size], wide, name, path)
    encrypted = bool(flags & _ENCRYPTED)
    return Member(name, method, encrypted, crc, packed, size, header), used


def _widened(extra: bytes, fields: list[int], name: str, path: Path) -> list[int]:
    """Sizes and offset beyond 4 GiB, from the entry's Zip64 field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        count = sum(field == _FULL for field in fields)
        if kind == 1 and 8 * count <= size and at + 4 + size <= len(extra):
            wide = list(struct.unpack_from(f"<{count}Q", extra, at + 4))
            return [wide.pop(0) if field == _FULL else field for field in fields]
        at += 4 + size
    raise FormatError(f"{path}: damaged: member {name!r} has no Zip64 sizes")


def data_offset(handle: BinaryIO, member: Member, path: Path) -> int:
    """First byte of a member's data, from the header before them.

    Raises
    ------
    FormatError : if there is no such header
    """
    handle.seek(member.header)
    head = handle.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
        raise FormatError(
            f"{path}: damaged: {member.name!r} is not at byte {member.header}, where the directory "
            "has it; fetch the zip again"
        )
    _, name_size, extra_size = _LOCAL.unpack(head)
    return member.header + _LOCAL.size + int(name_size) + int(extra_size)


def why_unread(member: Member) -> str | None:
    """Say why a member cannot be read; None if it can."""
    if member.encrypted:
        return "it is encrypted"
    if member.method not in (STORED, DEFLATED):
        return f"it is compressed by method {member.method}, not stored or deflated"
    if max(member.size, member.packed) > MAX_BYTES:
        return f"it has {max(member.size, member.packed):,} bytes, over the limit of {MAX_BYTES:,}"
    if member.method == STORED and member.packed != member.size:
        return f"it is stored in {member.packed} bytes and announced with {member.size}"
    return None


def read_member(path: Path, member: Member) -> bytes:
    """Bytes of a member, checked against its CRC-32.

    Raises
    ------
    FormatError : if it is refused or damaged
    OSError : if the zip cannot be read
    """
    where = f"{path}: member {member.name!r}"
    reason = why_unread(member)
    if reason is not None:
        raise FormatError(f"{where}: {reason}")
    with path.open("rb") as handle:
        handle.seek(data_offset(handle, member, path))
        data = handle.read(member.packed)
    if member.method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise FormatError(f"{where}: damaged: {error}") from error
    if len(data) != member.size or zlib.crc32(data) != member.crc32:
        raise FormatError(f"{where}: damaged: not the size and CRC-32 of the directory")
    return data
