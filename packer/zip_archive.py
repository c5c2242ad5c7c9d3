"""A zip file read in place (PKWARE APPNOTE 6.3.10): its directory once, then members by position.

Of the central directory only the position of each record is kept, 8 bytes a member, so the one zip
of all of LaSOT (3.5 million members) costs some 30 MB; the names of a folder are read again when
it is listed or read from.

Refused with the reason: encrypted members, methods other than stored and deflated, members or
pictures that would swell beyond bounds, symbolic links, archives in parts or cut off.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from packer.archive_tree import FETCH, MAX_BYTES, PICTURE, ArchiveFile, Entry, Tree
from shards.errors import DataError

__all__ = ["ZipArchive"]

MAX_RATIO = 200  # of a picture: encoded pixels hardly shrink, a bomb shrinks a thousandfold
_RATIO_FROM = 1 << 16  # a member under 64 KiB cannot do harm
_HELD_FOLDERS = 4

_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_LOCAL, _CENTRAL = 0x04034B50, 0x02014B50
_END_RECORD = struct.Struct("<4s4H2LH")
_LOCATOR_RECORD = struct.Struct("<4sLQL")
_END64_RECORD = struct.Struct("<4sQ2H2L4Q")
_WALK = struct.Struct("<L24xHHH4xL")  # signature, lengths of name, extra, comment; attributes
_RECORD = struct.Struct("<L4x2H4x3LH2H8xL")  # of one member, see _Member
_LOCAL_RECORD = struct.Struct("<L22xHH")  # signature, lengths of name and extra
_CENTRAL_BYTES, _LOCAL_BYTES = 46, 30
_LONGEST = _CENTRAL_BYTES + 3 * 0xFFFF
_BLOCK, _FEW = 1 << 20, 1 << 12  # bytes read at once of many records, of one
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_STORED, _DEFLATED = 0, 8
_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "BZIP2", 14: "LZMA", 93: "Zstandard"}
_LINK = 0xA  # the top bits of Unix file attributes
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


class _Member(NamedTuple):
    """A record of the central directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


class _Reader:
    """The central directory, read in blocks.

    Parameters
    ----------
    file : archive
    start, end : bytes of the directory
    """

    def __init__(self, file: ArchiveFile, start: int, end: int) -> None:
        self._file, self._end = file, end
        self._at, self._block = start, b""

    def at(self, position: int) -> tuple[bytes, int]:
        """Block of bytes that holds the whole record at a position, and its place in the block."""
        size = min(_LONGEST, self._end - position)
        if not self._at <= position <= self._at + len(self._block) - size:
            self._at = position
            self._block = self._file.read(position, min(max(_BLOCK, size), self._end - position))
        return self._block, position - self._at


