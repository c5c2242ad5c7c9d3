"""Crops that others made, where they are: members of a zip, or files of a folder."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shards import pixels
from shards.errors import FormatError
from shards.format import check_crop_file
from shards.legacy_tracks import base_name
from shards.parts import crc32c
from shards.zip_members import DEFLATED, Member, data_offset, members, why_unread

__all__ = ["Crop", "FolderCrops", "Read", "ZipCrops"]

_BLOCK = 1 << 20


@dataclass(kw_only=True, slots=True, eq=False)
class Crop:
    """Where one crop is, and why it cannot be used if it cannot.

    Attributes
    ----------
    file, offset, size, crc32c : as in the index
    side_px : of the picture
    reason : empty if it can be used
    """

    file: str
    offset: int = 0
    size: int = 0
    crc32c: int = 0
    side_px: int = 0
    reason: str = ""

    def look(self, data: bytes) -> None:
        """Take in the crop's bytes; only its header is decoded."""
        self.size, self.crc32c = len(data), crc32c(data)
        try:
            head = pixels.header(data)
        except ValueError as error:
            self.reason = str(error)
            return
        self.side_px = head.width
        if not head.plain_jpeg or head.width != head.height:
            self.reason = f"{head.width}x{head.height} pixels; a square JPEG of grey or RGB needed"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Read:
    """Crops in the order asked for; bytes and SHA-256 of the zip, or of the folder's crops."""

    crops: list[Crop]
    bytes: int
    sha256: str


class ZipCrops:
    """Crops as members of a zip, in whatever folder.

    Parameters
    ----------
    path : the zip

    Raises
    ------
    FormatError : if it is no zip or damaged
    OSError : if it cannot be read
    """

    form = "zip"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, Member] = {}
        self._twice: set[str] = set()
        for member in members(path):
            name = base_name(member.name)
            if name in self._members:
                self._twice.add(name)
            self._members[name] = member

    @property
    def names(self) -> Collection[str]:
        """Names of all members, without folders."""
        return self._members.keys()

    @property
    def twice(self) -> Collection[str]:
        """Names that are there in several folders."""
        return self._twice

    def path_of(self, name: str) -> str:
        """Path of a crop in the zip."""
        return self._members[name].name

    def state(self, names: Sequence[str]) -> str:
        """SHA-256 that changes with names, sizes or content of these crops."""
        digest = hashlib.sha256()
        for name in names:
            member = self._members[name]
            digest.update(f"{name}\0{member.size}\0{member.crc32}\0".encode())
        return digest.hexdigest()

    def check(self, names: Sequence[str], repack: str) -> None:
        """Refuse a zip whose wanted members are no byte ranges.

        Parameters
        ----------
        names : of wanted members
        repack : command that helps

        Raises
        ------
        FormatError : saying what to do
        """
        for name in names:
            member = self._members[name]
            twice = "it is there twice, in two folders" if name in self._twice else None
            reason = twice or why_unread(member)
            if reason is not None:
                raise FormatError(f"{self.path}: member {member.name!r}: {reason}")
        packed = sum(self._members[name].method == DEFLATED for name in names)
        if packed:
            raise FormatError(
                f"{self.path}: {packed:,} of {len(names):,} crops are deflated, so they are no "
                f"byte ranges that can be read in place; repack them once: {repack}"
            )

    def read(self, names: Sequence[str], link: str, tick: Callable[[int], None]) -> Read:
        """Read the whole zip once.

        Parameters
        ----------
        names : of the crops
        link : what the index calls the zip
        tick : called with the number of crops read

        Raises
        ------
        FormatError : if members overlap or are not where the directory has them
        OSError : if it cannot be read
        """
        crops = [Crop(file=link) for _ in names]
        order = sorted(range(len(names)), key=lambda row: self._members[names[row]].header)
        digest, at = hashlib.sha256(), 0
        with self.path.open("rb") as handle:
            for done, row in enumerate(order, start=1):
                member, crop = self._members[names[row]], crops[row]
                crop.offset = data_offset(handle, member, self.path)
                if member.header < at:
                    raise FormatError(
                        f"{self.path}: member {member.name!r} overlaps the one before it: no "
                        "ordinary zip"
                    )
                handle.seek(at)
                _hash(handle, crop.offset - at, digest)
                data = handle.read(member.size)
                digest.update(data)
                at = crop.offset + len(data)
                if len(data) < member.size or zlib.crc32(data) != member.crc32:
                    crop.reason = "damaged: not the size and CRC-32 of the zip's directory"
                else:
                    crop.look(data)
                tick(done)
            handle.seek(at)
            _hash(handle, None, digest)
            return Read(crops=crops, bytes=handle.tell(), sha256=digest.hexdigest())


def _hash(handle: BinaryIO, size: int | None, digest: Any) -> None:
    """Hash so many bytes from here on; None: all that are left."""
    while size is None or size > 0:
        data = handle.read(_BLOCK if size is None else min(_BLOCK, size))
        if not data:
            return
        digest.update(data)
        size = None if size is None else size - len(data)


class FolderCrops:
    """Crops as files of one folder.

    Parameters
    ----------
    path : the folder

    Raises
    ------
    OSError : if it cannot be listed
    """

    form = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        with os.scandir(path) as entries:
            self._names = {entry.name for entry in entries}

    @property
    def names(self) -> Collection[str]:
        """Names of all files."""
        return self._names

    @property
    def twice(self) -> Collection[str]:
        """No name is there in several folders."""
        return ()

    def path_of(self, name: str) -> str:
        """Path of a crop in the folder."""
        return name

    def state(self, names: Sequence[str]) -> str:
        """SHA-256 that changes with names or sizes of these crops."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(f"{name}\0{(self.path / name).lstat().st_size}\0".encode())
        return digest.hexdigest()

    def check(self, names: Sequence[str], repack: str) -> None:
        """Refuse names that an index may not hold.

        Parameters
        ----------
        names : of wanted files
        repack : command that helps

        Raises
        ------
        FormatError : saying what to do
        """
        for name in names:
            try:
                check_crop_file(f"x/{name}")
            except FormatError as error:
                raise FormatError(
                    f"{self.path / name}: a name that an index may not hold; copy the crops into "
                    f"shards: {repack}"
                ) from error

    def read(self, names: Sequence[str], link: str, tick: Callable[[int], None]) -> Read:
        """Read every crop once.

        Parameters
        ----------
        names : of the crops
        link : what the index calls the folder
        tick : called with the number of crops read
        """
        crops, total, digest = [], 0, hashlib.sha256()
        for done, name in enumerate(names, start=1):
            crop = Crop(file=f"{link}/{name}")
            crops.append(crop)
            try:
                data = self._bytes(name)
            except OSError as error:
                crop.reason = error.strerror or str(error)
            else:
                total += len(data)
                digest.update(data)
                crop.look(data)
            tick(done)
        return Read(crops=crops, bytes=total, sha256=digest.hexdigest())

    def _bytes(self, name: str) -> bytes:
        path = self.path / name
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            # A link could lead anywhere; a pipe would never end.
            kind = "a link" if stat.S_ISLNK(facts.st_mode) else "a folder or a device"
            raise OSError(0, f"{kind}, not a file")
        return path.read_bytes()
