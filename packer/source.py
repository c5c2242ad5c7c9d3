"""A raw tree as named files: a folder today, archives read in place by further classes.

Paths are relative, with ``/``; the empty path is the root. Nothing outside the root is ever read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from shards.errors import DataError

__all__ = ["Entry", "FolderSource", "Source"]


class Entry(NamedTuple):
    """A name in a folder."""

    name: str
    is_folder: bool


class Source(Protocol):
    """What every form of a raw tree offers. Small and picklable: workers get a copy."""

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder, sorted."""

    def read(self, path: str) -> bytes:
        """Bytes of a whole file."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder on disk.

    Parameters
    ----------
    root : may itself be a link; what lies in it may not lead out of it
    """

    root: Path

    def _inside(self, path: str) -> str:
        """Real path of a name in the tree.

        Raises
        ------
        DataError : if it leads out of the root
        """
        real_root = os.path.realpath(self.root)
        real = os.path.realpath(os.path.join(real_root, path))  # noqa: PTH118 (called for every picture)
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            raise DataError(
                f"{self.root / path} leads out of {self.root} (to {real}): links and '..' that "
                "leave the root are refused; put the files there, or give a root that holds both"
            )
        return real

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder, sorted, without hidden ones.

        Raises
        ------
        DataError : if a link leads out of the root, a name is not UTF-8, or it is no folder
        """
        entries = []
        try:
            with os.scandir(self._inside(folder)) as listing:
                for entry in listing:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if not entry.name.isascii():
                        self._check_name(path)
                    if entry.is_symlink():
                        self._inside(path)
                    entries.append(Entry(entry.name, entry.is_dir()))
        except OSError as error:
            raise DataError(f"{self.root / folder}: cannot be listed: {error.strerror}") from error
        return sorted(entries)

    def _check_name(self, path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{self.root / folder_of(path)}: {path!r} is not UTF-8") from error

    def read(self, path: str) -> bytes:
        """Bytes of a whole file.

        Raises
        ------
        DataError : if it leads out of the root or cannot be read
        """
        try:
            return Path(self._inside(path)).read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from error


def folder_of(path: str) -> str:
    """Path without its last name."""
    return path.rpartition("/")[0]
