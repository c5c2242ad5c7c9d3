"""The index of a data set behind a URL: fetched once a machine, then memory-mapped from disk."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loaders.origin import Origin
from loaders.threads import Threads
from shards.errors import FormatError
from shards.format import INDEX_NAME, Manifest
from shards.index import Index
from shards.sink import storage_error

__all__ = ["fetch_index"]

PIECE_BYTES = 4 << 20  # of one request
PIECES = 8  # requests under way at once
STOP_S = 10.0  # longest wait for them after one has failed
KEPT_S = 30 * 86400.0  # an index that nobody opened for so long is removed
_LOG = logging.getLogger("siamstream.cache")


def fetch_index(origin: Origin, manifest: Manifest, folder: Path, deadline_s: float) -> Index:
    """Open the index that a manifest names; fetch it first if the machine has it not.

    Processes that start together wait for the one that fetches, up to a limit, and share its file.

    Parameters
    ----------
    origin : of the data set
    folder : where indexes are kept, by their SHA-256; where it cannot be written, a warning says so
        and a file is used that vanishes with this process
    deadline_s : longest wait for another process; limit of each request

    Raises
    ------
    StorageError : if the index cannot be had
    FormatError : if what is there is not what the manifest says
    """
    sha256 = str(manifest.index["sha256"])
    if len(sha256) != 64 or not sha256.isalnum():
        raise FormatError(f"{origin.url}: its manifest gives no SHA-256 of the index")
    path = folder / f"{sha256}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        if not _whole(path, manifest):
            with _alone(folder / f"{sha256}.lock", deadline_s):
                if not _whole(path, manifest):
                    _fetch(origin, manifest, path, deadline_s)
        os.utime(path)
        _ok(path).write_text(_facts(path))
        return _checked(path, origin, manifest)
    except OSError as error:
        _LOG.warning(
            "%s: an index cannot be kept there: %s; it is fetched again by every process "
            "(free some space, or set data.remote.cache_dir)",
            folder,
            error.strerror or type(error).__name__,
        )
    try:
        with tempfile.TemporaryDirectory(prefix="siamstream-") as temporary:
            path = Path(temporary) / INDEX_NAME
            _fetch(origin, manifest, path, deadline_s)
            return _checked(path, origin, manifest)  # mapped: its file may go
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir())) from error


def _checked(path: Path, origin: Origin, manifest: Manifest) -> Index:
    index = Index(path)
    if index.name != manifest.name:
        raise FormatError(
            f"{origin.url}: the index is of {index.name!r}, the manifest of {manifest.name!r}"
        )
    return index


def _ok(path: Path) -> Path:
    """File that says what an index was like on disk when its SHA-256 was right."""
    return path.with_suffix(".ok")


def _facts(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _whole(path: Path, manifest: Manifest) -> bool:
    """Whether a kept index is there and undamaged; hashed only if it may have changed since."""
    try:
        if _ok(path).read_text() == _facts(path):
            return True
    except (FileNotFoundError, UnicodeDecodeError):
        _ok(path).unlink(missing_ok=True)
    try:
        if path.stat().st_size != manifest.index["bytes"]:
            return False
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == manifest.index["sha256"]
    except FileNotFoundError:
        return False


def _fetch(origin: Origin, manifest: Manifest, path: Path, deadline_s: float) -> None:
    """Fetch the index to a path, where it appears whole."""
    size, found = int(manifest.index["bytes"]), ""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        for _ in range(2):  # a byte may have been changed on the way
            found = _fetch_once(origin, size, part, deadline_s)
            if found == manifest.index["sha256"]:
                part.rename(path)
                return
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    raise FormatError(
        f"{origin.url}/{INDEX_NAME}: its SHA-256 begins with {found[:12]}, the manifest says "
        f"{manifest.index['sha256'][:12]}: they are of different packings; upload the data set "
        "again, whole"
    )


def _fetch_once(origin: Origin, size: int, part: Path, deadline_s: float) -> str:
    """Write all pieces in order; SHA-256 of what came."""

    def piece(start: int) -> memoryview:
        until = time.monotonic() + deadline_s
        return origin.get(INDEX_NAME, start, min(PIECE_BYTES, size - start), until)

    digest = hashlib.sha256()
    pool = Threads(PIECES, "index")
    try:
        with part.open("wb") as handle:
            for first in range(0, size, PIECES * PIECE_BYTES):
                starts = range(first, min(first + PIECES * PIECE_BYTES, size), PIECE_BYTES)
                for coming in [pool.submit(piece, start) for start in starts]:
                    data = coming.result()
                    digest.update(data)
                    handle.write(data)
                handle.flush()
    finally:
        pool.stop(STOP_S)
    return digest.hexdigest()


@contextmanager
def _alone(path: Path, wait_s: float) -> Iterator[None]:
    """Keep others out; wait at most so long without growth of a file that is being fetched.

    The kernel ends the lock with its process; the file that stays means nothing. Where locks are
    not to be had, or it takes too long, two do the same work: each to a file of its own.
    """
    until, size = time.monotonic() + wait_s, 0
    with path.open("wb") as handle:
        while time.monotonic() < until:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
                now = _coming(path)
                if now > size:
                    until, size = time.monotonic() + wait_s, now
            except OSError:
                break
        yield


def _coming(lock: Path) -> int:
    """Bytes that a process which holds a lock has fetched so far."""
    size = 0
    for part in lock.parent.glob(f"{lock.stem}.arrow.*.part"):
        with suppress(FileNotFoundError):
            size += part.stat().st_size
    return size


def _clean(folder: Path) -> None:
    """Remove what killed processes left, and indexes that nobody opened for long."""
    now = time.time()
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            age = now - path.stat().st_mtime
            if age > KEPT_S or (path.suffix == ".part" and age > 3600):
                path.unlink()
