"""The tree of names in an archive, and what all kinds of archive share.

What a name may be is checked here, in one place. A name that leaves the archive's folder or can
mean two things is refused: the nearest folder above it cannot be listed, and the message names it,
so the fault is one of the sequence that it belongs to. Hidden names and ``__MACOSX`` are left out,
as in folders.
"""

from __future__ import annotations

import os
import re
import weakref
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shards.errors import DataError

__all__ = [
    "ARCHIVE",
    "FETCH",
    "MAX_BYTES",
    "PICTURE",
    "Archive",
    "ArchiveFile",
    "Entry",
    "Folder",
    "Tree",
    "why_unread",
]

ARCHIVE = re.compile(r"\.(?:zip|tar)", re.IGNORECASE)  # ends the name of one that is read in place
_NO_ACCESS = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|7z|rar|z\d\d|gz|xz|bz2)", re.IGNORECASE)
FETCH = "fetch the archive again"
MAX_BYTES = 1 << 28  # of a member: 256 MiB, more than a picture of 64 megapixels in any form
PICTURE = re.compile(r"\.(?:jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)  # ends its name
SHOWN_FAULTS = 3  # names spelt out of those refused in one folder


class Entry(NamedTuple):
    """A name in a folder."""

    name: str
    is_folder: bool

    @property
    def is_archive(self) -> bool:
        """Whether it can be listed and read through like a folder."""
        return not self.is_folder and ARCHIVE.fullmatch(_suffix(self.name)) is not None


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def why_unread(name: str) -> str | None:
    """Say why an archive of this name cannot be read in place; None if it is no such archive."""
    found = re.search(rf"{_NO_ACCESS.pattern}$", name, re.IGNORECASE)
    if found is None:
        return None
    if re.fullmatch(r"z\d\d", found[1], re.IGNORECASE):
        return "one part of a split zip; join the parts first (zip -s 0 X.zip --out whole.zip)"
    return f"a .{found[1]} archive gives no access to single members; unpack it"


class Archive(Protocol):
    """What every kind of archive offers."""

    @property
    def held(self) -> int:
        """Bytes of memory that it takes, about."""

    def list(self, folder: str) -> list[Entry]:
        """Names in a folder of the archive, sorted."""

    def read(self, member: str) -> bytes:
        """Bytes of a whole member."""


class ArchiveFile:
    """An open file that is read by position, closed with its last user.

    Closing it by hand could pull the descriptor from under another thread, which would then read
    from whatever file gets the number next.

    Parameters
    ----------
    path : file

    Raises
    ------
    DataError : if it cannot be opened
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
        closer = weakref.finalize(self, os.close, handle)
        closer.atexit = False
        self._handle = handle
        self.size = os.fstat(handle).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of a range; fewer only at the end of the file.

        Raises
        ------
        DataError : if it cannot be read
        """
        parts = []
        try:
            while size > 0 and (part := os.pread(self._handle, min(size, 1 << 30), offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"{self.path}: cannot be read at byte {offset}: {reason}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(kw_only=True, slots=True, eq=False)
class Folder:
    """One folder of an archive.

    Attributes
    ----------
    path : in the archive, for messages
    rows : where the facts of each member are; the meaning is the archive's
    below : names of its folders
    refused : what is wrong with names that belong here, the first few
    refusals : how many there are
    """

    path: str
    rows: array[int] = field(default_factory=lambda: array("Q"))
    below: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    refusals: int = 0

    def refuse(self, name: str, reason: str) -> None:
        """Remember a name that is not to be used."""
        self.refusals += 1
        if len(self.refused) < SHOWN_FAULTS:
            self.refused.append(f"{name!r} {reason}")


# A name with any of these is looked at part by part; all others are plain and need no more.
_ODD = re.compile(rb"[^\x20-\x7e]|\\|^/|//|(?:^|/)(?:\.|__MACOSX|[A-Za-z]:)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


def _why_refused(part: str) -> str | None:
    if part == "..":
        return "has '..' in its path"
    if part in ("", "."):
        return "has an empty part in its path"
    if "\\" in part:
        return "has a backslash in its path"
    if "\0" in part:
        return "has a NUL character in its path"
    if _CONTROL.search(part):
        return "has a control character in its path"
    if _DRIVE.match(part):
        return "has a drive letter in its path"
    return None


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


class Tree:
    """Folders of an archive by path, made from the names of its members one after another.

    Parameters
    ----------
    path : archive, for messages
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.folders: dict[str, Folder] = {"": Folder(path="")}
        self._plain: dict[bytes, Folder] = {b"": self.folders[""]}

    def place(self, raw: bytes) -> tuple[Folder, str] | None:
        """Folder and last name of a member; the name is empty for a folder's own entry.

        None for names that are hidden or refused; a refusal is remembered in the nearest folder.
        """
        if _ODD.search(raw):
            return self._place_odd(raw)
        above, _, name = raw.rpartition(b"/")
        folder = self._plain.get(above)
        if folder is None:
            folder = self._plain[above] = self._made(above.decode().split("/"))
        return folder, name.decode()

    def _place_odd(self, raw: bytes) -> tuple[Folder, str] | None:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            shown = raw.decode("utf-8", "backslashreplace")
            self._refuse(raw.decode("latin-1"), shown, "is not UTF-8")
            return None
        text = text.removeprefix("./")
        if text in ("", "."):
            return None
        if text.startswith("/"):
            self.folders[""].refuse(text, "is an absolute path")
            return None
        *above, name = text.split("/")
        for part in (*above, name) if name else above:
            reason = _why_refused(part)
            if reason is not None:
                self._refuse(text, text, reason)
                return None
        if any(map(_is_hidden, (*above, name))):
            return None
        return self._made(above), name

    def _refuse(self, text: str, shown: str, reason: str) -> None:
        """Remember a refusal in the deepest folder above the first part that is odd."""
        safe: list[str] = []
        for part in text.split("/")[:-1]:
            if _why_refused(part) is not None or _is_hidden(part) or not part.isascii():
                break
            safe.append(part)
        self._made(safe).refuse(shown, reason)

    def _made(self, parts: list[str]) -> Folder:
        """Folder of this path, made with all above it if it is new."""
        path = "/".join(parts)
        folder = self.folders.get(path)
        if folder is None:
            self._made(parts[:-1]).below.add(parts[-1])
            folder = self.folders[path] = Folder(path=path)
        return folder

    def folder(self, path: str) -> Folder:
        """Folder that can be listed.

        Raises
        ------
        DataError : if there is none of this path, or names in it are refused
        """
        folder = self.folders.get(path)
        if folder is None:
            inner = re.search(rf"{ARCHIVE.pattern}(?=/|$)", path, re.IGNORECASE)
            why = "; an archive in an archive is not read: unpack the outer one" if inner else ""
            raise DataError(f"{self._path}: there is no folder {path!r} in it{why}")
        if folder.refusals:
            more = folder.refusals - len(folder.refused)
            names = "; member ".join(folder.refused) + (f" and {more:,} more" if more else "")
            raise DataError(
                f"{self._path}: member {names}: refused; repack the archive without, or unpack it"
            )
        return folder
