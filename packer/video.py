"""Match the numbered pictures of one video with the lines of its label files.

Line i of every label file belongs to the picture with the number ``first + i``, so a picture that
is lost in the middle moves nothing. Whatever does not fit is marked as a fault of its frame and
named as a problem; nothing is dropped here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from packer.annotations import parse_boxes, parse_levels
from packer.sequence import REASONS, Found, Problem, Reason, Sequence, named
from packer.source import Entry, Source
from shards.errors import DataError

__all__ = ["Boxes", "Flags", "assemble", "entries_of", "read_boxes", "read_levels", "read_pictures"]

MAX_PX = 1_000_000  # no coordinate of a picture is larger
SHOWN_LINES = 20  # malformed lines named per file
KEYFRAME_RATIO = 5  # pictures a line from which on lines are taken to be of keyframes only


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Boxes:
    """A file of boxes: L lines.

    Attributes
    ----------
    path : of the file, for messages
    there : the file exists and can be read
    xywh : (L, 4) float64 as published, NaN where a line does not parse
    unparsed : (L,) bool
    """

    path: str
    there: bool
    xywh: npt.NDArray[np.float64]
    unparsed: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Flags:
    """What other label files say about each of L lines of boxes.

    Attributes
    ----------
    absent : (L,) bool, not visible
    bad : (L,) bool, a flag is missing or malformed
    covered : (L,) bool, less visible than was asked for
    visible : (L,) float32 visible share, or None where it is not annotated
    """

    absent: npt.NDArray[np.bool_]
    bad: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.float32] | None

    @classmethod
    def none(cls, lines: int) -> Flags:
        """Return the flags of a data set that has no such files."""
        no = np.zeros(lines, bool)
        return cls(absent=no, bad=no, covered=no, visible=None)


def entries_of(source: Source, folder: str, problems: list[Problem]) -> dict[str, Entry]:
    """Names in a folder; a folder that cannot be listed is a problem and has none."""
    try:
        return {entry.name: entry for entry in source.list(folder)}
    except DataError as error:
        problems.append(Problem(folder, str(error)))
        return {}


def read_pictures(
    entries: Mapping[str, Entry],
    folder: str,
    pattern: re.Pattern[str],
    first: int,
    problems: list[Problem],
) -> dict[int, str]:
    """File names of pictures by their number.

    Parameters
    ----------
    entries : of the folder, from `entries_of`
    folder : for messages
    pattern : matches whole file names of pictures; its group 1 is the number
    first : smallest number
    problems : takes pictures that are there twice or numbered under `first`
    """
    pictures: dict[int, str] = {}
    for name, is_folder in entries.values():
        match = None if is_folder else pattern.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number < first:
            problems.append(Problem(f"{folder}/{name}", f"picture numbers start at {first}"))
        elif number in pictures:
            problems.append(
                Problem(f"{folder}/{name}", f"picture {number} is there twice ({pictures[number]})")
            )
        else:
            pictures[number] = name
    return pictures


def read_boxes(source: Source, path: str, there: bool, problems: list[Problem]) -> Boxes:
    """Read a file of boxes; a file that does not exist or cannot be read is a problem.

    Parameters
    ----------
    path : of the file
    there : it is in its folder
    """
    data = b""
    try:
        if there:
            data = source.read(path)
        else:
            problems.append(Problem(path, "this file of boxes does not exist"))
    except DataError as error:
        problems.append(Problem(path, str(error)))
        there = False
    xywh, faults = parse_boxes(data)
    _name_lines(path, faults, problems)
    unparsed = np.zeros(len(xywh), bool)
    unparsed[list(faults)] = True
    return Boxes(path=path, there=there, xywh=xywh, unparsed=unparsed)


def read_levels(
    source: Source, path: str, most: int, boxes: Boxes, problems: list[Problem]
) -> npt.NDArray[np.int8]:
    """Read a label file of one whole number, 0 to `most`, for every line of boxes.

    Returns
    -------
    (L,) int8, -1 where the file has no such number; then that is a problem too
    """
    levels = np.full(len(boxes.xywh), -1, np.int8)
    try:
        found, faults = parse_levels(source.read(path), most)
    except DataError as error:
        problems.append(Problem(path, str(error)))
        return levels
    problems.extend(Problem(path, what) for what in list(faults.values())[:SHOWN_LINES])
    if len(found) != len(levels) and boxes.there:
        problems.append(
            Problem(path, f"{len(found)} values, {len(levels)} lines in {_last(boxes.path)}")
        )
    levels[: len(found)] = found[: len(levels)]
    return levels


def assemble(
    found: Found,
    *,
    category: str,
    fps: float | None,
    first: int,
    pictures_at: str,
    source_at: str,
    pictures: Mapping[int, str],
    boxes: Boxes,
    flags: Flags,
    problems: list[Problem],
    notes: tuple[str, ...] = (),
) -> Sequence:
    """Put pictures, boxes and flags of a video together and mark what does not fit.

    Parameters
    ----------
    found, category, fps, pictures_at, source_at, notes : as in `Sequence`
    first : number of the picture to which line 0 belongs
    pictures : file names by number
    boxes, flags : of L lines each
    problems : found so far; those of the whole are added
    """
    lines = len(boxes.xywh)
    numbers = np.array(sorted({*range(first, first + lines), *pictures}), np.int32)
    count = len(numbers)
    xywh = np.full((count, 4), np.nan)
    xywh[:lines] = boxes.xywh
    absent, bad, covered = (
        np.append(flag, np.zeros(count - lines, bool))
        for flag in (flags.absent, boxes.unparsed | flags.bad, flags.covered)
    )
    visible = None
    if flags.visible is not None:
        visible = np.append(flags.visible, np.zeros(count - lines, np.float32))
    wild = ~(np.abs(xywh) <= MAX_PX).all(axis=1) & ~absent & ~bad
    wild[lines:] = False
    _name_lines(
        boxes.path,
        {int(i): f"box {xywh[i].tolist()} of a visible frame" for i in np.flatnonzero(wild)},
        problems,
    )
    no_picture = np.array([number not in pictures for number in numbers.tolist()], bool)

    fault = np.full(count, -1, np.int8)
    fault[covered & ~absent] = _code("covered")
    fault[bad | wild] = _code("bad_annotation")
    fault[lines:] = _code("no_label")
    if _keyframes_only(lines, len(pictures)):
        problems.append(Problem(boxes.path, _keyframes(lines, len(pictures))))
        fault[:] = _code("no_label")
    elif pictures and boxes.there:
        _check_counts(boxes, numbers, no_picture, first, problems)
    fault[no_picture] = _code("no_picture")
    return Sequence(
        name=found.name,
        category=category,
        kind="video",
        fps=fps,
        pictures_at=pictures_at,
        source_at=source_at,
        numbers=numbers,
        pictures=tuple(pictures.get(number, "") for number in numbers.tolist()),
        xywh=xywh,
        absent=absent,
        visible=visible,
        fault=fault,
        problems=tuple(problems),
        notes=notes,
    )


def _keyframes_only(lines: int, pictures: int) -> bool:
    return lines > 0 and pictures > 1 and lines * KEYFRAME_RATIO <= pictures


def _keyframes(lines: int, pictures: int) -> str:
    if lines == 1:
        return (
            f"1 line for {pictures} pictures: only the first frame is annotated, as in test sets "
            "whose boxes are not published; no pairs can be drawn from it"
        )
    return (
        f"{lines} lines for {pictures} pictures, one for about every {pictures / lines:.0f}: "
        "keyframes only, and which pictures they belong to is not said; "
        "get the file with a line for every picture"
    )


def _code(reason: Reason) -> int:
    return REASONS.index(reason)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _name_lines(path: str, faults: Mapping[int, str], problems: list[Problem]) -> None:
    """Add malformed lines to the problems, the first few by number."""
    problems.extend(
        Problem(f"{path}:{position + 1}", what)
        for position, what in list(faults.items())[:SHOWN_LINES]
    )
    if len(faults) > SHOWN_LINES:
        problems.append(Problem(path, f"{len(faults) - SHOWN_LINES} more lines like these"))


def _check_counts(
    boxes: Boxes,
    numbers: npt.NDArray[np.int32],
    no_picture: npt.NDArray[np.bool_],
    first: int,
    problems: list[Problem],
) -> None:
    """Compare pictures and lines."""
    lines = len(boxes.xywh)
    lacking = numbers[no_picture].tolist()
    extra = numbers[lines:].tolist()
    if lacking or extra:
        what = f"{lines} lines, {len(numbers) - len(lacking)} pictures numbered from {first}"
        if lacking:
            what += f"; no picture {named(lacking, 10)}"
        if extra:
            what += f"; no line for picture {named(extra, 10)}"
        problems.append(Problem(boxes.path, what))
