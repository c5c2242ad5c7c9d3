"""COCO 2017 instances: pictures with several annotated objects each (Lin et al., ECCV 2014).

Source: https://cocodataset.org (train2017.zip, 18 GB, and annotations_trainval2017.zip). The
annotations are under CC BY 4.0; the pictures keep their own Flickr licences, listed in the file.

Layout: a folder or zip of pictures and one JSON file with ``images`` (``id``, ``file_name``),
``annotations`` (``id``, ``image_id``, ``category_id``, ``bbox``, ``iscrowd``) and ``categories``
(``id``, ``name``; ids have holes).

Boxes: ``[x, y, w, h]`` in pixels with fractions, counted from 0; x1 = x + w.

A picture is a sequence, named like its file without extension; every annotation that is kept is a
track of one frame, numbered from 0 in the order of the file. Crowds (``iscrowd``) are no targets.
A picture that has another ``width`` and ``height`` than its entry says counts as unreadable.
All boxes of a picture, those of crowds with the ignore flag, go along in each of its crops. Samples
name a picture as ``file_name`` does, relative to the folder or zip of the pictures. There is no
split: which pictures are packed depends on the files that are given.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from packer.json_stream import Entry, entries
from packer.sequence import (
    REASONS,
    Found,
    Objects,
    Problem,
    Reason,
    Sequence,
    Split,
    Survey,
    named,
)
from packer.source import RefusedLink, Source, folder_of
from shards.errors import DataError, FormatError
from shards.format import check_category_name

__all__ = ["Coco", "locate"]

LAYOUT = (
    "<root>/train2017/, images/train2017/, images/ or train2017.zip with the pictures, and "
    "<root>/annotations/instances_train2017.json"
)
MAX_PX = 1_000_000  # no coordinate of a picture is larger
_SET = "train2017"
_SET_OF = re.compile(r"instances_(\w+)\.json")
_BAD = REASONS.index("bad_annotation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Coco:
    """COCO in given files.

    Attributes
    ----------
    images : folder or zip with the pictures; the raw tree that `survey` and `read` take
    annotations : the JSON file
    """

    images: Path
    annotations: Path

    NAME: ClassVar[str] = "coco"
    LAYOUT: ClassVar[str] = LAYOUT
    STRIDE: ClassVar[int] = 1
    MIN_SIZE: ClassVar[int] = 4
    MIN_EXCLUSIVE: ClassVar[bool] = True
    SPLITS: ClassVar[tuple[Split, ...]] = ("train",)

    def options(self) -> dict[str, Any]:
        """Nothing: where the files are changes no bytes."""
        return {}

    def survey(self, source: Source, split: Split) -> Survey:
        """Read the annotations and list the pictures with boxes that are on disk, by name.

        Raises
        ------
        DataError : if the file cannot be read or is no such file, or no picture is on disk
        """
        if split not in self.SPLITS:
            raise DataError(
                f"COCO has no split {split!r} in one file; choose the files with --images and "
                "--annotations"
            )
        return _survey(source, self.annotations)

    def read(self, source: Source, found: Found) -> Sequence:  # noqa: ARG002 (all was in one file)
        """Objects of one picture, crowds and malformed ones included."""
        if not isinstance(found, _Picture):
            raise TypeError(f"{found!r} is not of this survey")
        rows = slice(found.start, found.stop)
        table, count = found.table, found.stop - found.start
        faults = [table.faults.get(row, "") for row in range(found.start, found.stop)]
        return Sequence(
            name=found.name,
            category="",
            kind="image",
            fps=None,
            pictures_at=found.folder,
            source_at="",
            numbers=np.zeros(count, np.int32),
            pictures=(found.file,) * count,
            xywh=table.xywh[rows],
            absent=np.zeros(count, bool),
            visible=None,
            fault=np.array([_BAD if fault else -1 for fault in faults], np.int8),
            problems=tuple(
                Problem(f"{table.where}: {table.name(row)}", fault)
                for row, fault in zip(range(found.start, found.stop), faults, strict=True)
                if fault
            ),
            objects=Objects(
                categories=tuple(table.names[code] for code in table.category[rows].tolist()),
                crowd=table.crowd[rows],
            ),
            picture_size=found.size,
        )


def locate(root: Path, images: Path | None = None, annotations: Path | None = None) -> Coco:
    """Find the two parts of COCO below a root; what is given is taken as it is.

    Raises
    ------
    DataError : if a part is not there; names the places
    """
    annotations = annotations or root / "annotations" / f"instances_{_SET}.json"
    if not annotations.is_file():
        raise DataError(
            f"{annotations}: no such file; give COCO's annotations with --annotations (expected "
            f"{LAYOUT})"
        )
    if images is None:
        match = _SET_OF.fullmatch(annotations.name)
        part = match[1] if match else _SET
        places = [root / part, root / "images" / part, root / "images", root / f"{part}.zip"]
        images = next((place for place in places if place.exists()), None)
        if images is None:
            raise DataError(
                f"no pictures at {', '.join(map(str, places))}; give their folder or zip with "
                "--images"
            )
    if not images.exists():
        raise DataError(f"{images}: no such folder or zip; give COCO's pictures with --images")
    return Coco(images=images, annotations=annotations)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Table:
    """All annotations, those of a picture adjacent and in the order of the file.

    Attributes
    ----------
    where : the file
    entry, identity : (N,) int64, place in the file's list, and the annotation's id
    xywh : (N, 4) float64 as published; NaN where malformed
    category : (N,) int64, position in `names`
    crowd : (N,) bool
    names : class names
    faults : what is malformed, by row
    """

    where: str
    entry: npt.NDArray[np.int64]
    identity: npt.NDArray[np.int64]
    xywh: npt.NDArray[np.float64]
    category: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    faults: dict[int, str]

    def name(self, row: int) -> str:
        """Name of an annotation in messages."""
        return _entry_name("annotations", int(self.entry[row]), int(self.identity[row]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Picture(Found):
    """A picture on disk: its file, its size by the annotations, and its rows in the table."""

    file: str
    size: tuple[int, int] | None
    table: _Table
    start: int
    stop: int


def _entry_name(key: str, number: int, identity: object) -> str:
    return f"{key}[{number}]" + (f" (id {identity})" if identity not in (None, _NO_ID) else "")


_NO_ID = -(1 << 63)


@dataclass(slots=True, eq=False)
class _Loaded:
    """What the file says, entry by entry."""

    where: str
    files: dict[int, str] = field(default_factory=dict)  # by image id
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # by image id, where given
    classes: dict[int, str] = field(default_factory=dict)  # by category id
    problems: list[Problem] = field(default_factory=list)
    rejected: list[tuple[Reason, str]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)  # by place in the list of annotations
    identity: array[int] = field(default_factory=lambda: array("q"))
    image: array[int] = field(default_factory=lambda: array("q"))
    category: array[int] = field(default_factory=lambda: array("q"))
    xywh: array[float] = field(default_factory=lambda: array("d"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    without_crowd: int = 0
    keys: set[str] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)
    _sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # one object each

    def take(self, entry: Entry) -> None:
        """Take in one entry of the file."""
        self.keys.add(entry.key)
        if entry.number < 0 and entry.key in ("annotations", "images", "categories"):
            raise DataError(f"{self.where}: {entry.key!r} is no list")
        if entry.key == "annotations":
            self._annotation(entry)
        elif entry.key == "images":
            self._image(entry)
        elif entry.key == "categories":
            self._class(entry)

    def problem(self, key: str, number: int, identity: object, what: str) -> None:
        """Note a malformed entry that no picture can be blamed for."""
        self.problems.append(Problem(f"{self.where}: {_entry_name(key, number, identity)}", what))

    def _image(self, entry: Entry) -> None:
        value = entry.value
        what = _lacks(value, {"id": int, "file_name": str})
        if not what:
            what = _unsafe(value["file_name"])
        if not what and value["id"] in self.files:
            what = f"id {value['id']} is there twice"
        if not what and _stem(value["file_name"]) in self._names:
            what = f"picture {value['file_name']!r} is there twice"
        size: tuple[int, int] | None = None
        if not what:
            size, what = _size(value)
        if what:
            self.problem("images", entry.number, _id_of(value), what)
            self.rejected.append(("bad_annotation", f"images[{entry.number}]"))
            return
        if size is not None:
            self.sizes[value["id"]] = self._sizes.setdefault(size, size)
        self.files[value["id"]] = value["file_name"]
        self._names.add(_stem(value["file_name"]))

    def _class(self, entry: Entry) -> None:
        value = entry.value
        what = _lacks(value, {"id": int, "name": str})
        if not what:
            what = _unnameable(value["name"])
        if not what and value["id"] in self.classes:
            what = f"id {value['id']} is there twice"
        if what:
            self.problem("categories", entry.number, _id_of(value), what)
            return
        self.classes[value["id"]] = value["name"]

    def _annotation(self, entry: Entry) -> None:
        value = entry.value
        what = _lacks(value, _ANNOTATION)
        box: tuple[float, ...] = _NOWHERE
        if not what:
            box, what = _box(value["bbox"])
        crowd = 0
        if isinstance(value, dict):
            crowd = value.get("iscrowd", -1)
        if type(crowd) not in (int, bool) or crowd not in (-1, 0, 1):
            what, crowd = what or f"iscrowd is {crowd!r}, 0 or 1 needed", 0
        self.without_crowd += crowd == -1
        if what:
            self.faults[entry.number] = what
        self.identity.append(_number(value, "id"))
        self.image.append(_number(value, "image_id"))
        self.category.append(_number(value, "category_id"))
        self.xywh.extend(box)
        self.crowd.append(crowd == 1)


_ANNOTATION: dict[str, type] = {"id": int, "image_id": int, "category_id": int, "bbox": list}
_NOWHERE = (math.nan,) * 4


def _lacks(value: Any, needed: dict[str, type]) -> str:
    """Say what an entry lacks; empty if nothing."""
    if type(value) is not dict:
        return f"an object needed, found {str(value)[:40]!r}"
    for key, kind in needed.items():
        if key not in value:
            return f"key {key!r} is missing"
        if type(value[key]) is not kind:
            return f"{key} is {str(value[key])[:40]!r}, {_KINDS[kind]} needed"
        if kind is int and abs(value[key]) >= 1 << 63:
            return f"{key} is out of range"
    return ""


_KINDS = {int: "a whole number", str: "a text", list: "a list"}


def _box(values: list[Any]) -> tuple[tuple[float, ...], str]:
    """Box of an annotation, and what is wrong with it."""
    if len(values) != 4 or not all(type(value) in (int, float) for value in values):
        return _NOWHERE, f"bbox is {str(values)[:60]}, four numbers x, y, w, h needed"
    if not all(abs(value) <= MAX_PX for value in values):  # neither NaN nor infinity
        return _NOWHERE, f"bbox is {str(values)[:60]}, not in any picture"
    return tuple(map(float, values)), ""


def _size(image: dict[str, Any]) -> tuple[tuple[int, int] | None, str]:
    """Width and height of an image, None where one is not given; and what is wrong with them."""
    sides = []
    for key in ("width", "height"):
        side = image.get(key)
        if side is None:
            return None, ""
        if type(side) not in (int, float) or not 1 <= side <= MAX_PX or side != int(side):
            return None, f"{key} is {str(side)[:40]!r}, a number of pixels needed"
        sides.append(int(side))
    return (sides[0], sides[1]), ""


def _unnameable(name: str) -> str:
    """Say why a class cannot have this name; empty if it can."""
    try:
        check_category_name(name)
    except FormatError as error:
        return str(error)
    return ""


def _number(value: Any, key: str) -> int:
    found = value.get(key) if isinstance(value, dict) else None
    return found if type(found) is int and abs(found) < 1 << 63 else _NO_ID


def _id_of(value: Any) -> object:
    return value.get("id") if isinstance(value, dict) else None


def _stem(file: str) -> str:
    """Name of a picture's sequence: its file without extension."""
    folder, _, name = file.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{folder}/{stem}" if folder else stem


