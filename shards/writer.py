"""Write shards and finish a data set: the same input gives the same bytes.

A shard is written aside, read back (`shards.parts.scan`, the same code that rebuilds an index),
gets its name, and then a part file that describes it. The index and the manifest are made from the
parts at the very end, so a place with a manifest is complete.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from shards.format import INDEX_NAME, MANIFEST_NAME, Manifest, Sample
from shards.geometry import Grid
from shards.index import build, counts
from shards.parts import Part, scan
from shards.sink import Sink, sink_of

__all__ = [
    "PARTS_FOLDER",
    "finish",
    "forget_parts",
    "load_part",
    "load_parts",
    "part_name",
    "write_samples",
    "write_shard",
]

PARTS_FOLDER = ".parts"
_READERS = 8  # parts read at a time


def part_name(shard: str) -> str:
    """File in the parts folder that describes one shard."""
    return f"{shard}.arrow"


def tar_header(name: str, size: int) -> bytes:
    """Header of a tar member: what `tarfile` writes, ten times faster where the name is short."""
    if len(name) > tarfile.LENGTH_NAME or size > _LARGEST or not name.isascii():
        info = tarfile.TarInfo(name)  # mtime, uid and gid are 0, owner names empty
        info.size, info.mode = size, 0o644
        return info.tobuf(tarfile.PAX_FORMAT)
    header = bytearray(_blank_header())
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % size
    total = sum(header) + 8 * ord(" ") - sum(header[148:156])  # its own field counts as spaces
    header[148:155] = b"%06o\0" % total
    return bytes(header)


_LARGEST = 8**11 - 1  # bytes; eleven octal digits


@cache
def _blank_header() -> bytes:
    info = tarfile.TarInfo("")
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def write_samples(handle: BinaryIO, samples: Iterable[tuple[Sample, bytes]]) -> None:
    """Write samples as a tar: ``.jpg``, then ``.json``; USTAR, PAX only where a name is long."""
    written = 0
    for sample, jpeg in samples:
        key = sample.key
        for extension, data in (("jpg", jpeg), ("json", sample.to_json())):
            header = tar_header(f"{key}.{extension}", len(data))
            padding = bytes(-len(data) % tarfile.BLOCKSIZE)
            for piece in (header, data, padding):
                written += handle.write(piece)
    end = 2 * tarfile.BLOCKSIZE
    handle.write(bytes(end + -(written + end) % tarfile.RECORDSIZE))


def write_shard(
    where: Path | Sink,
    name: str,
    samples: Iterable[tuple[Sample, bytes]],
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Part:
    """Write one shard, then its part file; each appears complete or not at all.

    Parameters
    ----------
    where : folder or other place of the data set
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
    sink = sink_of(where)
    iterator = iter(samples)
    first = next(iterator, None)
    if first is None:
        part = Part.empty(name, facts())
        sink.remove([name])  # what was written from pictures that cannot be read any more
    else:
        with sink.create(name) as handle:
            write_samples(handle, chain([first], iterator))
            handle.seek(0)
            part = scan(handle, name, facts())
    sink.child(PARTS_FOLDER).write(part_name(name), part.to_bytes())
    return part


def load_part(where: Path | Sink, name: str) -> Part | None:
    """Part of a shard that is complete, or None if the shard must be written (again)."""
    (part,) = load_parts(where, [name])
    return part


def load_parts(where: Path | Sink, names: Sequence[str]) -> Iterator[Part | None]:
    """Parts of some shards, None for each that is not complete; a few are read ahead."""
    sink = sink_of(where)
    parts = sink.child(PARTS_FOLDER)
    sizes, described = sink.sizes(), parts.sizes()

    def load(name: str) -> Part | None:
        data = parts.read(part_name(name)) if part_name(name) in described else None
        if data is None:
            return None
        try:
            part = Part.from_bytes(data)
        except (pa.ArrowInvalid, KeyError, ValueError):
            return None  # a damaged part costs one shard to pack again
        return part if part.info.bytes == sizes.get(name, 0) else None

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), 2 * _READERS):
            yield from pool.map(load, names[start : start + 2 * _READERS])


def forget_parts(where: Path | Sink, names: Sequence[str]) -> None:
    """Remove the parts of shards that are to be written anew."""
    if names:
        sink_of(where).child(PARTS_FOLDER).remove(map(part_name, names))


def finish(
    where: Path | Sink,
    parts: Sequence[Part],
    *,
    name: str,
    grid: Grid,
    crop_size: int,
    quality: int | None = None,
    stride: int | None = None,
    **facts: Any,
) -> Manifest:
    """Write the index, then the manifest, of a data set whose shards are all there.

    Parameters
    ----------
    where : folder or other place of the data set
    parts : one for every shard, in order; those without samples are left out
    name, grid, crop_size, quality, stride, **facts : fields of `Manifest`
    """
    kept = [part for part in parts if part.info.frames]
    table = build(kept, name)
    sink = sink_of(where)
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
        shards=tuple(part.info for part in kept),
        index={"name": INDEX_NAME, "bytes": size, "sha256": digest},
        **facts,
    )
    sink.write(MANIFEST_NAME, manifest.to_json())
    return manifest
