"""Folders of gigabytes that a benchmark makes, and removes without touching anybody else's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from shards.errors import StorageError

__all__ = ["check_own", "check_room", "mark", "remove"]


def check_own(out: Path, marker: str) -> None:
    """Refuse a folder with something of somebody else's in it.

    Parameters
    ----------
    out : the folder
    marker : name of the file in it that says that a benchmark made it, ``made-by-benchmarks-NAME``
    """
    if out.exists() and not (out / marker).is_file() and (not out.is_dir() or any(out.iterdir())):
        name = marker.rpartition("-")[2]
        raise StorageError(
            f"{out}: exists, and was not made by 'python -m benchmarks {name}' (no {marker} in "
            "it); name another --out, for what is in it is removed afterwards"
        )


def mark(out: Path, marker: str) -> None:
    """Make the folder, with its marker."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / marker).touch()
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}") from error


def remove(out: Path, marker: str, made: Sequence[Path]) -> None:
    """Remove what a run made, and the folder itself if nothing else is left in it."""
    for folder in made:
        if folder.exists():
            shutil.rmtree(folder)
    if out.is_dir() and [one.name for one in out.iterdir()] == [marker]:
        shutil.rmtree(out)


def check_room(out: Path, needed: float, hint: str) -> None:
    """Refuse at once what would fill the disk.

    Parameters
    ----------
    out : the folder; what is in it already counts
    needed : bytes
    hint : option that asks for less, for the message
    """
    there = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free + there:
        raise StorageError(
            f"{out}: needs {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; name another "
            f"--out or smaller {hint}"
        )
