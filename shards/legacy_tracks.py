"""Old annotations to tracks of our format: who is meant by a name, which rows can be used. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from shards.errors import FormatError
from shards.format import Kind, Sample, check_category_name

__all__ = ["Chosen", "LeftOut", "Legacy", "LegacyTrack", "base_name", "choose", "tracks_of"]

_NAME = re.compile(r"(.+)_(\d{1,9})_(\d{1,9})\.(?:jpg|jpeg)", re.IGNORECASE)
EXAMPLES = 20  # of every reason
_COLUMNS = 6  # x0, y0, x1, y1, category, ignore
_MAX_NUMBER = np.iinfo(np.int32).max
_FAULTS = ("", "bad_annotation", "no_box")
_CHUNK = 16_384  # box arrays that are joined at a time


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Legacy:
    """Annotations of an old data set: T tracks of F frames with M boxes, in the pickle's order.

    Attributes
    ----------
    listed : all categories as the pickle has them
    categories : number and name of each; codes below are places in it
    problems : what is malformed, in words; a track that is not here is named there
    sequence, track : T names, (T,) int32; with the frame number they make the key of a crop
    category_code : (T,) int32
    frame_start : (T + 1,) int64, frames of each track
    numbers : (F,) int32, ascending in a track
    pictures : F names of pictures, without a folder
    fault : (F,) int8, why a frame cannot be used (a place in ``"", bad_annotation, no_box``)
    box_start : (F + 1,) int64, boxes of each frame, its target first
    boxes : (M, 4) float32 xyxy in crop pixels
    box_code : (M,) int32 category, -1 if unknown
    ignore : (M,) bool
    """

    listed: tuple[Mapping[str, Any], ...]
    categories: tuple[tuple[int, str], ...]
    problems: tuple[str, ...]
    sequence: Sequence[str]
    track: npt.NDArray[np.int32]
    category_code: npt.NDArray[np.int32]
    frame_start: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int32]
    pictures: Sequence[str]
    fault: npt.NDArray[np.int8]
    box_start: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    box_code: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]

    @property
    def kind(self) -> Kind:
        """``image`` where no track has a second frame, else ``video``."""
        return "video" if (np.diff(self.frame_start) > 1).any() else "image"

    @property
    def tracks(self) -> Iterator[LegacyTrack]:
        """Tracks, one after another."""
        return (LegacyTrack(of=self, number=number) for number in range(len(self.sequence)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LegacyTrack:
    """One object of one sequence; a row is a frame of it."""

    of: Legacy
    number: int

    def __len__(self) -> int:
        return int(self.of.frame_start[self.number + 1]) - self._first

    @property
    def _first(self) -> int:
        return int(self.of.frame_start[self.number])

    @property
    def sequence(self) -> str:
        """Name of its sequence."""
        return self.of.sequence[self.number]

    @property
    def category(self) -> str:
        """Class of the target."""
        return self.of.categories[int(self.of.category_code[self.number])][1]

    def frame(self, row: int) -> int:
        """Frame number of a row."""
        return int(self.of.numbers[self._first + row])

    def picture(self, row: int) -> str:
        """Name of the picture of a row."""
        return self.of.pictures[self._first + row]

    def fault(self, row: int) -> str:
        """Why a row cannot be used; empty if it can."""
        return _FAULTS[int(self.of.fault[self._first + row])]

    def sample(self, row: int, kind: Kind) -> Sample:
        """Description of one frame; what the old files do not hold is None."""
        of, at = self.of, self._first + row
        boxes = slice(int(of.box_start[at]), int(of.box_start[at + 1]))
        return Sample(
            sequence=self.sequence,
            track=int(of.track[self.number]),
            frame=self.frame(row),
            kind=kind,
            fps=None,
            boxes=of.boxes[boxes],
            categories=tuple(of.categories[code][1] for code in of.box_code[boxes].tolist()),
            ignore=tuple(of.ignore[boxes].tolist()),
            visible=None,
            mean_rgb=None,
            source=None,
            source_size=None,
            region=None,
        )


def base_name(name: str) -> str:
    """Name of a picture without its folders."""
    return PurePosixPath(name).name if "/" in name else name


class _Columns:
    """Columns of a `Legacy` while they grow."""

    def __init__(self) -> None:
        self.sequence: list[str] = []
        self.pictures: list[str] = []
        self._lists: dict[str, list[int]] = {
            name: [] for name in ("track", "code", "frames", "numbers", "boxes")
        }
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._joined: list[npt.NDArray[np.float32]] = []

    def add(
        self,
        who: tuple[str, int],
        code: int,
        numbers: Sequence[int],
        pictures: Sequence[str],
        boxes: Sequence[npt.NDArray[np.float32]],
    ) -> None:
        """Take in one track."""
        self.sequence.append(who[0])
        self.pictures.extend(pictures)
        lists = self._lists
        lists["track"].append(who[1])
        lists["code"].append(code)
        lists["frames"].append(len(numbers))
        lists["numbers"].extend(numbers)
        lists["boxes"].extend(map(len, boxes))
        self._waiting.extend(boxes)
        if len(self._waiting) >= _CHUNK:
            self._join()

    def _join(self) -> None:
        self._joined.append(np.concatenate([np.empty((0, _COLUMNS), np.float32), *self._waiting]))
        self._waiting = []

    def rows(self) -> npt.NDArray[np.float32]:
        """All boxes, (M, 6)."""
        self._join()
        return np.concatenate(self._joined)

    def array(self, name: str) -> npt.NDArray[np.int32]:
        """One of the columns of numbers."""
        return np.array(self._lists[name], np.int32)

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """Running sum of a column, from 0."""
        return np.cumsum([0, *self._lists[name]], dtype=np.int64)


def tracks_of(
    categories: Iterable[Mapping[str, Any]], sequences: Iterable[Mapping[str, Any]]
) -> Legacy:
    """Tracks of what `shards.legacy.open_legacy` reads.

    Parameters
    ----------
    categories, sequences : see `shards.legacy`

    Returns
    -------
    tracks, with frames marked that have malformed boxes (``bad_annotation``) or a target without
    area (``no_box``)

    Raises
    ------
    FormatError : if a category has a name that no class can have
    """
    listed = tuple(categories)
    for number, category in enumerate(listed):
        try:
            check_category_name(category["name"])
        except FormatError as error:
            raise FormatError(
                f"annotation pickle: categories[{number}] (id {category['id']}): {error}"
            ) from error
    codes = {int(one["id"]): code for code, one in enumerate(listed)}
    problems = []
    if len(codes) < len(listed) or len({one["name"] for one in listed}) < len(listed):
        problems.append("a category number or name is there twice")
    columns = _Columns()
    seen: set[tuple[str, int]] = set()
    for number, one in enumerate(sequences):
        pictures = [base_name(name) for name in one["frames"]]
        try:
            who = _who(pictures)
            code = _checked(one, codes)
            if who in seen:
                raise ValueError(f"sequence {who[0]} has a track {who[1]} already")
        except ValueError as error:
            problems.append(f"entry {number} ({(pictures or ['without frames'])[0]}): {error}")
            continue
        seen.add(who)
        columns.add(who, code, one["frame_id"], pictures, one["bboxes"])
    return _legacy(listed, problems, columns)


def _who(pictures: Sequence[str]) -> tuple[str, int]:
    """Sequence and track that the names of an entry's pictures agree on."""
    found: tuple[str, str] | None = None
    for name in pictures:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"picture {name!r} is not named <sequence>_<track>_<frame>.jpg")
        if found is not None and match.group(1, 2) != found:
            raise ValueError(f"picture {name!r} is of another sequence or track than the first")
        found = (match[1], match[2])
    if found is None:
        raise ValueError("no frames")
    plain = found[0]
    if "%" in plain:  # perhaps as an export spells it
        decoded = unquote(plain)
        plain = decoded if quote(decoded, safe="").replace(".", "%2E") == plain else plain
    return plain, int(found[1])


