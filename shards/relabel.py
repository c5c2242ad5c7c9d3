"""Give sequences of a packed data set their classes later, without encoding a picture again.

The descriptions in the shards change, the pictures keep their bytes: the result is what packing
with the classes would have written. All changed shards are first written and read back beside the
old ones, in a hidden folder; only then do they take their places, then the index, and the manifest
last. So a stop at any moment leaves either the old data set, or one that the next call completes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

from shards.atomic import sync_folder
from shards.classinfo import UNKNOWN
from shards.errors import FormatError, StorageError
from shards.format import INDEX_NAME, MANIFEST_NAME, Manifest, Sample, ShardInfo
from shards.parts import Part, scan
from shards.storage import FolderSink, storage_error
from shards.writer import PARTS_FOLDER, finish, write_samples

__all__ = ["NO_CLASSES", "Relabelled", "relabel"]

NO_CLASSES = "no class info"  # a packer's note that begins so is outdated by relabelling
NOTE = "relabelled:"  # begins the note in its place
WORK_FOLDER = ".relabel"
_READY = "ready"  # folder in it: all that is to take its place, complete


@dataclass(frozen=True, kw_only=True, slots=True)
class Relabelled:
    """What a call did.

    Attributes
    ----------
    name : data set
    sequences, shards : that changed
    frames : in the changed sequences
    unknown : sequences that are still without a class
    unused : listed sequences that the data set does not hold
    completed : an earlier call that was stopped was completed first
    """

    name: str
    sequences: int
    shards: int
    frames: int
    unknown: int
    unused: int
    completed: bool


def _no_progress(done: int) -> None:
    """Tell nobody."""


def relabel(
    folder: Path, classes: Mapping[str, str], progress: Callable[[int], None] = _no_progress
) -> Relabelled:
    """Write the classes of sequences into shards, index and manifest.

    Needs free space for the changed shards until it is done.

    Parameters
    ----------
    folder : of the data set
    classes : class name by sequence, as `shards.classinfo` gives it; sequences that are not listed,
        or listed as unknown, keep what they have
    progress : called with the number of shards that were read

    Raises
    ------
    FormatError : if a shard is not the manifest's; nothing has changed then
    StorageError : if it cannot be written, or another call is at work in this folder
    """
    if Manifest.read(folder).in_place:
        raise FormatError(
            f"{folder}: its crops are those of others, used in place, so there are no descriptions "
            "beside them to change; 'python -m packer legacy' makes shards of them"
        )
    with _work_folder(folder) as work:
        completed = _complete(folder, work)
        manifest = Manifest.read(folder)
        known = {name: one for name, one in classes.items() if one != UNKNOWN}
        parts: list[Part] = []
        counted = _Counted()
        staged = work / "staged"
        for number, info in enumerate(manifest.shards):
            part = _checked(folder, info)
            changes = counted.take(part, known)
            if changes:
                part = _stage(folder, staged, part, changes)
                counted.shards += 1
            parts.append(part)
            progress(number + 1)
        if counted.shards:
            kept = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
            for made in ("counts", "shards", "index", "format_version"):
                del kept[made]
            kept["notes"] = _notes(manifest, counted)
            finish(staged, parts, **kept)
            _remove(folder / PARTS_FOLDER)  # a killed packer's notes about the old shards
            _rename(staged, work / _READY)
            _complete(folder, work)
    return Relabelled(
        name=manifest.name,
        sequences=len(counted.changed),
        shards=counted.shards,
        frames=counted.frames,
        unknown=len(counted.unknown),
        unused=len(classes.keys() - counted.seen),
        completed=completed,
    )


class _Counted:
    """What was met while going through the shards."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.changed: set[str] = set()
        self.unknown: set[str] = set()
        self.frames = 0
        self.shards = 0

    def take(self, part: Part, known: Mapping[str, str]) -> dict[str, str]:
        """Count a shard; new classes by sequence for those of its sequences that change."""
        changes: dict[str, str] = {}
        names, old = part.rows["sequence"].to_pylist(), part.rows["category"].to_pylist()
        for name, category in zip(names, old, strict=True):
            self.seen.add(name)
            wanted = known.get(name, category)
            if wanted != category:
                changes[name] = wanted
                self.changed.add(name)
                self.frames += 1
            elif category == UNKNOWN:
                self.unknown.add(name)
        return changes


def _notes(manifest: Manifest, counted: _Counted) -> tuple[str, ...]:
    """Notes of the manifest, with the outdated ones replaced by one about this change."""
    kept = [note for note in manifest.notes if not note.startswith((NO_CLASSES, NOTE))]
    text = f"{NOTE} {len(counted.changed):,} sequences were given their class after packing"
    if counted.unknown:
        text += f"; {len(counted.unknown):,} are still {UNKNOWN!r}"
    return (*kept, text)


def _checked(folder: Path, info: ShardInfo) -> Part:
    """Read a shard and compare it with the manifest."""
    path = folder / info.name
    try:
        with path.open("rb") as handle:
            part = scan(handle, info.name)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}; fetch it again") from error
    if part.info != info:
        raise FormatError(
            f"{path}: not the shard that the manifest names, nothing was changed; "
            f"'python -m shards verify {folder}' says what is damaged"
        )
    return part


def _stage(folder: Path, staged: Path, old: Part, changes: Mapping[str, str]) -> Part:
    """Write a shard with other classes and compare its pictures with those of the old one."""
    with (
        (folder / old.info.name).open("rb") as source,
        FolderSink(staged).create(old.info.name) as handle,
    ):
        write_samples(handle, _changed_samples(source, old.info.name, changes))
        handle.seek(0)
        new = scan(handle, old.info.name)
        same = ("sequence", "track", "frame", "size", "crc32c")
        if not new.rows.select(same).equals(old.rows.select(same)):
            raise FormatError(
                f"{folder / old.info.name}: changed while it was read, nothing was changed; "
                f"run the same command again"
            )
    return new


def _changed_samples(
    source: BinaryIO, shard: str, changes: Mapping[str, str]
) -> Iterator[tuple[Sample, bytes]]:
    """Samples of a shard that `scan` found sound, the target's class replaced where it changes."""
    picture = b""
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            data = _bytes_of(tar, member)
            if member.name.endswith(".jpg"):
                picture = data
                continue
            sample = Sample.from_json(data, f"{shard}: {member.name}")
            category = changes.get(sample.sequence, sample.category)
            yield replace(sample, categories=(category, *sample.categories[1:])), picture


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(member)
    return b"" if handle is None else handle.read()


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Hold the hidden folder of this work; what a stopped call left half-done is removed."""
    work = folder / WORK_FOLDER
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"{folder}: another 'shards relabel' is at work here, or the file system gives no "
                f"locks ({error.strerror}); wait for it, or copy the folder to another disk"
            ) from error
        _remove(work / "staged")
        try:
            yield work
        finally:
            _remove(work / "staged")
        if not (work / _READY).exists():
            _remove(work)
    finally:
        os.close(lock)


def _complete(folder: Path, work: Path) -> bool:
    """Put what is ready in its place, the manifest last; False if nothing is."""
    ready = work / _READY
    if not ready.is_dir():
        return False
    names = sorted(path.name for path in ready.iterdir())
    last = [name for name in (INDEX_NAME, MANIFEST_NAME) if name in names]
    for name in [*(name for name in names if name not in last), *last]:
        _rename(ready / name, folder / name)
    _remove(ready)
    return True


def _rename(path: Path, to: Path) -> None:
    """Rename and sync both folders, so that renames reach the disk in their order."""
    try:
        path.replace(to)
        sync_folder(to.parent)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, to) from error


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
