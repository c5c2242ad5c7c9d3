"""The old form of prepared crops: one zip and one pickle a data set, written and read.

PySiamTracking keeps a data set as ``<Name>.zip`` (stored JPEGs at the root of the archive, named
``<sequence>_<track>_<frame>.jpg``) and ``<name>_clean.pkl``::

    {categories: [{id, name, ...}],
     seqs: [{frame_id: [int], bboxes: [float32 (K, 6)], frames: [str], category: int}]}

A row of ``bboxes`` is x0, y0, x1, y1, category, ignore in crop pixels, the target first. The pickle
is read by `shards.safe_pickle`. What neither file can hold (the pixel grid of the crops above all)
goes into the comment of the zip, which the old trainers do not look at.
"""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards.errors import BadSample, FormatError
from shards.format import Manifest
from shards.geometry import GRIDS, Grid
from shards.index import Index
from shards.parts import crc32c
from shards.safe_pickle import array_of, load_plain
from shards.storage import FolderSink, LocalStorage

__all__ = [
    "LEGACY_CATEGORIES",
    "Comment",
    "LegacyFiles",
    "dataset_of",
    "existing",
    "export_legacy",
    "legacy_names",
    "load_legacy",
    "member_name",
    "open_legacy",
]

# Published names (the misspelt one is PySiamTracking's own); other data sets are plain.
CATALOGUE = {
    "coco": ("COCO.zip", "coco_clean.pkl"),
    "got10k": ("got10k_train_images.zip", "got10k_train_clean.pkl"),
    "lasot": ("LaSOT_trian_images.zip", "lasot_train_clean.pkl"),
    "trackingnet": ("TrackingNet_images.zip", "trackingnet_clean.pkl"),
}
# The code says one, the guide's table and links the other.
SPELLINGS = {
    "LaSOT_trian_images": "LaSOT_train_images",
    "LaSOT_train_images": "LaSOT_trian_images",
}
_FOLDERS = {"COCO": "coco", "got10k_train": "got10k"}
LEGACY_CATEGORIES = (
    "legacy_categories"  # manifest option: [id, name] of all, as the pickle had them
)
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: no clock in the bytes
_UNIX = 3
_PROTOCOL = 3  # bytes as bytes, and text opcodes that need no length
_RECONSTRUCT_2 = b"cnumpy._core.multiarray\n_reconstruct\n"
_RECONSTRUCT_1 = b"cnumpy.core.multiarray\n_reconstruct\n"
_MARK = b"siamstream "


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyFiles:
    """What `export_legacy` wrote: the two files, and how much is in them."""

    zip: Path
    pickle: Path
    frames: int
    tracks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comment:
    """Facts about crops in the comment of an exported zip; None where they are not known."""

    grid: Grid | None = None
    quality: int | None = None
    stride: int | None = None

    def to_bytes(self) -> bytes:
        """Return the comment."""
        facts = {"grid": self.grid, "quality": self.quality, "stride": self.stride}
        return _MARK + json.dumps(facts).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Comment:
        """Read a comment; one of others says nothing."""
        try:
            facts = json.loads(data.removeprefix(_MARK)) if data.startswith(_MARK) else {}
        except ValueError:
            return cls()
        if not isinstance(facts, dict):
            return cls()
        grid, quality, stride = (facts.get(name) for name in ("grid", "quality", "stride"))
        return cls(
            grid=grid if grid in GRIDS else None,
            quality=quality if type(quality) is int and 1 <= quality <= 100 else None,
            stride=stride if type(stride) is int and stride >= 1 else None,
        )


def legacy_names(dataset: str) -> tuple[str, str]:
    """File names of the zip and of the pickle of a data set."""
    return CATALOGUE.get(dataset, (f"{dataset}.zip", f"{dataset}_clean.pkl"))


def dataset_of(path: Path) -> str | None:
    """Name of the data set that a zip, folder or pickle of a published name holds, either way."""
    known = dict(_FOLDERS)
    for dataset, (zip_name, pickle_name) in CATALOGUE.items():
        for stem in (zip_name.removesuffix(".zip"), pickle_name.removesuffix(".pkl")):
            known[stem] = known[SPELLINGS.get(stem, stem)] = dataset
    return known.get(path.name.removesuffix(".zip").removesuffix(".pkl"))


def existing(path: Path) -> Path:
    """Return `path`, or the file of the other published spelling where only that one is there."""
    stem, suffix = path.name.removesuffix(".zip"), ".zip" if path.name.endswith(".zip") else ""
    other = path.with_name(SPELLINGS.get(stem, stem) + suffix)
    return other if not path.exists() and other.exists() else path


