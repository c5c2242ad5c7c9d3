"""The old form of prepared crops: one zip and one pickle a data set, written and read.

PySiamTracking keeps a data set as ``<Name>.zip`` (stored JPEGs at the root of the archive, named
``<sequence>_<track>_<frame>.jpg``) and ``<name>_clean.pkl``::

    {categories: [{id, name}],
     seqs: [{frame_id: [int], bboxes: [float32 (K, 6)], frames: [str], category: int}]}

A row of ``bboxes`` is x0, y0, x1, y1, category, ignore in crop pixels, the target first. A pickle
can run any code when it is read, so `load_legacy` interprets only plain containers and NumPy's
ways to write an array, and builds the arrays itself: nothing that the file names is ever called.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards.errors import BadSample, FormatError
from shards.format import Manifest
from shards.index import Index, crc32c
from shards.storage import FolderSink, LocalStorage, Range

__all__ = ["LegacyFiles", "export_legacy", "legacy_names", "load_legacy", "member_name"]

# Published names (the misspelt one is PySiamTracking's own); other data sets are plain.
CATALOGUE = {
    "coco": ("COCO.zip", "coco_clean.pkl"),
    "got10k": ("got10k_train_images.zip", "got10k_train_clean.pkl"),
    "lasot": ("LaSOT_trian_images.zip", "lasot_train_clean.pkl"),
    "trackingnet": ("TrackingNet_images.zip", "trackingnet_clean.pkl"),
}
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: no clock in the bytes
_UNIX = 3
_PROTOCOL = 3  # bytes as bytes, and text opcodes that need no length
_RECONSTRUCT_2 = b"cnumpy._core.multiarray\n_reconstruct\n"
_RECONSTRUCT_1 = b"cnumpy.core.multiarray\n_reconstruct\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyFiles:
    """What `export_legacy` wrote: the two files, and how much is in them."""

    zip: Path
    pickle: Path
    frames: int
    tracks: int


def legacy_names(dataset: str) -> tuple[str, str]:
    """File names of the zip and of the pickle of a data set."""
    return CATALOGUE.get(dataset, (f"{dataset}.zip", f"{dataset}_clean.pkl"))


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
    time. Categories are numbered from 1 in the order of their names.

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
    with sink.create(zip_name) as handle:
        _write_zip(handle, folder, index)
    annotations = _annotations(index)
    sink.write(pickle_name, _dumps(annotations))
    return LegacyFiles(
        zip=out / zip_name,
        pickle=out / pickle_name,
        frames=len(index),
        tracks=len(annotations["seqs"]),
    )


def _write_zip(handle: BinaryIO, folder: Path, index: Index) -> None:
    storage = LocalStorage(folder)
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for row in range(len(index)):
            at = Range(index.file(row), int(index.offset[row]), int(index.size[row]))
            (data,) = storage.read_many([at])
            found = crc32c(data)
            if found != index.crc[row]:
                file = str(folder / at.file)
                reason = f"CRC-32C is {found:08x}, the index says {index.crc[row]:08x}"
                raise BadSample(file, index.key(row), at.offset, reason)
            info = zipfile.ZipInfo(member_name(index, row), _ZIP_DATE)
            info.create_system, info.external_attr = _UNIX, 0o644 << 16
            archive.writestr(info, data)


def _annotations(index: Index) -> dict[str, Any]:
    """Content of the pickle."""
    categories = index.table["categories"].chunk(0).values
    names = categories.dictionary.to_pylist()
    ids = {name: number for number, name in enumerate(sorted(names), start=1)}
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
    listed = [{"id": number, "name": name} for name, number in ids.items()]
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


class _DType:
    """Stands for ``numpy.dtype`` in a pickle: only plain numbers."""

    KINDS = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"}

    def __init__(self, code: object, *_: object) -> None:
        if code not in self.KINDS and code != "b1":
            raise pickle.UnpicklingError(f"an array of dtype {code!r}; plain numbers are expected")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"a byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle."""

    def __init__(self) -> None:
        self.values: np.ndarray[Any, Any] = np.zeros((0, 6), np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: object, kind: object, shape: Any, order: Any) -> None:
        """Take over the content."""
        if not isinstance(kind, _DType) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("an array that is not plain numbers")
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order).copy()


def _reconstruct(*_: object) -> _Array:
    """Stand for NumPy's function of that name: an array whose content follows."""
    return _Array()


def _from_buffer(data: object, kind: object, shape: Any, order: Any, *_: object) -> _Array:
    """Stand for NumPy's function of that name, which pickles of protocol 5 name."""
    array = _Array()
    array.fill(data, kind, shape, order)
    return array


def _latin1(text: object, encoding: object) -> bytes:
    """Stand for ``_codecs.encode``, which is how bytes look in pickles of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that an array in a pickle needs, and gives them our own meaning."""

    NAMES: dict[tuple[str, str], Any] = {  # noqa: RUF012 (never changed)
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("numpy._core.numeric", "_frombuffer"): _from_buffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here; every other one is refused."""
        found = self.NAMES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}; only NumPy arrays and plain containers are read"
            )
        return found

    def persistent_load(self, pid: object) -> Any:
        """Refuse references to objects outside the file."""
        raise pickle.UnpicklingError(f"it refers to an object outside the file, {pid!r}")


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
    try:
        with path.open("rb") as handle:
            data = _Unpickler(handle).load()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise FormatError(f"{path}: refused as an annotation pickle: {error}") from error
    try:
        return {
            "categories": [
                {"id": _exact(one["id"], int), "name": _exact(one["name"], str)}
                for one in _exact(data["categories"], list)
            ],
            "seqs": list(_sequences(data["seqs"])),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: not the structure of an annotation pickle (categories, seqs with frame_id, "
            f"bboxes, frames and category): {error!r}"
        ) from error


def _sequences(seqs: Any) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(_exact(seqs, list)):
        numbers = one["frame_id"]
        numbers = numbers.values.tolist() if isinstance(numbers, _Array) else numbers
        boxes = [_exact(array, _Array).values for array in one["bboxes"]]
        frames = [_exact(name, str) for name in one["frames"]]
        if not len(numbers) == len(boxes) == len(frames):
            raise ValueError(
                f"sequence {number} has {len(numbers)} frame numbers, {len(boxes)} box arrays and "
                f"{len(frames)} pictures"
            )
        for array in boxes:
            if array.ndim != 2 or array.shape[1] != 6 or not len(array):
                raise ValueError(f"sequence {number} has boxes of shape {array.shape}, not (K, 6)")
        yield {
            "frame_id": [int(value) for value in numbers],
            "bboxes": [array.astype(np.float32) for array in boxes],
            "frames": frames,
            "category": _exact(one["category"], int),
        }


def _exact(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value