class ZipArchive:
    """A zip file.

    Parameters
    ----------
    path : file

    Raises
    ------
    DataError : if it cannot be read, is no zip, is cut off or one part of several
    """

    def __init__(self, path: str) -> None:
        self._file = ArchiveFile(path)
        self._start, self._end = _directory(self._file)
        self._tree, self._members = self._walk()
        self._names: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of memory that it takes, about."""
        return 9 * self._members + 400 * len(self._tree.folders) + _BLOCK

    def _walk(self) -> tuple[Tree, int]:
        """Tree of names and number of members."""
        tree = Tree(self._file.path)
        reader = _Reader(self._file, self._start, self._end)
        position, members = self._start, 0
        unpack, place = _WALK.unpack_from, tree.place
        while position < self._end:
            block, at = reader.at(position)
            if len(block) - at < _CENTRAL_BYTES:
                raise self._damaged("its directory ends in the middle of a record")
            signature, name_size, extra, comment, attributes = unpack(block, at)
            end = at + _CENTRAL_BYTES + name_size
            if signature != _CENTRAL or end + extra + comment > len(block):
                raise self._damaged(f"its directory is damaged at byte {position}")
            placed = place(block[at + _CENTRAL_BYTES : end])
            if placed is not None and placed[1]:
                folder, name = placed
                if attributes >> 28 == _LINK:
                    path = f"{folder.path}/{name}" if folder.path else name
                    folder.refuse(path, "is a symbolic link")
                else:
                    folder.rows.append(position)
            members += 1
            position += _CENTRAL_BYTES + name_size + extra + comment
        return tree, members

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self._file.path}: {what}; {FETCH}")

    def _in(self, path: str) -> dict[str, int]:
        """Directory positions of a folder's members by name.

        Raises
        ------
        DataError : if there is no such folder, or a name in it is refused or there twice
        """
        with self._lock:
            names = self._names.get(path)
            if names is not None:
                self._names.move_to_end(path)
                return names
        folder = self._tree.folder(path)
        reader = _Reader(self._file, self._start, self._end)
        names = {}
        for position in folder.rows:
            block, at = reader.at(position)
            size = int.from_bytes(block[at + 28 : at + 30], "little")
            start = at + _CENTRAL_BYTES
            name = block[start : start + size].decode().rpartition("/")[2]
            if name in names or name in folder.below:
                inner = f"{path}/{name}" if path else name
                raise DataError(
                    f"{self._file.path}: member {inner!r} is there twice: refused; "
                    "repack the archive, or unpack it"
                )
            names[name] = position
        with self._lock:
            self._names[path] = names
            while len(self._names) > _HELD_FOLDERS:
                self._names.popitem(last=False)
        return names

    def _record(self, block: bytes, at: int) -> _Member:
        """Read the record of a member, at this place in a block of the directory."""
        if len(block) - at < _CENTRAL_BYTES:
            raise self._damaged("its directory changed while it was read")
        fields = _RECORD.unpack_from(block, at)
        signature, flags, method, crc, packed, size, name_size, extra_size, _, offset = fields
        start = at + _CENTRAL_BYTES
        name, rest = block[start : start + name_size], start + name_size
        if signature != _CENTRAL or rest + extra_size > len(block):
            raise self._damaged("its directory changed while it was read")
        wide = [size, packed, offset]
        if _FULL32 in wide:
            wide = self._widened(block[rest : rest + extra_size], wide, name)
        size, packed, offset = wide
        return _Member(name, flags, method, crc, packed, size, offset)

    def _single(self, position: int) -> _Member:
        """Read one record alone; only an oddly long one takes a second read."""
        block = self._file.read(position, _FEW)
        sizes = struct.unpack_from("<HH", block, 28) if len(block) >= _CENTRAL_BYTES else (0, 0)
        if _CENTRAL_BYTES + sum(sizes) > len(block):
            block = self._file.read(position, _LONGEST)
        return self._record(block, 0)

    def _widened(self, extra: bytes, fields: list[int], name: bytes) -> list[int]:
        """Size, packed size and offset of a member beyond 4 GiB, from its Zip64 extra field."""
        at = 0
        while at + 4 <= len(extra):
            kind, size = struct.unpack_from("<HH", extra, at)
            if kind == 1:
                count = sum(field == _FULL32 for field in fields)
                if 8 * count <= size and at + 4 + size <= len(extra):
                    wide: Iterator[int] = iter(struct.unpack_from(f"<{count}Q", extra, at + 4))
                    return [next(wide) if field == _FULL32 else field for field in fields]
            at += 4 + size
        raise self._damaged(f"the Zip64 field of member {name.decode()!r} is missing or short")

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder, sorted, without hidden ones.

        Raises
        ------
        DataError : if there is no such folder, or a name in it is refused or there twice
        """
        files = (Entry(name, is_folder=False) for name in self._in(folder))
        below = self._tree.folder(folder).below
        return sorted([*files, *(Entry(name, is_folder=True) for name in below)])

    def read(self, member: str) -> bytes:
        """Bytes of a whole member, checked against its CRC-32.

        Raises
        ------
        DataError : if there is none of this name, it is refused, or it is damaged
        """
        folder, _, name = member.rpartition("/")
        position = self._in(folder).get(name)
        if position is None:
            raise DataError(f"{self._file.path}: there is no member {member!r} in it")
        found = self._single(position)
        where = f"{self._file.path}: member {member!r}"
        reason = _why_refused(name, found)
        if reason is not None:
            raise DataError(f"{where} {reason}: refused")
        data = self._unpacked(found, where)
        crc = zlib.crc32(data)
        if crc != found.crc:
            raise DataError(
                f"{where} is damaged: CRC-32 {crc:08x}, its directory says {found.crc:08x}; {FETCH}"
            )
        return data

    def _unpacked(self, found: _Member, where: str) -> bytes:
        header = self._file.read(found.offset, _LOCAL_BYTES + len(found.name))
        if len(header) < _LOCAL_BYTES + len(found.name):
            raise DataError(f"{where} lies beyond the end of the file; {FETCH}")
        signature, name_size, extra_size = _LOCAL_RECORD.unpack_from(header)
        if signature != _LOCAL or name_size != len(found.name) or header[30:] != found.name:
            raise DataError(
                f"{where} is damaged: it is not where the directory says, byte {found.offset}; "
                f"{FETCH}"
            )
        start = found.offset + _LOCAL_BYTES + name_size + extra_size
        packed = self._file.read(start, found.packed)
        if len(packed) < found.packed:
            raise DataError(f"{where} lies beyond the end of the file; {FETCH}")
        if found.method == _STORED:
            return packed
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflate.decompress(packed, found.size + 1)
        except zlib.error as error:
            raise DataError(f"{where} is damaged: {error}; {FETCH}") from error
        if len(data) != found.size or not inflate.eof:
            more = "more" if len(data) > found.size or not inflate.eof else f"only {len(data)}"
            raise DataError(
                f"{where} is damaged: {found.size} bytes announced, {more} found; {FETCH}"
            )
        return data