def member_name(index: Index, row: int) -> str:
    """Name of a row's picture in the zip, ``<sequence>_<track>_<frame>.jpg``.

    The sequence is spelt as in sample keys: characters that no file name should have are
    percent-encoded.
    """
    sequence = index.key(row).partition("/")[0]
    return f"{sequence}_{int(index.track[row])}_{int(index.frame[row])}.jpg"


def export_legacy(folder: Path, out: Path) -> LegacyFiles:
    """Write a packed data set as zip and pickle; the same shards give the same bytes.

    The pickle appears last, and each file only when it is complete. Pictures are copied one at a
    time. Categories keep the numbers that they had in an old pickle; others are numbered on in the
    order of their names, from 1.

    Parameters
    ----------
    folder : packed data set
    out : folder for the two files, made if absent

    Raises
    ------
    BadSample : if a picture does not have its checksum
    StorageError : if something cannot be read or written
    FormatError : if `folder` is no packed data set
    """
    manifest = Manifest.read(folder)
    index = Index.checked(folder, manifest)
    zip_name, pickle_name = legacy_names(manifest.name)
    sink = FolderSink(out)
    comment = Comment(grid=manifest.grid, quality=manifest.quality, stride=manifest.stride)
    with sink.create(zip_name) as handle:
        _write_zip(handle, folder, index, comment)
    annotations = _annotations(index, manifest.options.get(LEGACY_CATEGORIES) or [])
    sink.write(pickle_name, _dumps(annotations))
    return LegacyFiles(
        zip=out / zip_name,
        pickle=out / pickle_name,
        frames=len(index),
        tracks=len(annotations["seqs"]),
    )


def _write_zip(handle: BinaryIO, folder: Path, index: Index, comment: Comment) -> None:
    storage = LocalStorage(folder)
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.comment = comment.to_bytes()
        for row in range(len(index)):
            at = index.range(row)
            (data,) = storage.read_many([at])
            found = crc32c(data)
            if found != index.crc[row]:
                file = str(folder / at.file)
                reason = f"CRC-32C is {found:08x}, the index says {index.crc[row]:08x}"
                raise BadSample(file, index.key(row), at.offset, reason)
            info = zipfile.ZipInfo(member_name(index, row), _ZIP_DATE)
            info.create_system, info.external_attr = _UNIX, 0o644 << 16
            archive.writestr(info, data)


def _listed(names: list[str], known: list[Any]) -> list[dict[str, Any]]:
    """Categories as the pickle lists them, those first that an old pickle had."""
    try:
        listed = [_category(one, f"category {at}") for at, one in enumerate(known)]
    except TypeError as error:
        raise FormatError(f"manifest option {LEGACY_CATEGORIES}: {error}") from error
    for name in sorted(set(names) - {one["name"] for one in listed}):
        number = max((one["id"] for one in listed), default=0) + 1
        listed.append({"id": number, "name": name})
    return listed


def _annotations(index: Index, known: list[Any]) -> dict[str, Any]:
    """Content of the pickle."""
    categories = index.table["categories"].chunk(0).values
    names = categories.dictionary.to_pylist()
    listed = _listed(names, known)
    ids = {one["name"]: one["id"] for one in listed}
    id_of_code = np.array([ids[name] for name in names], np.float32)
    box_ids = id_of_code[categories.indices.to_numpy()]
    ignore = index.table["ignore"].chunk(0).values.to_numpy(zero_copy_only=False)
    flags = ignore.astype(np.float32)
    boxes = np.column_stack([index.boxes, box_ids, flags]).astype(np.float32)
    sequences = []
    for first in np.flatnonzero(index.track_first == np.arange(len(index))):
        rows = range(int(first), int(first) + int(index.track_rows[first]))
        bounds = [(int(index.box_start[row]), int(index.box_start[row + 1])) for row in rows]
        sequences.append(
            {
                "frame_id": [int(index.frame[row]) for row in rows],
                "bboxes": [np.array(boxes[start:stop]) for start, stop in bounds],
                "frames": [member_name(index, row) for row in rows],
                "category": ids[index.categories[int(index.category_code[first])]],
            }
        )
    return {"categories": listed, "seqs": sequences}


