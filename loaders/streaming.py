"""Samples of one shard, in order, while the shard is read from start to end.

webdataset takes the tar apart; the bytes come from a `loaders.sources.Source`, and everything that
a tar reader would pass over in silence is checked here: a header that is damaged in mid-file, which
looks like the end, a file that is cut off, too long, or another one of the same name.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from loaders.dealing import Frame
from loaders.sets import picture_fault
from loaders.sources import Source
from shards.errors import BadSample, FormatError, StorageError
from shards.format import Manifest, Sample, sample_key
from shards.index import Index
from shards.parts import crc32c
from shards.writer import tar_header

__all__ = ["Picture", "Progress", "ShardStream"]

_VERIFY = "run 'python -m shards verify' on its folder"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An encoded picture in memory, with its description.

    Attributes
    ----------
    shard, key, offset : where it was; `offset` of its first byte in the shard
    jpg, json : the two members
    side : of the picture in pixels
    listed : the index and the row in it, or None where the source has no index
    """

    shard: str
    key: str
    offset: int
    jpg: bytes
    json: bytes
    side: int
    listed: tuple[Index, int] | None

    def read(self, row: int) -> memoryview:  # noqa: ARG002 (a picture is of one row)
        """Encoded picture, its checksum and the size in its header verified.

        Raises
        ------
        BadSample : if the bytes are not those that were packed, or no JPEG of the right size
        """
        if self.listed is not None:
            index, at = self.listed
            if (found := crc32c(self.jpg)) != index.crc[at]:
                raise self.bad(0, f"CRC-32C is {found:08x}, the index says {index.crc[at]:08x}")
        fault = picture_fault(memoryview(self.jpg), self.side)
        if fault:
            raise self.bad(0, fault)
        return memoryview(self.jpg)

    def bad(self, row: int, reason: str) -> BadSample:  # noqa: ARG002
        """Error that names the sample."""
        return BadSample(self.shard, self.key, self.offset, reason)

    def sample(self) -> Sample:
        """All facts of the sample.

        Raises
        ------
        FormatError : if its description is none
        BadSample : if its boxes are not those of the index
        """
        sample = Sample.from_json(self.json, f"{self.shard}: {self.key}.json")
        if self.listed is not None:
            index, at = self.listed
            start, stop = index.box_start[at : at + 2]
            if not np.array_equal(sample.boxes, index.boxes[start:stop]):
                raise self.bad(0, "the boxes of its .json are not those of the index")
        return sample


class Progress:
    """What reading tells other threads, and is told by them.

    Attributes
    ----------
    stop : set to end reading
    heard : when bytes last came, of `time.perf_counter`
    """

    def __init__(self) -> None:
        self.stop, self.heard = threading.Event(), 0.0


class Stopped(Exception):
    """The loader was closed while a shard was read."""


class _Checked:
    """A file that is read once, while size and SHA-256 are taken."""

    def __init__(
        self, handle: BinaryIO, where: str, size: int, progress: Progress, hashed: bool
    ) -> None:
        self._handle, self._where, self._expected, self._progress = handle, where, size, progress
        self._hashed, self.sha256, self.bytes = hashed, hashlib.sha256(), 0
        self.failure: StorageError | None = None  # webdataset rewrites messages that pass through
        self._head = self._read(tarfile.BLOCKSIZE)
        if self._head[257:262] != b"ustar":  # nor is a compressed tar unpacked
            raise StorageError(f"{where}: does not begin like a tar; {_VERIFY}")

    def _read(self, size: int) -> bytes:
        if self._progress.stop.is_set():
            raise Stopped
        try:
            data = self._handle.read(size)
        except OSError as error:
            raise self._fail(f"cannot be read at byte {self.bytes}: {error}") from error
        self._progress.heard = time.perf_counter()
        if self._hashed:
            self.sha256.update(data)
        self.bytes += len(data)
        if self.bytes > self._expected:
            raise self._fail(
                f"longer than the {self._expected} bytes of the manifest; it is of another "
                f"packing: {_VERIFY}"
            )
        return data

    def _fail(self, reason: str) -> StorageError:
        self.failure = StorageError(f"{self._where}: {reason}")
        return StorageError(*self.failure.args)

    def read(self, size: int) -> bytes:
        """Read on; `tarfile` asks for blocks."""
        head, self._head = self._head[:size], self._head[size:]
        return head + self._read(size - len(head)) if len(head) < size else head