def _unsafe(file: str) -> str:
    """Say why a file name of the annotations is refused; empty if it is not."""
    parts = file.split("/")
    if any("\ud800" <= character <= "\udfff" for character in file):
        return f"file_name {file!r} is no text that UTF-8 can hold"
    if file.startswith("/") or "\\" in file or ":" in parts[0] or "\0" in file:
        return f"file_name {file!r} is no path below the folder of the pictures"
    if any(part in ("", ".", "..") for part in parts):
        return f"file_name {file!r} leaves the folder of the pictures or has an empty part"
    return ""


def _survey(source: Source, annotations: Path) -> Survey:
    loaded = _load(annotations)
    if not loaded.files:
        problems = f"; {named(loaded.problems)}" if loaded.problems else ""
        raise DataError(f"{annotations}: no image in 'images'{problems}")
    order = sorted(loaded.files, key=lambda identity: _stem(loaded.files[identity]))
    table, starts, homeless = _table(loaded, order)
    base, present = _present(source, loaded.files.values())
    found, missing, empty = [], [], 0
    for place, identity in enumerate(order):
        file = loaded.files[identity]
        start, stop = int(starts[place]), int(starts[place + 1])
        if start == stop:
            empty += 1
        elif file not in present:
            missing.append(_stem(file))
        else:
            found.append(
                _Picture(
                    name=_stem(file),
                    category="",
                    number=identity,
                    folder=base,
                    path="",
                    file=file,
                    size=loaded.sizes.get(identity),
                    table=table,
                    start=start,
                    stop=stop,
                )
            )
    if missing and not found and not loaded.problems:
        raise DataError(
            f"{annotations}: none of its {len(missing):,} pictures with boxes is among the "
            f"{len(present):,} pictures on disk"
        )
    return Survey(
        found=tuple(found),
        missing=tuple(missing),
        notes=tuple(_notes(loaded, empty, homeless)),
        problems=tuple(loaded.problems),
        rejected=tuple(loaded.rejected),
    )