def _dumps(annotations: dict[str, Any]) -> bytes:
    """Pickle that NumPy 1 and 2 read: arrays are named by their old module path.

    Later arrays refer to the first one's function, so it is named once, as a line of text.
    """
    data = pickle.dumps(annotations, protocol=_PROTOCOL)
    if data.count(_RECONSTRUCT_2) != 1:
        raise FormatError(
            "this NumPy pickles arrays in another way than NumPy 2.0 to 2.4; install one of those"
        )
    return data.replace(_RECONSTRUCT_2, _RECONSTRUCT_1)


def load_legacy(path: Path) -> dict[str, Any]:
    """Read a ``<name>_clean.pkl`` without running anything that it names.

    Parameters
    ----------
    path : the pickle, of any protocol, written under NumPy 1 or 2

    Returns
    -------
    the structure above; ``frame_id`` as plain integers

    Raises
    ------
    FormatError : if it cannot be read, names anything but arrays, or has another structure
    """
    categories, sequences = open_legacy(path)
    return {"categories": categories, "seqs": list(sequences)}


def open_legacy(path: Path) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Read a pickle like `load_legacy`: its categories, and its sequences one after another.

    What was handed over is let go, so both forms of a large file are never in memory together.
    """
    data = load_plain(path)
    try:
        listed = _value(data, "categories", list, "the whole")
        categories = [_category(one, f"category {at}") for at, one in enumerate(listed)]
        sequences = _value(data, "seqs", list, "the whole")
    except TypeError as error:
        raise _other_structure(path, error) from error
    return categories, _checked_sequences(sequences, path)


def _category(one: Any, where: str) -> dict[str, Any]:
    """Category with whatever else is said of it (COCO: ``supercategory``), in its order."""
    _value(one, "id", int, where)
    _value(one, "name", str, where)
    kept = {}
    for key, value in one.items():
        if type(key) is not str or type(value) not in (str, int, float, bool, type(None)):
            raise TypeError(f"{where} ({one['name']!r}): {key!r} must be a text or number")
        kept[sys.intern(key)] = value  # one object, which a pickle writes once
    return kept


def _other_structure(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path}: not the structure of an annotation pickle (categories, seqs with frame_id, "
        f"bboxes, frames and category): {error}"
    )


def _checked_sequences(sequences: list[Any], path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from _sequences(sequences, path.stat().st_size)
    except (TypeError, ValueError, OverflowError) as error:
        raise _other_structure(path, error) from error


def _sequences(seqs: list[Any], room: int) -> Iterator[dict[str, Any]]:
    """Sequences as they should be; `room` numbers at most, for a file may repeat one for ever."""
    for number, one in enumerate(seqs):
        seqs[number] = None
        where = f"sequence {number}"
        frames = _value(one, "frames", list, where)
        if frames and type(frames[0]) is str:
            where += f" ({frames[0][:60]!r})"
        numbers = _value(one, "frame_id", None, where)
        array = array_of(numbers)
        numbers = _exact(numbers, list, f"{where}: frame_id") if array is None else array.tolist()
        boxes = _value(one, "bboxes", list, where)
        if not len(numbers) == len(boxes) == len(frames):
            raise ValueError(
                f"{where} has {len(numbers)} frame numbers, {len(boxes)} box arrays and "
                f"{len(frames)} pictures"
            )
        room -= 1 + 6 * len(frames)
        if room < 0:
            raise ValueError(f"{where}: more sequences and frames than its bytes can be")
        arrays = []
        for value in boxes:
            array = array_of(value)
            if array is None or array.ndim != 2 or array.shape[1] != 6 or not len(array):
                shape = type(value).__name__ if array is None else f"shape {array.shape}"
                raise ValueError(f"{where} has boxes of {shape}, not an array (K, 6)")
            room -= array.size
            if room < 0:
                raise ValueError(f"{where}: more boxes than its bytes can be")
            arrays.append(array.astype(np.float32))
        yield {
            "frame_id": [_whole(value, where) for value in numbers],
            "bboxes": arrays,
            "frames": [_exact(name, str, f"{where}: frames") for name in frames],
            "category": _value(one, "category", int, where),
        }


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError(f"{where}: frame_id: {str(value)[:40]!r} is no frame number")
    return int(value)


def _value(one: Any, key: str, kind: Any, where: str) -> Any:
    """Value of a key that must be there, of a type unless that is None."""
    if key not in _exact(one, dict, where):
        raise TypeError(f"{where}: key {key!r} is missing")
    return one[key] if kind is None else _exact(one[key], kind, f"{where}: {key}")


def _exact(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value
