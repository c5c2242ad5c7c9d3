"""Source frames by the path that samples give them: in a raw folder, or in the archives in it.

Samples name a frame independently of how the raw data were laid out (one folder around all, zips as
downloaded), so a frame is looked for: as a file below the root and up to two folders deeper, then
as a member whose path ends in the frame's path, or the other way round.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from shards.errors import FormatError
from shards.zip_members import members, read_member

__all__ = ["find_frames"]

MAX_FOLDERS = 20_000  # looked into for archives


def find_frames(root: Path, frames: Iterable[str]) -> dict[str, bytes]:
    """Bytes of those frames that are found.

    Parameters
    ----------
    root : raw data set; nothing outside it is read
    frames : paths as samples have them

    Raises
    ------
    FormatError : if an archive is damaged
    OSError : if something cannot be read
    """
    found: dict[str, bytes] = {}
    missing: list[str] = []
    real_root = root.resolve()
    folders = [real_root, *_below(real_root)]
    for frame in dict.fromkeys(frames):
        data = _from_files(folders, real_root, frame)
        if data is None:
            missing.append(frame)
        else:
            found[frame] = data
    if missing:
        for archive in _archives(real_root):
            found |= _from_archive(archive, missing)
            missing = [frame for frame in missing if frame not in found]
            if not missing:
                break
    return found


def _below(root: Path) -> Iterator[Path]:
    """Folders one and two levels below the root, where data sets keep an enclosing folder."""
    for first in sorted(path for path in root.iterdir() if path.is_dir()):
        yield first
        yield from sorted(path for path in first.iterdir() if path.is_dir())


def _from_files(folders: Iterable[Path], root: Path, frame: str) -> bytes | None:
    for folder in folders:
        path = (folder / frame).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path.read_bytes()
    return None


def _archives(root: Path) -> Iterator[Path]:
    for folder, names, files in islice(os.walk(root), MAX_FOLDERS):
        names.sort()
        for name in sorted(files):
            if name.lower().endswith((".zip", ".tar")):
                yield Path(folder, name)


def _from_archive(archive: Path, frames: Iterable[str]) -> dict[str, bytes]:
    wanted: dict[str, list[str]] = {}
    for frame in frames:
        wanted.setdefault(frame.rpartition("/")[2], []).append(frame)
    found: dict[str, bytes] = {}

    def match(name: str) -> str | None:
        for frame in wanted.get(name.rpartition("/")[2], ()):
            if _same(frame, name) or _same(frame, f"{archive.stem}/{name}"):
                return frame
        return None

    if archive.suffix.lower() == ".zip":
        for member in members(archive):
            if (hit := match(member.name)) is not None:
                found[hit] = read_member(archive, member)
        return found
    try:
        with tarfile.open(archive, "r:") as tar:
            for item in tar:
                if (hit := match(item.name)) is not None and item.isfile():
                    source = tar.extractfile(item)
                    found[hit] = b"" if source is None else source.read()
    except tarfile.TarError as error:
        raise FormatError(f"{archive}: damaged tar: {error}") from error
    return found


def _same(frame: str, name: str) -> bool:
    """Whether one path ends in the other, at least in its last two parts where it has two."""
    if f"/{name}".endswith(f"/{frame}"):
        return True
    return "/" in name and f"/{frame}".endswith(f"/{name}")