def _notes(loaded: _Loaded, empty: int, homeless: int) -> Iterator[str]:
    if empty:
        yield f"{empty:,} pictures have no boxes"
    if homeless:
        yield f"{homeless:,} annotations belong to no picture of the file"
    if loaded.without_crowd:
        yield f"{loaded.without_crowd:,} annotations without iscrowd taken as single objects"


def _load(path: Path) -> _Loaded:
    loaded = _Loaded(path.name)
    try:
        with path.open("rb") as handle:
            for entry in entries(handle, str(path)):
                loaded.take(entry)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    for key in ("images", "annotations", "categories"):
        if key not in loaded.keys:
            raise DataError(
                f"{path}: nothing in {key!r}; expected a file like COCO's instances_train2017.json"
            )
    return loaded


def _table(loaded: _Loaded, order: list[int]) -> tuple[_Table, npt.NDArray[np.int64], int]:
    """Annotations by picture.

    Returns
    -------
    table
    starts : (pictures + 1,) first row of every picture in `order`, and the number of rows
    homeless : annotations without picture
    """
    identity = np.frombuffer(loaded.identity, np.int64)
    faults = loaded.faults
    for number in _repeated(identity).tolist():
        faults.setdefault(number, f"id {identity[number]} is there twice")
    names = (*dict.fromkeys(loaded.classes.values()), "unknown")
    known = sorted(loaded.classes)
    codes = {name: code for code, name in enumerate(names)}
    category, has_class = _looked_up(
        np.frombuffer(loaded.category, np.int64),
        np.array(known, np.int64),
        np.array([codes[loaded.classes[key]] for key in known], np.int64),
        len(names) - 1,
    )
    for number in np.flatnonzero(~has_class).tolist():
        faults.setdefault(number, f"category_id {loaded.category[number]} is not in 'categories'")
    ids = np.array(order, np.int64)
    by_id = np.argsort(ids)
    place, has_picture = _looked_up(
        np.frombuffer(loaded.image, np.int64), ids[by_id], by_id, len(order)
    )
    lost = np.flatnonzero(~has_picture).tolist()
    for number in lost:
        reason: Reason = "bad_annotation" if number in faults else "no_picture"
        loaded.rejected.append((reason, f"annotations[{number}]"))
        what = faults.pop(number, f"image_id {loaded.image[number]} is not in 'images'")
        loaded.problem("annotations", number, loaded.identity[number], what)
    rows = np.argsort(place, kind="stable")[: len(place) - len(lost)]
    row_of = np.empty(len(place), np.int64)
    row_of[rows] = np.arange(len(rows))
    table = _Table(
        where=loaded.where,
        entry=rows,
        identity=identity[rows],
        xywh=np.frombuffer(loaded.xywh, np.float64).reshape(-1, 4)[rows],
        category=category[rows],
        crowd=np.frombuffer(loaded.crowd, np.int8)[rows] == 1,
        names=names,
        faults={int(row_of[number]): what for number, what in faults.items()},
    )
    starts = np.searchsorted(place[rows], np.arange(len(order) + 1))
    return table, starts, len(lost)


