"""LaSOT: 1,400 videos of 70 classes, one object each (Fan et al., CVPR 2019).

Source: https://vision.cs.stonybrook.edu/~lasot/ (about 227 GB). The videos come from YouTube; the
authors give data and annotations for academic research.

Layout: ``<class>/<class>-<n>/{img/00000001.jpg, groundtruth.txt, full_occlusion.txt,
out_of_view.txt}``, also without the class folders, and in either form inside one enclosing folder.
Zip files are read in place: one a class (``<class>.zip``, with or without the class folder in it),
or one of all, as the root or in it.

Boxes: ``x,y,w,h`` a line in pixels, integers in practice; used as counted from 0 with exclusive
width by all readers we know, so x1 = x + w and nothing is shifted. Line i belongs to picture i.
The flags are one line of comma-separated 0 and 1, or one a line; a frame is absent where either
is 1. Boxes of absent frames may be anything, and zero or negative sizes occur in other frames too.

Sequences are sorted by class (ASCII), then by number, so car-2 comes before car-10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from packer.annotations import parse_boxes, parse_flags
from packer.sequence import REASONS, Found, Problem, Sequence, Split, Survey, named
from packer.source import Entry, RefusedLink, Source, folder_of, open_source, why_unread
from shards.errors import DataError

__all__ = [
    "CLASSES",
    "FPS",
    "LAYOUT",
    "MIN_EXCLUSIVE",
    "MIN_SIZE",
    "NAME",
    "SPLITS",
    "STRIDE",
    "TEST_NUMBERS",
    "official",
    "options",
    "read",
    "sequences",
    "survey",
]

NAME = "lasot"
STRIDE = 3
MIN_SIZE = 10
MIN_EXCLUSIVE = False
SPLITS: tuple[Split, ...] = ("train", "test", "all")
FPS = 30.0
LAYOUT = (
    "<root>/<class>/<class>-<n>/ or <root>/<class>-<n>/ with img/00000001.jpg and "
    "groundtruth.txt, or zip files of these"
)
PER_CLASS = 20  # official numbers are 1..20
MAX_PX = 1_000_000  # no coordinate of a picture is larger
SHOWN_LINES = 20  # malformed lines named per file

# The official test set, four numbers a class (LaSOT evaluation toolkit, testing_set.txt).
TEST_NUMBERS = """\
airplane 1,9,13,15; basketball 1,6,7,11; bear 2,4,6,17; bicycle 2,7,9,18; bird 2,3,15,17;
boat 3,4,12,17; book 3,10,11,19; bottle 1,12,14,18; bus 2,5,17,19; car 2,6,9,17; cat 1,3,18,20;
cattle 2,7,12,13; chameleon 3,6,11,20; coin 3,6,7,18; crab 3,6,12,18; crocodile 3,4,10,14;
cup 1,4,7,17; deer 4,8,10,14; dog 1,7,15,19; drone 2,7,13,15; electricfan 1,10,18,20;
elephant 1,12,16,18; flag 2,3,5,9; fox 2,3,5,20; frog 3,4,9,20; gametarget 1,2,7,13;
gecko 1,5,16,19; giraffe 2,10,13,15; goldfish 3,7,8,10; gorilla 4,6,9,13; guitar 3,8,10,16;
hand 2,3,9,16; hat 1,2,5,18; helmet 5,11,13,19; hippo 1,7,9,20; horse 1,4,12,15;
kangaroo 2,5,11,14; kite 4,6,10,15; leopard 1,7,16,20; licenseplate 6,12,13,15; lion 1,5,12,20;
lizard 1,3,6,13; microphone 2,6,14,16; monkey 3,4,9,17; motorcycle 1,3,9,18; mouse 1,8,9,17;
person 1,5,10,12; pig 2,10,13,18; pool 3,7,12,15; rabbit 10,13,17,19; racing 10,15,16,20;
robot 1,5,8,19; rubicCube 1,6,14,19; sepia 6,8,13,16; shark 2,3,5,6; sheep 3,5,7,9;
skateboard 3,8,16,19; spider 14,16,18,20; squirrel 8,11,13,19; surfboard 4,5,8,12;
swing 10,14,17,20; tank 6,9,14,16; tiger 4,6,12,18; train 1,7,11,20; truck 3,6,7,16;
turtle 5,8,9,16; umbrella 2,9,17,19; volleyball 1,13,18,19; yoyo 7,15,17,19; zebra 10,14,16,17"""
CLASSES: tuple[str, ...] = tuple(re.findall("[A-Za-z]+", TEST_NUMBERS))

_NAME = re.compile(r"(?P<category>.+)-(?P<number>\d+)")
_PICTURE = re.compile(r"(\d{8})\.jpe?g", re.IGNORECASE)
_FLAG_FILES = ("full_occlusion.txt", "out_of_view.txt")
_NO_PICTURE, _NO_LABEL, _BAD = (
    REASONS.index(reason) for reason in ("no_picture", "no_label", "bad_annotation")
)


@cache
def _test_names() -> frozenset[str]:
    return frozenset(
        f"{category}-{number}"
        for category, numbers in (entry.split() for entry in TEST_NUMBERS.split(";"))
        for number in numbers.split(",")
    )


def options() -> dict[str, Any]:
    """Nothing beyond what all data sets have."""
    return {}


def official(split: Split) -> list[str]:
    """Names of the official sequences of a split: 1,120 train, 280 test, in packing order."""
    names = [f"{category}-{n}" for category in CLASSES for n in range(1, PER_CLASS + 1)]
    return [name for name in names if _in_split(name, split)]


def _in_split(name: str, split: Split) -> bool:
    return split == "all" or (name in _test_names()) == (split == "test")


class _Level(NamedTuple):
    """Folders of one level: what lies in them or one level down, and which hold nothing of use.

    Attributes
    ----------
    sequences, folders, archives : paths
    notes : folders and files that are passed over
    damaged : folders of classes that are refused
    """

    sequences: list[str]
    folders: list[str]
    archives: list[str]
    notes: list[str]
    damaged: list[Problem]


def _entries(source: Source, folder: str) -> list[Entry] | None:
    """List a folder; None for one that is named like a sequence and cannot be listed.

    Reading it will fail again, and then it is a problem of that sequence alone.
    """
    try:
        return source.list(folder)
    except DataError:
        if _NAME.fullmatch(_last(folder)) is None:
            raise
        return None


def _listed(source: Source, folder: str, level: _Level) -> list[Entry] | None:
    """List a folder as `_entries` does; a link that is refused has nothing in it, and is named."""
    try:
        return _entries(source, folder)
    except RefusedLink as error:
        if _last(folder) in CLASSES:
            level.damaged.append(Problem(folder, str(error)))
        else:
            level.notes.append(f"link {folder} not read: {error}")
        return []


def _looks_like_sequence(name: str, entries: list[Entry] | None) -> bool:
    if entries is None:
        return True
    has_parts = any(
        entry.name == "img" if entry.is_folder else entry.name == "groundtruth.txt"
        for entry in entries
    )
    return has_parts or (
        _NAME.fullmatch(name) is not None and not any(entry.is_folder for entry in entries)
    )


def _level(source: Source, base: str) -> _Level:
    level = _Level([], [], [], [], [])
    prefix = f"{base}/" if base else ""
    for entry in source.list(base):
        folder = prefix + entry.name
        if not entry.is_folder:
            _add_archive(entry, folder, level)
            continue
        refused = len(level.notes) + len(level.damaged)
        inner = _listed(source, folder, level)
        if refused != len(level.notes) + len(level.damaged):
            continue
        if inner is None or _looks_like_sequence(entry.name, inner):
            level.sequences.append(folder)
            continue
        level.folders.append(folder)
        before = len(level.sequences), len(level.archives)
        for child in inner:
            path = f"{folder}/{child.name}"
            if not child.is_folder:
                _add_archive(child, path, level)
            elif _looks_like_sequence(child.name, _listed(source, path, level)):
                level.sequences.append(path)
        if before == (len(level.sequences), len(level.archives)):
            level.notes.append(f"no sequences in folder {folder}")
    return level


def _add_archive(entry: Entry, path: str, level: _Level) -> None:
    reason = why_unread(entry.name)
    if entry.is_archive:
        level.archives.append(path)
    elif reason is not None:
        level.notes.append(f"{path} not read: {reason}")


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _discover(source: Source, top: str = "") -> tuple[str, _Level]:
    """Find the folder that holds the classes or sequences: `top`, or the only folder in it."""
    level = _level(source, top)
    if len(level.folders) == 1 and all(folder_of(path) != top for path in level.sequences):
        only = level.folders[0]
        if not any(_last(path).startswith(f"{_last(only)}-") for path in level.sequences):
            inner = _level(source, only)
            if inner.sequences:
                outside = [path for path in level.archives if folder_of(path) == top]
                return only, inner._replace(
                    archives=[*inner.archives, *outside],
                    damaged=[*level.damaged, *inner.damaged],
                )
    return top, level


class _Finding:
    """Sequences found so far, by name; unpacked ones come before those in archives."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}
        self.in_archive: set[str] = set()
        self.problems: list[Problem] = []
        self.damaged: list[Problem] = []
        self.notes: list[str] = []

    def unpacked(self, base: str, level: _Level) -> None:
        self.notes += level.notes
        self.damaged += level.damaged
        for path in level.sequences:
            self._add(path, path.removeprefix(f"{base}/") if base else path)

    def archived(self, source: Source, archive: str) -> None:
        """Take in the sequences of an archive, named as if its classes were unpacked folders."""
        try:
            _, level = _discover(source, archive)
        except DataError as error:
            self.damaged.append(Problem(archive, str(error)))
            return
        self.notes += level.notes
        self.notes += [f"{one} not read: it is in an archive; unpack it" for one in level.archives]
        if not level.sequences:
            self.notes.append(f"no sequences in archive {archive}")
        shadowed = 0
        for path in level.sequences:
            name = _last(path)
            if name in self.found and name not in self.in_archive:
                shadowed += 1
                continue
            category = name.rpartition("-")[0]
            self._add(path, f"{category}/{name}" if category else path)
            self.in_archive.add(name)
        if shadowed:
            self.notes.append(f"{shadowed} sequences of {archive} not taken: they are unpacked too")

    def _add(self, folder: str, path: str) -> None:
        name = _last(folder)
        match = _NAME.fullmatch(name)
        if match is None:
            self.problems.append(Problem(folder, "a sequence folder is named <class>-<number>"))
        elif name in self.found:
            also = self.found[name].folder
            self.problems.append(Problem(folder, f"{name} is there twice, also as {also}"))
        else:
            self.found[name] = Found(
                name=name,
                category=match["category"],
                number=int(match["number"]),
                folder=folder,
                path=path,
            )


