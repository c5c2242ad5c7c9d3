"""Check a folder of shards: every size, hash, CRC, description and picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from shards import pixels
from shards.errors import FormatError, StorageError
from shards.format import INDEX_NAME, Manifest, ShardInfo
from shards.index import Index, counts, crc32c, scan
from shards.storage import LocalStorage, Range

__all__ = ["Damage", "Report", "verify"]

CHUNK_ROWS = 512  # pictures that one process checks at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is wrong: the shard, the sample's key (empty: the file itself), the reason."""

    shard: str
    key: str
    reason: str


@dataclass(kw_only=True, slots=True)
class Report:
    """What `verify` found."""

    name: str
    shards: int
    frames: int
    bytes: int
    damage: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.damage


def _file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check_picture(data: memoryview, crc: int, crop_size: int) -> str | None:
    if crc32c(data) != crc:
        return f"CRC-32C is {crc32c(data):08x}, the index says {crc:08x}"
    try:
        height, width = pixels.decode(data).shape[:2]
    except ValueError as error:
        return str(error)
    if (width, height) != (crop_size, crop_size):
        return f"{width}x{height} pixels, {crop_size}x{crop_size} expected"
    return None


def _check_descriptions(path: Path, index: Index, rows: range) -> list[Damage]:
    """Compare the shard's own descriptions with the index; only for shards whose hash differs."""
    try:
        with path.open("rb") as handle:
            part = scan(handle, path.name)
    except FormatError as error:
        return [Damage(shard=path.name, key="", reason=str(error))]
    names = [name for name in part.rows.column_names if name != "crc32c"]  # checked before
    found = part.rows.select(names).to_pylist()
    damage = []
    for at, row in enumerate(rows):
        expected = {name: index.table[name][row].as_py() for name in names}
        if at >= len(found) or found[at] != expected:
            damage.append(
                Damage(
                    shard=path.name, key=index.key(row), reason="its description is not the index's"
                )
            )
    return damage


def check_rows(folder: Path, file: str, rows: range, crop_size: int) -> list[Damage]:
    """Pictures of one shard that are damaged.

    Parameters
    ----------
    folder : of the data set
    file : the shard
    rows : rows of the index to check, all in this shard
    crop_size : side of every picture in pixels
    """
    index, storage = Index(folder), LocalStorage(folder)
    damage: list[Damage] = []
    for row in rows:
        try:
            one = Range(file, int(index.offset[row]), int(index.size[row]))
            reason = _check_picture(storage.read_many([one])[0], int(index.crc[row]), crop_size)
        except StorageError as error:
            reason = str(error)
        if reason:
            damage.append(Damage(shard=file, key=index.key(row), reason=reason))
    return damage


def check_file(folder: Path, info: ShardInfo, rows: range) -> list[Damage]:
    """Compare a shard's size and hash with the manifest; if they differ, its descriptions too."""
    path = folder / info.name
    if not path.is_file():
        return [Damage(shard=info.name, key="", reason="the file does not exist")]
    size, digest = path.stat().st_size, _file_hash(path)
    if (size, digest) == (info.bytes, info.sha256):
        return []
    found = f"{size} bytes" if size != info.bytes else f"SHA-256 {digest}"
    wanted = f"{info.bytes} bytes" if size != info.bytes else info.sha256
    reason = f"{found}, the manifest says {wanted}"
    return [
        Damage(shard=info.name, key="", reason=reason),
        *_check_descriptions(path, Index(folder), rows),
    ]


def _shard_rows(index: Index, manifest: Manifest) -> dict[str, range]:
    rows, start = {}, 0
    for info in manifest.shards:
        rows[info.name] = range(start, start + info.frames)
        start += info.frames
    if start != len(index):
        raise FormatError(
            f"{index.path}: {len(index)} rows, the manifest's shards have {start}; "
            "make it again with 'python -m shards index'"
        )
    return rows


def _check_index(folder: Path, manifest: Manifest, index: Index) -> list[Damage]:
    damage = []
    if _file_hash(folder / INDEX_NAME) != manifest.index["sha256"]:
        reason = "SHA-256 is not the manifest's; make it again with 'python -m shards index'"
        damage.append(Damage(shard=INDEX_NAME, key="", reason=reason))
    found = counts(index.table)
    if found != manifest.counts:
        reason = f"it counts {found}, the manifest {dict(manifest.counts)}"
        damage.append(Damage(shard=INDEX_NAME, key="", reason=reason))
    return damage


def verify(
    folder: Path, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Check every CRC, size and hash and decode every picture of a packed data set.

    Parameters
    ----------
    folder : of the data set
    workers : processes; all cores by default
    progress : called with frames done and frames in all

    Raises
    ------
    FormatError : if there is no readable manifest or index at all
    """
    manifest = Manifest.read(folder)
    index = Index(folder)
    rows = _shard_rows(index, manifest)
    report = Report(
        name=manifest.name,
        shards=len(manifest.shards),
        frames=len(index),
        bytes=sum(info.bytes for info in manifest.shards),
        damage=_check_index(folder, manifest, index),
    )
    done = 0
    found: dict[str, list[Damage]] = {info.name: [] for info in manifest.shards}
    context = get_context("forkserver")
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context) as pool:
        jobs: dict[Future[list[Damage]], tuple[str, int]] = {}
        for info in manifest.shards:
            own = rows[info.name]
            jobs[pool.submit(check_file, folder, info, own)] = (info.name, 0)
            if (folder / info.name).is_file():
                for at in range(0, len(own), CHUNK_ROWS):
                    chunk = own[at : at + CHUNK_ROWS]
                    job = pool.submit(check_rows, folder, info.name, chunk, manifest.crop_size)
                    jobs[job] = (info.name, len(chunk))
        for job in as_completed(jobs):
            name, frames = jobs[job]
            found[name] += job.result()
            done += frames
            if progress:
                progress(done, len(index))
    for info in manifest.shards:
        report.damage += sorted(found[info.name], key=lambda one: one.key)
    return report
