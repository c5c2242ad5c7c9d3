"""Indexes and manifests of data sets whose pictures do not exist.

They have the sizes of real data sets: lengths of tracks, frequencies of categories and, where
asked for, bytes of pictures are drawn; everything else is what a packer would write.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import MismatchError
from shards.format import MANIFEST_NAME, Manifest, ShardInfo, shard_name
from shards.parts import PART_SCHEMA, Part
from shards.rng import uniforms
from shards.writer import finish

__all__ = ["Synthetic", "synthetic"]

_STREAM_LENGTHS, _STREAM_CATEGORIES, _STREAM_SIZES = 1060, 1061, 1062
_ROWS_A_SHARD = 4096
_BLOCK = 512  # of a tar
_JSON_BYTES = 340  # of a description, as the packer writes it for one box


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """A data set.

    Attributes
    ----------
    name : of it
    tracks, mean : how many, and frames of a middling one, a tenth below the average; 1: single
        pictures
    categories, even : how many; all as frequent, or the k-th in proportion to 1/k
    stride : between frame numbers
    kb : mean bytes of a picture / 1000
    spread : natural logarithm of the largest picture over the mean, about; 0: all alike
    """

    name: str
    tracks: int
    mean: int
    categories: int
    even: bool
    stride: int = 3
    kb: float = 33.0
    spread: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Options as the manifest keeps them."""
        return {
            "synthetic_index": True,
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
        }


def synthetic(folder: Path, one: Synthetic) -> None:
    """Make index and manifest; once.

    Raises
    ------
    MismatchError : if the folder holds other data
    """
    there = folder / one.name
    if (there / MANIFEST_NAME).is_file():
        if dict(Manifest.read(there).options) != one.facts():
            raise MismatchError(
                f"{there} holds other data than the index that is asked for; name another --out, "
                "or remove that folder"
            )
        return
    u = uniforms(5, _STREAM_LENGTHS, 0, 0, one.tracks, 4)
    # from a third to three times the mean, most below it
    spread = np.exp((u[:, 0] + u[:, 1] - 1) * 1.1)
    lengths = (
        np.ones(one.tracks, np.int64)
        if one.mean == 1
        else np.rint(one.mean * spread).astype(np.int64)
    )
    weights = np.ones(one.categories) if one.even else 1 / np.arange(1, one.categories + 1)
    bounds = np.cumsum(weights / weights.sum())[:-1]
    drawn = uniforms(5, _STREAM_CATEGORIES, 0, 0, one.tracks, 4)[:, 0]
    category = np.searchsorted(bounds, drawn)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    cuts = [0]  # a track is in one shard
    for end in range(1, one.tracks + 1):
        if end == one.tracks or starts[end + 1] - starts[cuts[-1]] > _ROWS_A_SHARD:
            cuts.append(end)
    parts = [
        _part(one, number, first, lengths[first:end], category[first:end], int(starts[first]))
        for number, (first, end) in enumerate(pairwise(cuts))
    ]
    finish(there, parts, name=one.name, grid="edge", crop_size=446, options=one.facts())


def _sizes(one: Synthetic, first_row: int, rows: int) -> npt.NDArray[np.int64]:
    """Bytes of the pictures of a shard; their mean over a data set is ``kb``."""
    if not one.spread:
        return np.full(rows, round(1e3 * one.kb))
    u = uniforms(5, _STREAM_SIZES, 0, first_row, rows, 4)
    raw = np.exp((u[:, 0] + u[:, 1] - 1) * one.spread)
    mean = (np.sinh(one.spread / 2) / (one.spread / 2)) ** 2  # of `raw`
    sizes: npt.NDArray[np.int64] = np.rint(1e3 * one.kb * raw / mean).astype(np.int64)
    return sizes


def _blocks(size: npt.NDArray[np.int64] | int) -> Any:
    """Bytes of a tar member: header and padded content."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _part(
    one: Synthetic,
    number: int,
    first: int,
    lengths: npt.NDArray[np.int64],
    category: npt.NDArray[np.int64],
    first_row: int,
) -> Part:
    rows = int(lengths.sum())
    track = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(rows) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    names = [f"c{code:03d}" for code in category[track]]
    box = pa.array([[190.0, 190.0, 256.0, 256.0]] * rows, pa.list_(pa.float32(), 4))
    each = np.arange(rows + 1, dtype=np.int32)
    lists = {
        "boxes": box, "categories": pa.array(names), "ignore": pa.array(np.zeros(rows, bool)),
    }  # fmt: skip
    shard = shard_name(one.name, number)
    size = _sizes(one, first_row, rows)
    ends = np.cumsum(_blocks(size) + _blocks(_JSON_BYTES))
    columns: dict[str, Any] = {
        "sequence": [f"s{first + at:06d}" for at in track],
        "track": np.zeros(rows, np.int32),
        "frame": (1 + one.stride * within).astype(np.int32),
        "kind": ["image" if one.mean == 1 else "video"] * rows,
        "fps": [None] * rows,
        **{key: pa.ListArray.from_arrays(pa.array(each), value) for key, value in lists.items()},
        "category": names,
        "visible": [None] * rows,
        "mean_rgb": [None] * rows,
        "source": [None] * rows,
        "source_size": [None] * rows,
        "region": [None] * rows,
        "file": [shard] * rows,
        "offset": np.concatenate([[0], ends[:-1]]) + _BLOCK,
        "size": size.astype(np.int32),
        "crc32c": np.zeros(rows, np.uint32),
    }
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type)
        for field in PART_SCHEMA
    ]
    info = ShardInfo(name=shard, bytes=int(ends[-1]) + 2 * _BLOCK, frames=rows, sha256="")
    table = pa.Table.from_arrays(arrays, schema=PART_SCHEMA)
    return Part(info=info, rows=table, facts={})