def _checked(one: Mapping[str, Any], codes: Mapping[int, int]) -> int:
    """Code of an entry's category, its frame numbers being in order."""
    code = codes.get(one["category"])
    if code is None:
        raise ValueError(f"category {one['category']} is not among the categories")
    numbers = one["frame_id"]
    in_order = all(first < second for first, second in pairwise(numbers))
    if not in_order or numbers[0] < 0 or numbers[-1] > _MAX_NUMBER:
        raise ValueError("frame numbers must ascend from 0 or more")
    return code


def _legacy(
    listed: tuple[Mapping[str, Any], ...], problems: list[str], columns: _Columns
) -> Legacy:
    """Columns with their boxes checked."""
    rows, box_start = columns.rows(), columns.starts("boxes")
    category_code, frame_start = columns.array("code"), columns.starts("frames")
    box_code = _codes(rows[:, 4], [int(one["id"]) for one in listed])
    bad = ~np.isfinite(rows).all(axis=1) | ~((rows[:, 5] == 0) | (rows[:, 5] == 1))
    bad |= box_code < 0
    target = box_start[:-1]
    fault = np.zeros(len(target), np.int8)
    fault[~(rows[target, 2:4] > rows[target, :2]).all(axis=1)] = _FAULTS.index("no_box")
    code_of_frame = np.repeat(category_code, np.diff(frame_start))
    bad_frame = box_code[target] != code_of_frame
    if len(target):
        bad_frame |= np.logical_or.reduceat(bad, target)
    fault[bad_frame] = _FAULTS.index("bad_annotation")
    problems += [
        f"{columns.pictures[frame]}: a box that is not finite, or of an unknown category or "
        "ignore flag"
        for frame in np.flatnonzero(bad_frame).tolist()
    ]
    return Legacy(
        listed=listed,
        categories=tuple((int(one["id"]), str(one["name"])) for one in listed),
        problems=tuple(problems),
        sequence=columns.sequence,
        track=columns.array("track"),
        category_code=category_code,
        frame_start=frame_start,
        numbers=columns.array("numbers"),
        pictures=columns.pictures,
        fault=fault,
        box_start=box_start,
        boxes=np.ascontiguousarray(rows[:, :4]),
        box_code=box_code,
        ignore=rows[:, 5] == 1,
    )


