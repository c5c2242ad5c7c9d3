"""Files and links that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file", "replace_link", "replace_text"]

NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of a folder, on file systems that have no such thing


def replace_file(path: Path, put: Callable[[BinaryIO], object], partial: str = "") -> None:
    """Write a file under its name only when all of it is on disk.

    Parameters
    ----------
    path : final name; a file that is there is replaced
    put : writes the content to an open file
    partial : name that it has until then, in the same folder

    Raises
    ------
    OSError : if the disk does not take it; what was at `path` before is still there
    """
    unfinished = path.with_name(partial or f".{path.name}.partial")
    try:
        with unfinished.open("wb") as file:
            put(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # an error of a write has none
        raise
    finally:
        with suppress(OSError):  # where nothing can be written there may be nothing to remove
            unfinished.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text whole or not at all; raises OSError as `replace_file` does."""
    replace_file(path, lambda file: file.write(text.encode()))


def replace_link(path: Path, target: str) -> None:
    """Make a symbolic link, in place of the one that is there; raises OSError."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(target)
        unfinished.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)