def _why_refused(name: str, found: _Member) -> str | None:
    """Why a member is not to be read; judged by its directory record alone."""
    if found.flags & _ENCRYPTED:
        return "is encrypted; unpack the archive with its password"
    if found.method not in (_STORED, _DEFLATED):
        method = _METHODS.get(found.method, f"method {found.method}")
        return f"is compressed by {method}, not stored or deflated; unpack the archive"
    if max(found.size, found.packed) > MAX_BYTES:
        size = max(found.size, found.packed)
        return f"has {size:,} bytes, more than {MAX_BYTES:,}; unpack the archive if that is right"
    if found.method == _STORED and found.packed != found.size:
        return f"is stored in {found.packed} bytes but announced with {found.size}"
    swells = found.size > _RATIO_FROM and found.size > MAX_RATIO * found.packed
    if swells and PICTURE.search(name):
        return f"is a picture that would swell from {found.packed:,} to {found.size:,} bytes"
    return None


def _directory(file: ArchiveFile) -> tuple[int, int]:
    """Where the central directory begins and ends.

    Raises
    ------
    DataError : if there is none where it should be
    """
    tail_at = max(0, file.size - _END_RECORD.size - 0xFFFF)
    tail = file.read(tail_at, file.size - tail_at)
    at = tail.rfind(_END)
    while at >= 0:
        if at + _END_RECORD.size <= len(tail):
            fields = _END_RECORD.unpack_from(tail, at)
            if at + _END_RECORD.size + fields[-1] == len(tail):
                return _checked(file, tail_at + at, fields[1:-1])
        at = tail.rfind(_END, 0, at)
    raise DataError(f"{file.path}: {_why_no_zip(file)}")


def _why_no_zip(file: ArchiveFile) -> str:
    head = file.read(0, 16)
    if not head:
        return f"is empty; {FETCH}"
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08", b"PK\x30\x30")):
        return f"is cut off after {file.size:,} bytes: the directory at its end is missing; {FETCH}"
    return f"is no zip archive: it begins with {head!r}; {FETCH}"


def _checked(file: ArchiveFile, end_at: int, fields: tuple[int, ...]) -> tuple[int, int]:
    disk, start_disk, _, entries, size, offset = fields
    directory_end = end_at
    locator_at = end_at - _LOCATOR_RECORD.size
    locator = file.read(locator_at, _LOCATOR_RECORD.size) if locator_at >= 0 else b""
    if locator.startswith(_LOCATOR):
        _, _, end64_at, _ = _LOCATOR_RECORD.unpack(locator)
        record = file.read(end64_at, _END64_RECORD.size)
        if len(record) < _END64_RECORD.size or not record.startswith(_END64):
            raise DataError(f"{file.path}: its Zip64 end record is missing; {FETCH}")
        directory_end = end64_at
        *_, disk, start_disk, _, entries, size, offset = _END64_RECORD.unpack(record)
    if disk or start_disk:
        raise DataError(
            f"{file.path}: is one part of a split zip; join the parts first "
            "(zip -s 0 X.zip --out whole.zip)"
        )
    if offset + size != directory_end or size < _CENTRAL_BYTES * min(entries, 1):
        raise DataError(
            f"{file.path}: its directory should end at byte {offset + size:,} and ends at "
            f"{directory_end:,}: bytes are missing or too many; {FETCH}"
        )
    return offset, directory_end