def _codes(values: npt.NDArray[np.float32], ids: Sequence[int]) -> npt.NDArray[np.int32]:
    """Place of each category number among `ids`, -1 where it is none of them."""
    if not ids:
        return np.full(len(values), -1, np.int32)
    known = np.array(ids, np.float64)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], values), len(ids) - 1)
    codes = order[place].astype(np.int32)
    codes[known[codes] != values] = -1
    return codes


class LeftOut:
    """Frames left out, counted by reason, with some examples of each as the manifest has them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[Mapping[str, Any]]] = {}

    def add(self, reason: str, frame: str, picture: str | None) -> None:
        """Count one; `picture` is its file or member, None where there is none."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append({"frame": frame, "picture": picture, "box": None})

    def add_row(self, reason: str, track: LegacyTrack, row: int) -> None:
        """Count one frame of a track."""
        picture = None if reason == "no_picture" else track.picture(row)
        self.add(reason, f"{track.sequence}/{track.frame(row)}", picture)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chosen:
    """Frames of old annotations that can be used.

    Attributes
    ----------
    kept : (F,) bool
    left_out : the others
    problems : what is malformed or missing, in words
    """

    kept: npt.NDArray[np.bool_]
    left_out: LeftOut
    problems: tuple[str, ...]

    def rows(self, track: LegacyTrack) -> npt.NDArray[np.int64]:
        """Rows of a track that are kept."""
        start, stop = track.of.frame_start[track.number : track.number + 2]
        return np.flatnonzero(self.kept[start:stop])


def choose(legacy: Legacy, kind: Kind, there: Collection[str]) -> Chosen:
    """Decide which frames can be used, given which pictures there are.

    Parameters
    ----------
    legacy : tracks
    kind : a track of a ``video`` needs two frames
    there : names of all pictures that there are, without folders

    Returns
    -------
    frames, and what was left out: ``bad_annotation``, ``no_box``, ``no_picture`` (annotated, but
    not there), ``short_track``, ``no_label`` (there, but not annotated, which is no problem:
    cleaning took whole sequences out of the pickle)
    """
    left_out = LeftOut()
    problems = list(legacy.problems)
    kept = legacy.fault == 0
    for track in legacy.tracks:
        first = int(legacy.frame_start[track.number])
        usable = []
        for row in range(len(track)):
            name = legacy.pictures[first + row]
            if name not in there:
                kept[first + row] = False
                left_out.add_row("no_picture", track, row)
                problems.append(f"{name}: annotated, but there is no such picture")
            elif legacy.fault[first + row]:
                left_out.add_row(track.fault(row), track, row)
            else:
                usable.append(row)
        if kind == "video" and len(usable) == 1:
            kept[first + usable[0]] = False
            left_out.add_row("short_track", track, usable[0])
    named = set(legacy.pictures)
    for name in there:
        if name not in named and _NAME.fullmatch(name):
            left_out.add("no_label", name, name)
    return Chosen(kept=kept, left_out=left_out, problems=tuple(problems))