def survey(source: Source, split: Split) -> Survey:
    """List the sequences of a split that are on disk; reads no annotation.

    Raises
    ------
    DataError : if there is none at all, or none of this split
    """
    base, level = _discover(source)
    finding = _Finding()
    finding.unpacked(base, level)
    for archive in level.archives:
        finding.archived(source, archive)
    found = finding.found
    if not found and not finding.problems:
        facts = [*finding.notes, *map(str, finding.damaged)]
        raise DataError(
            f"no sequences found; expected {LAYOUT}" + "".join(f"; {fact}" for fact in facts)
        )
    chosen = [one for one in found.values() if _in_split(one.name, split)]
    if found and not chosen and not finding.damaged:
        raise DataError(_other_split(len(found), split))
    problems = [problem for problem in finding.problems if _in_split(_last(problem.where), split)]
    return Survey(
        found=tuple(sorted(chosen, key=lambda one: (one.category, one.number, one.name))),
        missing=tuple(name for name in official(split) if name not in found),
        notes=tuple(finding.notes),
        problems=(*finding.damaged, *problems),
    )


def _other_split(count: int, split: Split) -> str:
    if split == "train":
        return f"all {count} sequences belong to the test split; use --split all"
    return f"none of the {count} sequences belongs to the test split; use --split train or all"


