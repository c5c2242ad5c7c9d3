"""A raw tree as named files: a folder, or an archive as it was downloaded, read in place.

Paths are relative, with ``/``; the empty path is the root. Nothing outside the root is ever read.
An archive file in a folder is listed and read like a folder of its name:
``TRAIN_0/zips/<id>.zip/12.jpg`` is member ``12.jpg`` of ``TRAIN_0/zips/<id>.zip``. See
`packer.archive_tree` for what an archive may hold.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packer.archive import opened
from packer.archive_tree import ARCHIVE, MAX_BYTES, PICTURE, Entry, why_unread
from shards.errors import DataError

__all__ = [
    "ArchiveSource",
    "Entry",
    "FolderSource",
    "RefusedLink",
    "Source",
    "folder_of",
    "open_source",
    "why_unread",
]

_THROUGH = re.compile(rf"{ARCHIVE.pattern}(?=/|$)", re.IGNORECASE)


class RefusedLink(DataError):
    """A link that leads out of the root, in a circle or nowhere is used."""


class Source(Protocol):
    """What every form of a raw tree offers. Small and picklable: workers get a copy."""

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder or archive, sorted, without hidden ones."""

    def read(self, path: str) -> bytes:
        """Bytes of a whole file."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder on disk, with the archives in it.

    Parameters
    ----------
    root : may itself be a link; what lies in it may not lead out of it
    """

    root: Path

    def _inside(self, path: str) -> str:
        """Real path of a name in the tree.

        Raises
        ------
        RefusedLink : if it leads out of the root
        """
        real_root = os.path.realpath(self.root)
        real = os.path.realpath(os.path.join(real_root, path))  # noqa: PTH118 (called for every picture)
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            raise RefusedLink(
                f"{self.root / path} leads out of {self.root} (to {real}): links and '..' that "
                "leave the root are refused; put the files there, or give a root that holds both"
            )
        return real

    def _through(self, path: str) -> tuple[str, str] | None:
        """Real path of the archive that a path goes through, and the path in it.

        None if it goes through none: a folder may be named like an archive.
        """
        for match in _THROUGH.finditer(path):
            real = self._inside(path[: match.end()])
            if Path(real).is_file():
                return real, path[match.end() + 1 :]
        return None

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder or archive, sorted, without hidden ones.

        A link that is refused stands among them and harms nothing until it is listed or read.

        Raises
        ------
        RefusedLink : if the folder itself is behind such a link
        DataError : if a name is not UTF-8 or not safe, it is no folder, or the archive is damaged
        """
        archived = self._through(folder)
        if archived is not None:
            return opened(archived[0]).list(archived[1])
        entries = []
        try:
            with os.scandir(self._inside(folder)) as listing:
                for entry in listing:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if not entry.name.isascii():
                        self._check_name(path)
                    entries.append(Entry(entry.name, _is_folder(entry)))
        except OSError as error:
            kind = RefusedLink if (self.root / folder).is_symlink() else DataError
            raise kind(f"{self.root / folder}: cannot be listed: {error.strerror}") from error
        return sorted(entries)

    def _check_name(self, path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{self.root / folder_of(path)}: {path!r} is not UTF-8") from error

    def read(self, path: str) -> bytes:
        """Bytes of a whole file or member.

        Raises
        ------
        DataError : if it leads out of the root, cannot be read, or is refused
        """
        archived = self._through(path)
        if archived is not None and archived[1]:
            return opened(archived[0]).read(archived[1])
        real = self._inside(path)
        try:
            facts = os.stat(real)  # noqa: PTH116 (called for every picture)
            if not stat.S_ISREG(facts.st_mode):
                raise DataError("cannot be read: it is a folder or a device, not a file")
            if facts.st_size > MAX_BYTES and PICTURE.search(path):
                raise DataError(
                    f"a picture of {facts.st_size:,} bytes, over {MAX_BYTES:,}: refused"
                )
            return Path(real).read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """An archive file as the root of a tree.

    Parameters
    ----------
    file : archive; may be a link
    """

    file: Path

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder of the archive, sorted, without hidden ones.

        Raises
        ------
        DataError : if the archive is damaged, a name in it is not safe, or there is no such folder
        """
        return opened(os.path.realpath(self.file)).list(folder)

    def read(self, path: str) -> bytes:
        """Bytes of a whole member.

        Raises
        ------
        DataError : if it cannot be read or is refused
        """
        return opened(os.path.realpath(self.file)).read(path)


def open_source(root: Path) -> FolderSource | ArchiveSource:
    """Source of a root that is a folder or an archive file; opens nothing yet.

    Raises
    ------
    DataError : if it is neither
    """
    if root.is_dir():
        return FolderSource(root)
    if not root.is_file():
        raise DataError(f"{root} does not exist")
    if not Entry(root.name, is_folder=False).is_archive:
        reason = why_unread(root.name) or "neither a folder nor a .zip or .tar archive"
        raise DataError(f"{root} is a file: {reason}")
    return ArchiveSource(root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a name is, or leads to, a folder; of a broken link, whether it is named like one."""
    try:
        return entry.is_dir() or (entry.is_symlink() and stat.S_ISDIR(entry.stat().st_mode))
    except OSError:  # a circle, or a target that is not there
        return "." not in entry.name


def folder_of(path: str) -> str:
    """Path without its last name."""
    return path.rpartition("/")[0]
