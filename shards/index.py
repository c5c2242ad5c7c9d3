"""The index: one Arrow file, memory-mapped, one row a crop.

Rows are in shard order, so all frames of a track are adjacent and in frame order. Columns hold the
facts of `shards.format.Sample`, where the picture's bytes are (``file``, ``offset``, ``size``,
``crc32c``), and three derived columns that make drawing pairs cheap without a table in memory:
``track_first`` and ``track_rows`` (the rows of this track) and ``by_category`` (all row
numbers, ordered by category).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import FormatError
from shards.format import (
    FORMAT_VERSION,
    INDEX_NAME,
    Counts,
    Kind,
    Manifest,
    Sample,
    check_version,
    sample_key,
)
from shards.parts import PART_SCHEMA, Part
from shards.storage import Range

__all__ = ["Index", "build", "counts"]

MANY_FILES = 4096  # names held in memory; more than a data set of tars has
_DICTIONARIES = ("sequence", "kind", "category", "file")
_VERSION_KEY, _NAME_KEY = b"siamstream.format", b"siamstream.name"


def _float32(values: list[float] | None) -> npt.NDArray[np.float32] | None:
    return None if values is None else np.array(values, np.float32)


def _encoded_list(column: pa.Array) -> pa.Array:
    values = column.values.dictionary_encode()
    return pa.ListArray.from_arrays(column.offsets, values)


def _runs(sequence: npt.NDArray[Any], track: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """First row of every run of rows with one sequence and track."""
    change = (sequence[1:] != sequence[:-1]) | (track[1:] != track[:-1])
    return np.concatenate([[0], np.flatnonzero(change) + 1]).astype(np.int64)


def build(parts: Iterable[Part], name: str) -> pa.Table:
    """Put the parts of all shards together to the table of the index.

    Dictionaries are in order of first appearance, so the table depends on the shards alone.

    Raises
    ------
    FormatError : if there are no rows, or a track's frames are not adjacent and in frame order
    """
    tables = [part.rows for part in parts]
    table = pa.concat_tables(tables).combine_chunks() if tables else PART_SCHEMA.empty_table()
    if not table.num_rows:
        raise FormatError(f"{name}: no samples; an index needs at least one")
    columns: dict[str, pa.Array] = {}
    for column in table.column_names:
        array = table[column].combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        if column in _DICTIONARIES:
            array = pc.dictionary_encode(array)
        elif column == "categories":
            array = _encoded_list(array)
        columns[column] = array
    sequence = columns["sequence"].indices.to_numpy()
    track, frame = columns["track"].to_numpy(), columns["frame"].to_numpy()
    first = _runs(sequence, track)
    keys = np.stack([sequence[first], track[first]], axis=1)
    within = np.ones(len(frame), bool)
    within[first] = False
    backwards = within[1:] & (frame[1:] <= frame[:-1])
    if len(np.unique(keys, axis=0)) != len(first) or backwards.any():
        row = int(np.flatnonzero(backwards)[0]) + 1 if backwards.any() else int(first[-1])
        raise FormatError(
            f"{name}: near {columns['sequence'][row].as_py()} frame {frame[row]}: all frames of a "
            "track must be adjacent, in frame order and there once"
        )
    rows = np.diff(np.append(first, len(frame)))
    category = columns["category"].indices.to_numpy()
    columns["track_first"] = pa.array(np.repeat(first, rows).astype(np.int32))
    columns["track_rows"] = pa.array(np.repeat(rows, rows).astype(np.int32))
    columns["by_category"] = pa.array(np.argsort(category, kind="stable").astype(np.int32))
    metadata = {_VERSION_KEY: str(FORMAT_VERSION), _NAME_KEY: name}
    return pa.table(columns).replace_schema_metadata(metadata)


def counts(table: pa.Table) -> Counts:
    """Frames, tracks, sequences and categories (of targets) of an index."""
    first = table["track_first"].to_numpy()
    return {
        "frames": table.num_rows,
        "tracks": int(np.count_nonzero(first == np.arange(len(first)))),
        "sequences": len(table["sequence"].chunk(0).dictionary),
        "categories": len(table["category"].chunk(0).dictionary),
    }


class Index:
    """A memory-mapped index. Its arrays are views of the file: opening reads almost nothing.

    Attributes
    ----------
    name : of the data set
    track, frame : (N,) int32
    is_image : all rows are single pictures, not frames of a video
    offset (N,) int64, size (N,) int32, crc (N,) uint32 : bytes of the picture in its file
    file_code : (N,) int32, number of the file that `file` names
    track_first, track_rows, by_category : (N,) int32, see the module
    category_code (N,) int32, categories : class names of targets
    box_start : (N + 1,) int32, rows of `boxes` of each sample; the target is the first
    boxes : (M, 4) float32 xyxy in crop pixels; ``box_ignore`` (M,) bool and ``box_category`` (M,)
    """

    def __init__(self, path: Path) -> None:
        self.path = path / INDEX_NAME if path.is_dir() else path
        try:
            self.table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        except FileNotFoundError as error:
            raise FormatError(
                f"{self.path} does not exist; 'python -m shards index {self.path.parent}' makes it"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise FormatError(
                f"{self.path}: damaged index ({str(error).splitlines()[0]}); "
                f"make it again with 'python -m shards index {self.path.parent}'"
            ) from error
        try:
            self._open_columns()
        except (pa.ArrowException, KeyError, IndexError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self.path}: damaged index ({type(error).__name__}: {error}); "
                f"make it again with 'python -m shards index {self.path.parent}'"
            ) from error

    def _open_columns(self) -> None:
        metadata = self.table.schema.metadata or {}
        version = metadata.get(_VERSION_KEY, b"none").decode()
        check_version(int(version) if version.isdigit() else version, str(self.path))
        self.name = metadata[_NAME_KEY].decode()

        def values(column: str) -> Any:
            return self._chunk(column).to_numpy()

        def codes(column: str) -> tuple[Any, tuple[str, ...]]:
            chunk = self._chunk(column)
            return chunk.indices.to_numpy(), tuple(chunk.dictionary.to_pylist())

        self.track, self.frame = values("track"), values("frame")
        self.offset, self.size, self.crc = values("offset"), values("size"), values("crc32c")
        self.track_first, self.track_rows = values("track_first"), values("track_rows")
        self.by_category = values("by_category")
        self.file_code = self._chunk("file").indices.to_numpy()
        self.category_code, self.categories = codes("category")
        # Names stay in the file where there may be as many as pictures.
        self._file_names = self._chunk("file").dictionary
        self._few_files = tuple(self._file_names[:MANY_FILES].to_pylist())
        self._sequence_code = self._chunk("sequence").indices.to_numpy()
        self._sequence_names = self._chunk("sequence").dictionary
        _, self.kinds = codes("kind")
        boxes = self._chunk("boxes")
        self.box_start = boxes.offsets.to_numpy()
        self.boxes = boxes.values.values.to_numpy().reshape(-1, 4)

    def _chunk(self, column: str) -> Any:
        return self.table[column].chunk(0)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def is_image(self) -> bool:
        """True for data sets of single pictures."""
        return self.kinds == ("image",)

    def key(self, row: int) -> str:
        """WebDataset key of a row."""
        return sample_key(self.sequence(row), int(self.track[row]), int(self.frame[row]))

    def sequence(self, row: int) -> str:
        """Sequence of a row."""
        return str(self._sequence_names[int(self._sequence_code[row])].as_py())

    def rows_of(self, sequence: str) -> npt.NDArray[np.int64]:
        """Rows of a sequence; empty if there is none of that name."""
        code = pc.index(self._sequence_names, sequence).as_py()
        return np.flatnonzero(self._sequence_code == code)

    def sequences_like(self, text: str, most: int = 5) -> list[str]:
        """Names of sequences that contain a text, for hints."""
        match = pc.match_substring(self._sequence_names, text, ignore_case=True)
        return [str(name) for name in self._sequence_names.filter(match)[:most].to_pylist()]

    def range(self, row: int) -> Range:
        """Where the bytes of a row's picture are."""
        return Range(self.file(row), int(self.offset[row]), int(self.size[row]))

    def file(self, row: int) -> str:
        """Name of the file that holds a row's picture."""
        code = int(self.file_code[row])
        if code < len(self._few_files):
            return str(self._few_files[code])
        return str(self._file_names[code].as_py())

    def files(self) -> list[str]:
        """Names of all files that hold pictures."""
        return [str(name) for name in self._file_names.to_pylist()]

    def target_boxes(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Target boxes of rows, (len(rows), 4) float32 xyxy in crop pixels."""
        return np.asarray(self.boxes[self.box_start[rows]])

    @property
    def unknown_fps(self) -> int:
        """How many rows have no annotation rate; costs nothing."""
        return int(self._chunk("fps").null_count)

    def fps(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Annotation rates of rows, (len(rows),) float32 frames a second; NaN where unknown."""
        rates = self._chunk("fps").take(pa.array(rows))
        return np.asarray(rates.to_numpy(zero_copy_only=False))

    def regions(self) -> npt.NDArray[np.float32] | None:
        """What each crop shows of its frame, (N, 4) float32 xyxy; None if not known of all."""
        column = self._chunk("region")
        return None if column.null_count else column.values.to_numpy().reshape(-1, 4)

    def category_ranges(self) -> npt.NDArray[np.int64]:
        """Bounds in `by_category` of each category, (C + 1,), found by bisection."""
        low = np.zeros(len(self.categories) + 1, np.int64)
        high = np.full(len(self.categories) + 1, len(self), np.int64)
        wanted = np.arange(len(self.categories) + 1)
        while (low < high).any():
            middle = np.minimum((low + high) // 2, len(self) - 1)
            less = (self.category_code[self.by_category[middle]] < wanted) & (low < high)
            high = np.where(less | (low >= high), high, middle)
            low = np.where(less, middle + 1, low)
        return low

    def sample(self, row: int) -> Sample:
        """All facts of one row."""
        facts = {name: self._chunk(name)[row].as_py() for name in PART_SCHEMA.names[:14]}
        kind: Kind = facts["kind"]
        return Sample(
            sequence=facts["sequence"],
            track=facts["track"],
            frame=facts["frame"],
            kind=kind,
            fps=facts["fps"],
            boxes=np.array(facts["boxes"], np.float32),
            categories=tuple(facts["categories"]),
            ignore=tuple(facts["ignore"]),
            visible=facts["visible"],
            mean_rgb=_float32(facts["mean_rgb"]),
            source=facts["source"],
            source_size=None if facts["source_size"] is None else tuple(facts["source_size"]),
            region=_float32(facts["region"]),
        )

    @classmethod
    def checked(cls, folder: Path, manifest: Manifest) -> Index:
        """Open the index of a folder and check that it belongs to its manifest.

        Raises
        ------
        FormatError : if its size or its name is not what the manifest says
        """
        path = folder / INDEX_NAME
        size = path.stat().st_size if path.is_file() else 0
        index = cls(path)
        if size != manifest.index["bytes"] or index.name != manifest.name:
            raise FormatError(
                f"{path}: {size} bytes of {index.name!r}, the manifest says "
                f"{manifest.index['bytes']} of {manifest.name!r}; make it again with "
                f"'python -m shards index {folder}'"
            )
        return index