def read(source: Source, found: Found) -> Sequence:
    """Read one sequence: annotations and the names of its pictures.

    Positions are line numbers; pictures without a line follow. See `packer.sequence.Sequence`.
    """
    try:
        entries = {entry.name: entry for entry in source.list(found.folder)}
    except DataError as error:
        entries, problems = {}, [Problem(found.folder, str(error))]
    else:
        problems = []
    pictures, notes = _pictures(source, found, entries, problems)
    boxes, unparsed = _boxes(source, found, entries, problems)
    lines = len(boxes)
    numbers = np.array(
        sorted({*range(1, lines + 1), *pictures}),
        np.int32,
    )
    absent, unflagged, flagged = _flags(source, found, entries, lines, problems, notes)

    count = len(numbers)
    xywh = np.full((count, 4), np.nan)
    xywh[:lines] = boxes
    gone = np.zeros(count, bool)
    gone[:lines] = absent
    bad = np.zeros(count, bool)
    bad[:lines] = unparsed | unflagged
    wild = ~(np.abs(xywh) <= MAX_PX).all(axis=1) & ~gone & ~bad
    wild[lines:] = False
    _name_lines(
        f"{found.folder}/groundtruth.txt",
        {int(i): f"box {xywh[i].tolist()} of a visible frame" for i in np.flatnonzero(wild)},
        problems,
    )
    no_picture = np.array([number not in pictures for number in numbers.tolist()], bool)
    _check_counts(found, entries, numbers, no_picture, lines, problems)

    fault = np.full(count, -1, np.int8)
    fault[bad | wild] = _BAD
    fault[lines:] = _NO_LABEL
    fault[no_picture] = _NO_PICTURE
    return Sequence(
        name=found.name,
        category=found.category,
        kind="video",
        fps=FPS,
        pictures_at=f"{found.folder}/img",
        source_at=f"{found.path}/img",
        numbers=numbers,
        pictures=tuple(pictures.get(number, "") for number in numbers.tolist()),
        xywh=xywh,
        absent=gone,
        visible=(~gone).astype(np.float32) if flagged else None,
        fault=fault,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def sequences(root: Path, split: Split) -> Iterator[Sequence]:
    """Sequences of a split below a folder or archive, in packing order, faults marked."""
    source = open_source(root)
    for found in survey(source, split).found:
        yield read(source, found)


def _pictures(
    source: Source, found: Found, entries: dict[str, Entry], problems: list[Problem]
) -> tuple[dict[int, str], list[str]]:
    """File names by picture number; other files are ignored and noted."""
    folder = f"{found.folder}/img"
    if "img" not in entries or not entries["img"].is_folder:
        problems.append(Problem(found.folder, "no folder img with its pictures"))
        return {}, []
    try:
        listing = source.list(folder)
    except DataError as error:
        problems.append(Problem(folder, str(error)))
        return {}, []
    pictures: dict[int, str] = {}
    others = []
    for name, is_folder in listing:
        match = _PICTURE.fullmatch(name)
        if match is None or is_folder:
            others.append(name)
            continue
        number = int(match[1])
        if number == 0:
            problems.append(Problem(f"{folder}/{name}", "picture numbers start at 1"))
        elif number in pictures:
            problems.append(
                Problem(f"{folder}/{name}", f"picture {number} is there twice ({pictures[number]})")
            )
        else:
            pictures[number] = name
    if others and not pictures:
        problems.append(
            Problem(folder, f"pictures are named 00000001.jpg and so on, found {named(others)}")
        )
    return pictures, ["files other than 00000001.jpg in img ignored"] if others else []


def _boxes(
    source: Source, found: Found, entries: dict[str, Entry], problems: list[Problem]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Boxes as published, (N, 4), NaN where a line does not parse; and which lines do not."""
    path = f"{found.folder}/groundtruth.txt"
    if "groundtruth.txt" not in entries:
        problems.append(Problem(found.folder, "no groundtruth.txt"))
        return np.empty((0, 4)), np.empty(0, bool)
    try:
        data = source.read(path)
    except DataError as error:
        problems.append(Problem(path, str(error)))
        return np.empty((0, 4)), np.empty(0, bool)
    boxes, faults = parse_boxes(data)
    _name_lines(path, faults, problems)
    unparsed = np.zeros(len(boxes), bool)
    unparsed[list(faults)] = True
    return boxes, unparsed


def _flags(
    source: Source,
    found: Found,
    entries: dict[str, Entry],
    lines: int,
    problems: list[Problem],
    notes: list[str],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], bool]:
    """Absent frames, frames without a sound flag, and whether both files are there."""
    absent, unflagged = np.zeros(lines, bool), np.zeros(lines, bool)
    complete = True
    for name in _FLAG_FILES:
        path = f"{found.folder}/{name}"
        if name not in entries:
            notes.append(f"no {name}: frames taken as visible")
            complete = False
            continue
        try:
            flags, faults = parse_flags(source.read(path))
        except DataError as error:
            problems.append(Problem(path, str(error)))
            unflagged[:] = True
            continue
        problems.extend(Problem(path, what) for what in list(faults.values())[:SHOWN_LINES])
        if len(flags) != lines and "groundtruth.txt" in entries:
            problems.append(Problem(path, f"{len(flags)} flags, {lines} lines in groundtruth.txt"))
        absent[: len(flags)] |= flags[:lines]
        unflagged[len(flags) :] = True
        unflagged[[position for position in faults if position < lines]] = True
    return absent, unflagged, complete


def _name_lines(path: str, faults: dict[int, str], problems: list[Problem]) -> None:
    """Add malformed lines to the problems, the first few by number."""
    problems.extend(
        Problem(f"{path}:{position + 1}", what)
        for position, what in list(faults.items())[:SHOWN_LINES]
    )
    if len(faults) > SHOWN_LINES:
        problems.append(Problem(path, f"{len(faults) - SHOWN_LINES} more lines like these"))


def _check_counts(
    found: Found,
    entries: dict[str, Entry],
    numbers: npt.NDArray[np.int32],
    no_picture: npt.NDArray[np.bool_],
    lines: int,
    problems: list[Problem],
) -> None:
    """Compare pictures and lines; one side that is not there at all is a problem already."""
    if "groundtruth.txt" not in entries or "img" not in entries:
        return
    lacking = numbers[no_picture].tolist()
    extra = numbers[lines:].tolist()
    if lacking or extra:
        pictures = len(numbers) - len(lacking)
        what = f"{pictures} pictures, {lines} lines in groundtruth.txt"
        if lacking:
            what += f"; no picture {named([f'{n:08d}' for n in lacking], 10)}"
        if extra:
            what += f"; no line for picture {named([f'{n:08d}' for n in extra], 10)}"
        problems.append(Problem(found.folder, what))