class ShardStream:
    """The shards of one data set as streams of `loaders.window.Frame`.

    Parameters
    ----------
    source, prefix : where the shards are
    manifest : of the data set
    index : of the data set; what is used of a sample is checked against it before. Without one a
        wrong byte is found at the end of its shard, by the manifest's SHA-256
    progress : shared with whoever waits
    """

    def __init__(
        self,
        source: Source,
        prefix: str,
        manifest: Manifest,
        index: Index | None,
        progress: Progress,
    ) -> None:
        self._source, self._prefix, self._index, self._progress = source, prefix, index, progress
        self._side, self._name = manifest.crop_size, manifest.name
        self.shards = [shard for shard in manifest.shards if shard.frames]
        rows = 0
        self._first_rows: list[int] = []
        for shard in self.shards:
            self._first_rows.append(rows)
            rows += shard.frames
        self._is_image: bool | None = None

    def read(self, number: int) -> Iterator[Frame]:
        """Frames of a shard, in order; the file is closed with the iterator.

        Raises
        ------
        StorageError : if it cannot be read, or is not the shard that the manifest describes
        FormatError : if a sample is none of this format
        """
        shard = self.shards[number]
        where = self._source.where(self._prefix + shard.name)
        try:
            handle = self._source.open(self._prefix + shard.name)
        except OSError as error:
            raise StorageError(f"{where}: cannot be opened: {error}") from error
        with closing(handle):
            checked = _Checked(handle, where, shard.bytes, self._progress, self._index is None)
            end, last, frames = 0, "its beginning", 0
            samples = _samples(checked, where)
            try:
                for members in samples:
                    if frames == shard.frames:
                        break
                    frame, end = self._frame(members, where, end, self._first_rows[number] + frames)
                    frames, last = frames + 1, members["__key__"]
                    yield frame
            except (tarfile.TarError, EOFError, zlib.error) as error:
                raise StorageError(
                    f"{where}: damaged or cut off after {last}, from byte {end} on: "
                    f"{_said(error)}; {_VERIFY}"
                ) from error
            except StorageError as error:
                raise (checked.failure or error) from error.__cause__
            finally:
                samples.close()
            if frames < shard.frames:
                raise StorageError(
                    f"{where}: damaged or cut off after {last}: from byte {end} on there is no "
                    f"sample, and the manifest has {shard.frames - frames} more; {_VERIFY}"
                )
            if self._index is None:
                _check_rest(checked, where, shard.bytes, shard.sha256)

    def _frame(
        self, members: Mapping[str, Any], where: str, start: int, row: int
    ) -> tuple[Frame, int]:
        """Frame of a sample, and the byte after its members."""
        key, offset, end = members["__key__"], start, start
        for extension in (name for name in members if not name.startswith("__")):
            size = len(members[extension])
            data = end + len(tar_header(f"{key}.{extension}", size))
            offset = data if extension == "jpg" else offset
            end = -(-(data + size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if not {"jpg", "json"} <= members.keys():
            raise FormatError(f"{where}: {key} needs a .jpg and a .json, adjacent; {_VERIFY}")
        jpg, text = members["jpg"], members["json"]
        try:
            facts = json.loads(text)
            track, number = (facts["sequence"], facts["track"]), facts["frame"]
            category, is_image = facts["category"], facts["kind"] == "image"
            described = sample_key(*track, number)
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{where}: {key}.json: not a sample description: {error!r}"
            ) from error
        if described != key:
            raise FormatError(f"{where}: {key}.json describes {described}")
        if self._is_image is None:
            self._is_image = is_image
        if is_image != self._is_image:
            raise FormatError(
                f"{where}: {key} is a {facts['kind']}, unlike others of {self._name}; sequential "
                "storage takes data sets of one kind"
            )
        listed = None
        if self._index is not None:
            listed = self._index, row
            self._compare(row, where, (key, len(jpg), category))
        picture = Picture(where, key, offset, jpg, text, self._side, listed)
        return Frame(row, track, number, category, is_image, len(jpg), picture), end

    def _compare(self, row: int, where: str, found: tuple[str, int, str]) -> None:
        """Compare key, size and category with the index."""
        index = self._index
        assert index is not None
        category = index.categories[index.category_code[row]]
        listed = index.key(row), int(index.size[row]), category
        if found != listed:
            raise StorageError(
                f"{where}: holds {found[0]} ({found[2]}, {found[1]} bytes) where the index lists "
                f"{listed[0]} ({listed[2]}, {listed[1]}); it is another shard or of another "
                f"packing: {_VERIFY}"
            )


def _said(error: Exception) -> str:
    """Message of a tar reader, without what webdataset adds to it."""
    text = str(error.args[0]) if error.args else ""
    return text.partition(" @ ")[0] or type(error).__name__


def _samples(file: _Checked, where: str) -> Any:
    """Samples of a tar: members that webdataset reads and groups by key."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        yield from group_by_keys(tar_file_expander([{"url": where, "stream": file}], eof_value={}))
    except ValueError as error:  # two members of one name
        raise FormatError(f"{where}: {error.args[0]}; {_VERIFY}") from error


def _check_rest(file: _Checked, where: str, size: int, sha256: str) -> None:
    while file.read(1 << 20):
        pass
    if file.bytes != size or file.sha256.hexdigest() != sha256:
        found = f"{file.bytes} bytes, SHA-256 {file.sha256.hexdigest()[:12]}"
        raise StorageError(
            f"{where}: {found}..., the manifest says {size} and {sha256[:12]}...; bytes are "
            f"damaged, or it is another shard: {_VERIFY}"
        )
