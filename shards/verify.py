"""Check a folder of shards: every size, hash, CRC, description and picture."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from shards import pixels
from shards.errors import FormatError, StorageError
from shards.format import INDEX_NAME, Manifest, ShardInfo
from shards.index import Index, counts
from shards.parts import crc32c, scan
from shards.storage import LocalStorage

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


def _size_and_hash(folder: Path, name: str, rows: range) -> tuple[int, str]:
    """Size and hash of a shard; of a folder of crops, of those of `rows`, one after another."""
    path = folder / name
    if not path.is_dir():
        return path.stat().st_size, _file_hash(path)
    index, size, digest = Index(folder), 0, hashlib.sha256()
    for row in rows:
        crop = folder / index.file(row)
        data = crop.read_bytes() if crop.is_file() else b""
        size += len(data)
        digest.update(data)
    return size, digest.hexdigest()


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
    """Look for every description where it should stand; only for shards whose hash differs."""
    damage = []
    size = path.stat().st_size
    with path.open("rb") as handle:
        for row in rows:
            end = int(index.offset[row]) + int(index.size[row])
            if end > size:
                continue  # cut off: the picture itself is named
            expected = index.sample(row).to_json()
            handle.seek(end)
            # padding, up to four header blocks (a long name), the description
            if expected not in handle.read(5 * tarfile.BLOCKSIZE + len(expected)):
                reason = "its description is not the index's"
                damage.append(Damage(shard=path.name, key=index.key(row), reason=reason))
    return damage


def _structure(path: Path) -> list[Damage]:
    """What is wrong with the tar as such."""
    try:
        with path.open("rb") as handle:
            scan(handle, path.name)
    except FormatError as error:
        return [Damage(shard=path.name, key="", reason=str(error))]
    return []


def check_rows(folder: Path, rows: range, crop_size: int) -> list[Damage]:
    """Pictures that are damaged.

    Parameters
    ----------
    folder : of the data set
    rows : rows of the index to check
    crop_size : side of every picture in pixels
    """
    index, storage = Index(folder), LocalStorage(folder)
    damage: list[Damage] = []
    for row in rows:
        file = index.file(row)
        one = index.range(row)
        try:
            size = storage.size(file)
            if one.offset + one.size > size:
                reason: str | None = (
                    f"cut off: bytes {one.offset} to {one.offset + one.size} of {size}"
                )
            else:
                data = storage.read_many([one])[0]
                reason = _check_picture(data, int(index.crc[row]), crop_size)
        except (StorageError, FormatError) as error:
            reason = str(error)
        if reason:
            damage.append(Damage(shard=file, key=index.key(row), reason=reason))
    return damage


def check_file(folder: Path, info: ShardInfo, rows: range | None) -> list[Damage]:
    """Compare a shard's size and hash with the manifest; if they differ, its descriptions too.

    Parameters
    ----------
    folder : of the data set
    info : the manifest's line
    rows : of the index; None where the index is not to be trusted
    """
    path = folder / info.name
    if not path.exists():
        return [Damage(shard=info.name, key="", reason="the file does not exist")]
    if path.is_dir() and rows is None:
        return []  # single crops, which only the index lists
    size, digest = _size_and_hash(folder, info.name, rows or range(0))
    if (size, digest) == (info.bytes, info.sha256):
        return []
    found = f"{size} bytes" if size != info.bytes else f"SHA-256 {digest}"
    wanted = f"{info.bytes} bytes" if size != info.bytes else info.sha256
    reason = f"{found}, the manifest says {wanted}"
    damage = [Damage(shard=info.name, key="", reason=reason)]
    if not info.name.endswith(".tar"):
        return damage  # crops that are used in place have no descriptions beside them
    named = [] if rows is None else _check_descriptions(path, Index(folder), rows)
    return [*damage, *(named or _structure(path))]


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


def _check_index(folder: Path, manifest: Manifest) -> tuple[Index | None, list[Damage]]:
    """Index, if it is the one that the manifest names, and what is wrong with it."""

    def damage(reason: str) -> list[Damage]:
        return [Damage(shard=INDEX_NAME, key="", reason=reason)]

    path = folder / INDEX_NAME
    if not path.is_file() or _file_hash(path) != manifest.index["sha256"]:
        return None, damage(
            "absent, or its SHA-256 is not the manifest's, so only whole shards were checked; "
            f"make it again with 'python -m shards index {folder}'"
        )
    index = Index(folder)
    found = counts(index.table)
    if found != manifest.counts:
        return index, damage(f"it counts {found}, the manifest {dict(manifest.counts)}")
    return index, []


def _strangers(folder: Path, manifest: Manifest) -> list[Damage]:
    """Tars that look like shards of the data set and are not in the manifest."""
    known = {info.name for info in manifest.shards}
    names = sorted(path.name for path in folder.glob(f"{manifest.name}-*.tar"))
    reason = "not in the manifest"
    return [Damage(shard=name, key="", reason=reason) for name in names if name not in known]


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
    FormatError : if there is no readable manifest at all
    """
    manifest = Manifest.read(folder)
    index, damage = _check_index(folder, manifest)
    rows = _shard_rows(index, manifest) if index else {}
    frames = sum(info.frames for info in manifest.shards)
    report = Report(
        name=manifest.name,
        shards=len(manifest.shards),
        frames=frames,
        bytes=sum(info.bytes for info in manifest.shards),
        damage=damage + _strangers(folder, manifest),
    )
    done = 0
    found: dict[str, list[Damage]] = {info.name: [] for info in manifest.shards}
    context = get_context("forkserver")
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context) as pool:
        jobs: dict[Future[list[Damage]], tuple[str, int]] = {}
        for info in manifest.shards:
            own = rows.get(info.name)
            jobs[pool.submit(check_file, folder, info, own)] = (info.name, 0)
            if own and (folder / info.name).exists():
                for at in range(0, len(own), CHUNK_ROWS):
                    chunk = own[at : at + CHUNK_ROWS]
                    job = pool.submit(check_rows, folder, chunk, manifest.crop_size)
                    jobs[job] = (info.name, len(chunk))
        for job in as_completed(jobs):
            name, checked = jobs[job]
            found[name] += job.result()
            done += checked
            if progress:
                progress(done, frames)
    for info in manifest.shards:
        report.damage += sorted(found[info.name], key=lambda one: one.key)
    return report
