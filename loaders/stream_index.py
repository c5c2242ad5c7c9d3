"""The index of a data set that is streamed: read once from start to end, checked, and mapped."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from loaders.pipes import Command
from loaders.sources import Folder, Source
from loaders.streaming import Progress, Stopped
from shards.errors import FormatError, StorageError
from shards.format import INDEX_NAME, Manifest
from shards.index import Index
from shards.sink import storage_error

__all__ = ["open_index"]

READS = 2  # a byte may have been changed on the way
_CHUNK = 1 << 20


def open_index(source: Source, prefix: str, manifest: Manifest, progress: Progress) -> Index | None:
    """Index of a data set: it knows the checksum of every picture. None if there is none.

    One in a folder is mapped where it lies; another is copied to a file without a name in
    ``TMPDIR``. A command cannot tell an absent file from other failures: one that fails and has
    printed nothing is taken to have none.

    Raises
    ------
    FormatError : if it is not the manifest's
    StorageError : if it cannot be read, or not be kept
    """
    if isinstance(source, Folder):
        folder = source.path / prefix
        return Index.checked(folder, manifest) if (folder / INDEX_NAME).is_file() else None
    where, found = source.where(prefix + INDEX_NAME), ""
    with tempfile.TemporaryDirectory(prefix="siamstream-") as temporary:
        path = Path(temporary) / INDEX_NAME
        for _ in range(READS):
            if not _copy(source, prefix + INDEX_NAME, path, progress):
                return None
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found == manifest.index["sha256"]:
                return Index.checked(path.parent, manifest)  # mapped: its file may go
    raise FormatError(
        f"{where}: its SHA-256 begins with {found[:12]}, the manifest says "
        f"{str(manifest.index['sha256'])[:12]}: they are of different packings; upload the data "
        "set again, whole"
    )


def _copy(source: Source, name: str, path: Path, progress: Progress) -> bool:
    """Copy a file; False if there is none."""
    size = 0
    try:
        output = path.open("wb")
    except OSError as error:
        raise storage_error(error, path) from error
    with output:
        try:
            with source.open(name) as handle:
                while data := handle.read(_CHUNK):
                    if progress.stop.is_set():
                        raise Stopped
                    progress.heard = time.perf_counter()
                    _write(output, data, path)
                    size += len(data)
        except FileNotFoundError:
            return False
        except OSError as error:
            if isinstance(source, Command) and not size:
                return False
            raise StorageError(
                f"{source.where(name)}: cannot be read at byte {size}: {error}"
            ) from error
    return True


def _write(output: BinaryIO, data: bytes, path: Path) -> None:
    try:
        output.write(data)
        output.flush()
    except OSError as error:
        raise storage_error(error, path) from error
