"""Files, texts and links that are there whole or not at all, whenever their writer is killed.

For single files wherever a user wants them; `shards.sink` is for folders that are ours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["commit", "replace_file", "replace_link", "replace_text", "sync_folder"]

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some file systems have it for files alone


def replace_file(path: Path, put: Callable[[BinaryIO], object], partial: str = "") -> None:
    """Write a file under another name, and give it its own when all of it is on disk.

    Parameters
    ----------
    path : final name, in a folder that is there; a file of that name is replaced
    put : writes the content to an open file
    partial : name in the same folder until then; by default a hidden one of this process

    Raises
    ------
    OSError : if the disk does not take it; what was at `path` is still there
    """
    with _unfinished(path, partial) as unfinished, unfinished.open("wb") as file:
        put(file)
        commit(file, unfinished, path)


def replace_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as `replace_file` writes a file."""
    replace_file(path, lambda file: file.write(text.encode()))


def replace_link(path: Path, target: str) -> None:
    """Make a symbolic link in place of what has that name; raises OSError."""
    with _unfinished(path) as unfinished:
        unfinished.unlink(missing_ok=True)  # of a killed process of the same number
        unfinished.symlink_to(target)
        unfinished.replace(path)
        sync_folder(path.parent)


def commit(file: BinaryIO, unfinished: Path, path: Path) -> None:
    """Give a written file, still open, its name when all of it is on disk; raises OSError."""
    file.flush()
    os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder last through a power failure; raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


@contextmanager
def _unfinished(path: Path, partial: str = "") -> Iterator[Path]:
    """Name until something is whole; removed at the end if it is still there."""
    unfinished = path.with_name(partial or f".{path.name}.{os.getpid()}.partial")
    try:
        yield unfinished
    except OSError as error:
        error.filename = error.filename or str(path)  # an error of a write has none
        raise
    finally:
        with suppress(OSError):  # where nothing could be written there is nothing to remove
            unfinished.unlink(missing_ok=True)
