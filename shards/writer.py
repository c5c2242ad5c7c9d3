"""Write shards and finish a data set: the same input gives the same bytes.

A shard is written under a temporary name, read back (`shards.index.scan`, the same code that
rebuilds an index), described in a part file, synced and renamed. The index and the manifest are
made from the parts at the very end, so a folder with a manifest is complete.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from shards.format import INDEX_NAME, MANIFEST_NAME, Manifest, Sample, ShardInfo
from shards.geometry import Grid
from shards.index import Part, build, counts, scan
from shards.storage import FolderSink

__all__ = ["PARTS_FOLDER", "finish", "load_part", "part_name", "write_shard"]

PARTS_FOLDER = ".parts"


def part_name(shard: str) -> str:
    """File in the parts folder that describes one shard."""
    return f"{shard}.arrow"


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # mtime, uid and gid are 0, owner names empty
    info.size, info.mode = size, 0o644
    return info


def write_samples(handle: BinaryIO, samples: Iterable[tuple[Sample, bytes]]) -> None:
    """Write samples as a tar: ``.jpg``, then ``.json``; USTAR, PAX only where a name is long."""
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample, jpeg in samples:
            for extension, data in (("jpg", jpeg), ("json", sample.to_json())):
                tar.addfile(_member(f"{sample.key}.{extension}", len(data)), io.BytesIO(data))


def write_shard(
    folder: Path,
    name: str,
    samples: Iterable[tuple[Sample, bytes]],
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Part:
    """Write one shard and its part file; both appear complete or not at all.

    Parameters
    ----------
    folder : of the data set
    name : of the shard, from `shards.format.shard_name`
    samples : descriptions and encoded JPEGs, all frames of a track adjacent and in frame order
    facts : called after the last sample; JSON values to keep with the part (rejected frames)

    Returns
    -------
    what `load_part` would return. Without samples there is a part but no tar.

    Raises
    ------
    StorageError : if it cannot be written, for instance on a full disk
    """
    sink = FolderSink(folder)
    parts = FolderSink(folder / PARTS_FOLDER)
    iterator = iter(samples)
    first = next(iterator, None)
    if first is None:
        part = Part.empty(name, facts())
        parts.write(part_name(name), part.to_bytes())
        return part

    def all_samples() -> Iterable[tuple[Sample, bytes]]:
        yield first
        yield from iterator

    with sink.create(name) as handle:
        write_samples(handle, all_samples())
        handle.seek(0)
        part = scan(handle, name, facts())
        parts.write(part_name(name), part.to_bytes())
    return part


def load_part(folder: Path, name: str) -> Part | None:
    """Part of a shard that is complete on disk, or None if the shard must be written (again)."""
    path = folder / PARTS_FOLDER / part_name(name)
    if not path.is_file():
        return None
    try:
        part = Part.from_bytes(path.read_bytes())
    except (pa.ArrowInvalid, KeyError, ValueError):
        return None  # a damaged part costs one shard to pack again
    shard = folder / name
    on_disk = shard.stat().st_size if shard.is_file() else 0
    return part if part.info.bytes == on_disk else None


def finish(
    folder: Path,
    parts: Sequence[Part],
    *,
    name: str,
    grid: Grid,
    crop_size: int,
    quality: int | None = None,
    stride: int | None = None,
    **facts: Any,
) -> Manifest:
    """Write the index, then the manifest, of a folder whose shards are all there.

    Parameters
    ----------
    folder : of the data set
    parts : one for every shard, in order; those without samples are left out
    name, grid, crop_size, quality, stride, **facts : fields of `Manifest`
    """
    kept = [part for part in parts if part.info.frames]
    table = build(kept, name)
    sink = FolderSink(folder)
    with sink.create(INDEX_NAME) as handle:
        with pa.ipc.new_file(pa.PythonFile(handle, "w"), table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, table.num_rows))
        size = handle.tell()
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    manifest = Manifest(
        name=name,
        grid=grid,
        crop_size=crop_size,
        quality=quality,
        stride=stride,
        counts=counts(table),
        shards=tuple(ShardInfo(**part.info_fields()) for part in kept),
        index={"name": INDEX_NAME, "bytes": size, "sha256": digest},
        **facts,
    )
    sink.write(MANIFEST_NAME, manifest.to_json())
    return manifest