def _repeated(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of values that were there before."""
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order][1:] == values[order][:-1]) + 1
    return np.sort(order[again])


def _looked_up(
    values: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    results: npt.NDArray[np.int64],
    otherwise: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Result of every value by sorted keys, `otherwise` where it is no key; and where it is one."""
    if not len(keys):
        return np.full(len(values), otherwise), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    known = keys[at] == values
    return np.where(known, results[at], otherwise), known


def _present(source: Source, files: Iterable[str]) -> tuple[str, set[str]]:
    """Folder of the source that file names are relative to, and the files that are there.

    A zip of the pictures has them in a folder of its own, or not.
    """
    wanted = set(files)
    folders = {folder_of(file) for file in wanted}
    bases = ["", *(entry.name for entry in source.list("") if entry.is_folder)]
    for base in bases:
        try:
            present = _listed(source, base, folders) & wanted
        except RefusedLink:  # a folder that nobody annotated is no business of ours
            continue
        if present:
            return base, present
    return "", set()


def _listed(source: Source, base: str, folders: set[str]) -> set[str]:
    """Files of some folders below a base, relative to it; none of a folder that is not there."""
    files = set()
    for folder in folders:
        if not _is_folder(source, base, folder):
            continue
        path = "/".join(part for part in (base, folder) if part)
        prefix = f"{folder}/" if folder else ""
        files |= {prefix + entry.name for entry in source.list(path) if not entry.is_folder}
    return files


def _is_folder(source: Source, base: str, folder: str) -> bool:
    path = base
    for part in filter(None, folder.split("/")):
        if not any(entry.name == part and entry.is_folder for entry in source.list(path)):
            return False
        path = f"{path}/{part}" if path else part
    return True
