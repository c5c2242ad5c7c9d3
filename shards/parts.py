"""Parts of an index: the rows of one shard, found by reading it from start to end.

A packer keeps them beside the shards until all are there; then `shards.index.build` puts them
together.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import google_crc32c
import pyarrow as pa

from shards.errors import FormatError
from shards.format import Sample, ShardInfo

__all__ = ["PART_SCHEMA", "Part", "crc32c", "scan", "table_of"]

_BOX = pa.list_(pa.float32(), 4)
PART_SCHEMA = pa.schema(
    [
        ("sequence", pa.utf8()),
        ("track", pa.int32()),
        ("frame", pa.int32()),
        ("kind", pa.utf8()),
        ("fps", pa.float32()),
        ("boxes", pa.list_(_BOX)),
        ("categories", pa.list_(pa.utf8())),
        ("ignore", pa.list_(pa.bool_())),
        ("category", pa.utf8()),
        ("visible", pa.float32()),
        ("mean_rgb", pa.list_(pa.float32(), 3)),
        ("source", pa.utf8()),
        ("source_size", pa.list_(pa.int32(), 2)),
        ("region", _BOX),
        ("file", pa.utf8()),
        ("offset", pa.int64()),
        ("size", pa.int32()),
        ("crc32c", pa.uint32()),
    ]
)
_FACTS_KEY = b"siamstream.part"


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli) of bytes, as kept in the index."""
    whole = data.obj if isinstance(data, memoryview) else data
    if not isinstance(whole, bytes) or len(whole) != len(data):
        whole = bytes(data)  # the library takes nothing else
    return int(google_crc32c.value(whole))


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows of one shard: what the index needs to know about it, and the packer's facts."""

    info: ShardInfo
    rows: pa.Table
    facts: Mapping[str, Any]

    @classmethod
    def empty(cls, name: str, facts: Mapping[str, Any]) -> Part:
        """Part of a shard in which no frame was usable."""
        info = ShardInfo(name=name, bytes=0, frames=0, sha256=hashlib.sha256().hexdigest())
        return cls(info=info, rows=PART_SCHEMA.empty_table(), facts=facts)

    def to_bytes(self) -> bytes:
        """Return the part as an Arrow file."""
        text = json.dumps({"info": asdict(self.info), "facts": dict(self.facts)})
        table = self.rows.replace_schema_metadata({_FACTS_KEY: text})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, data: bytes) -> Part:
        """Read what `to_bytes` wrote."""
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        saved = json.loads(table.schema.metadata[_FACTS_KEY])
        return cls(
            info=ShardInfo(**saved["info"]),
            rows=table.replace_schema_metadata(None),
            facts=saved["facts"],
        )


class _HashingReader:
    """A file read once, start to end, while its SHA-256 is taken."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle, self.sha256, self.bytes = handle, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self.sha256.update(data)
        self.bytes += len(data)
        return data


def scan(handle: BinaryIO, name: str, facts: Mapping[str, Any] | None = None) -> Part:
    """Read a shard from start to end and describe every sample.

    Parameters
    ----------
    handle : the tar, at its beginning
    name : of the shard
    facts : kept with the part

    Raises
    ------
    FormatError : if it is not a shard of this format; names shard and member
    """
    reader = _HashingReader(handle)
    rows: list[tuple[Any, ...]] = []
    last, end = "nothing", 0
    try:
        with tarfile.open(fileobj=reader, mode="r|") as tar:  # type: ignore[call-overload]
            picture: tuple[str, int, int, int] | None = None
            for member in tar:
                base, _, extension = member.name.rpartition(".")
                source = tar.extractfile(member) if member.isfile() else None
                if source is None or extension not in ("jpg", "json"):
                    raise FormatError(
                        f"{name}: {member.name}: only .jpg and .json files belong here"
                    )
                data = source.read()
                last, end = member.name, member.offset_data + len(data)
                if extension == "jpg":
                    if picture is not None:
                        raise FormatError(f"{name}: {picture[0]}.jpg has no .json beside it")
                    picture = (base, member.offset_data, len(data), crc32c(data))
                    continue
                sample = Sample.from_json(data, f"{name}: {member.name}")
                if picture is None or not base == picture[0] == sample.key:
                    raise FormatError(
                        f"{name}: {member.name} describes {sample.key} and follows "
                        f"{picture[0] if picture else 'no picture'}"
                    )
                rows.append((sample, *picture[1:]))
                picture = None
            if picture is not None:
                raise FormatError(f"{name}: {picture[0]}.jpg has no .json beside it")
        while reader.read(1 << 20):
            pass  # the padding after the last member belongs to the hash
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{name}: damaged tar after {len(rows)} samples: {error}") from error
    _check_end(handle, name, last, end)
    info = ShardInfo(
        name=name, bytes=reader.bytes, frames=len(rows), sha256=reader.sha256.hexdigest()
    )
    return Part(
        info=info, rows=table_of([(row[0], name, *row[1:]) for row in rows]), facts=facts or {}
    )


def _check_end(handle: BinaryIO, name: str, last: str, end: int) -> None:
    """A tar ends with two blocks of zeros; a damaged header looks like an end to `tarfile`."""
    start = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    handle.seek(start)
    rest = handle.read()
    if len(rest) < 2 * tarfile.BLOCKSIZE or any(rest):
        raise FormatError(
            f"{name}: damaged or cut off after {last}: from byte {start} on there is neither a "
            "member nor the end of a tar"
        )


def table_of(rows: Sequence[tuple[Sample, str, int, int, int]]) -> pa.Table:
    """Rows of a part.

    Parameters
    ----------
    rows : of each crop the description, and file, byte offset, size and CRC-32C of the picture
    """
    samples = [row[0] for row in rows]
    columns = {
        "sequence": [s.sequence for s in samples],
        "track": [s.track for s in samples],
        "frame": [s.frame for s in samples],
        "kind": [s.kind for s in samples],
        "fps": [s.fps for s in samples],
        "boxes": [list(s.boxes) for s in samples],
        "categories": [s.categories for s in samples],
        "ignore": [s.ignore for s in samples],
        "category": [s.category for s in samples],
        "visible": [s.visible for s in samples],
        "mean_rgb": [s.mean_rgb for s in samples],
        "source": [s.source for s in samples],
        "source_size": [s.source_size for s in samples],
        "region": [s.region for s in samples],
        "file": [row[1] for row in rows],
        "offset": [row[2] for row in rows],
        "size": [row[3] for row in rows],
        "crc32c": [row[4] for row in rows],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in PART_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=PART_SCHEMA)
