"""A plain tar file read in place: its headers once, then members by position.

A tar has no directory. All headers are read when it is opened, one seek a member, and names and
positions stay in memory, so the number of members is bounded.
"""

from __future__ import annotations

import tarfile

from packer.archive_tree import FETCH, MAX_BYTES, ArchiveFile, Entry, Tree
from shards.errors import DataError

__all__ = ["TarArchive"]

MAX_MEMBERS = 300_000
_HELD_NAME = 300  # bytes of a name with its position


class TarArchive:
    """An uncompressed tar file.

    Parameters
    ----------
    path : file

    Raises
    ------
    DataError : if it cannot be read, is no plain tar, is cut off or has too many members
    """

    def __init__(self, path: str) -> None:
        self._file = ArchiveFile(path)
        self._tree = Tree(path)
        self._members: dict[str, dict[str, tuple[int, int]]] = {}
        self._count = 0
        try:
            with tarfile.open(path, "r:", errors="surrogateescape") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
                    self._add(info)
                end = tar.offset
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DataError(f"{path}: is no plain tar, or is cut off ({error}); {FETCH}") from error
        if self._file.read(end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(
                f"{path}: is damaged or cut off: no header and no end mark at byte {end:,}; {FETCH}"
            )

    @property
    def held(self) -> int:
        """Bytes of memory that it takes, about."""
        return _HELD_NAME * self._count

    def _add(self, info: tarfile.TarInfo) -> None:
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise DataError(
                f"{self._file.path}: more than {MAX_MEMBERS:,} members, too many for an archive "
                "without a directory; unpack it"
            )
        raw = info.name.encode("utf-8", "surrogateescape") + (b"/" if info.isdir() else b"")
        placed = self._tree.place(raw)
        if placed is None or not placed[1]:
            return
        folder, name = placed
        members = self._members.setdefault(folder.path, {})
        if info.issym() or info.islnk():
            folder.refuse(info.name, f"is a link (to {info.linkname!r})")
        elif not info.isreg() or info.issparse():
            folder.refuse(info.name, "is neither a plain file nor a folder")
        elif name in members:
            folder.refuse(info.name, "is there twice")
        else:
            members[name] = (info.offset_data, info.size)

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder, sorted, without hidden ones.

        Raises
        ------
        DataError : if there is no such folder, or a name in it is refused or there twice
        """
        below = self._tree.folder(folder).below
        files = self._members.get(folder, {})
        both = sorted(below & files.keys())
        if both:
            raise DataError(f"{self._file.path}: {both[0]!r} is there twice, as file and as folder")
        folders = (Entry(name, is_folder=True) for name in below)
        return sorted([*folders, *(Entry(name, is_folder=False) for name in files)])

    def read(self, member: str) -> bytes:
        """Bytes of a whole member.

        Raises
        ------
        DataError : if there is none of this name, it is refused, or it is cut off
        """
        folder, _, name = member.rpartition("/")
        self._tree.folder(folder)
        found = self._members.get(folder, {}).get(name)
        where = f"{self._file.path}: member {member!r}"
        if found is None:
            raise DataError(f"{self._file.path}: there is no member {member!r} in it")
        offset, size = found
        if size > MAX_BYTES:
            raise DataError(f"{where} has {size:,} bytes, more than {MAX_BYTES:,}: refused")
        data = self._file.read(offset, size)
        if len(data) < size:
            raise DataError(f"{where} lies beyond the end of the file; {FETCH}")
        return data
