"""OTB (Wu, Lim, Yang, PAMI 2015): 100 sequences of 98 videos, for evaluation alone.

Source: http://cvlab.hanyang.ac.kr/tracker_benchmark/. Layout: ``<root>/<Video>/img/0001.jpg`` and
``groundtruth_rect.txt``; a video with two targets has ``groundtruth_rect.1.txt`` and ``.2.txt``,
which become ``Jogging.1`` and ``Jogging.2``. An empty file of boxes is passed over, so Human4, of
whose two files one is empty, keeps its plain name. (Names and order of the got10k toolkit.)

Boxes: ``x,y,w,h`` a line, separated by commas, tabs or spaces, pixels counted from 1. Line i
belongs to picture i of those that are annotated: all, but for the videos in `SPANS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from packer.annotations import parse_boxes
from packer.sequence import Problem, named
from packer.source import FolderSource
from shards.errors import DataError

__all__ = ["LAYOUT", "ORIGIN", "SPANS", "SPLITS", "Video", "read_videos"]

LAYOUT = "<root>/<Video>/ with img/0001.jpg and groundtruth_rect.txt"
ORIGIN = 1  # number of the first pixel in published boxes

_BOTH = """\
Bolt Car4 CarDark CarScale Couple David Deer Dudek Football Freeman4 Girl Ironman Jumping Liquor
Matrix MotorRolling Shaking Singer2 Skating1 Skiing Soccer Sylvester Tiger2 Trellis Walking
Walking2 Woman Basketball"""
_ONLY_2013 = """\
Boy Coke Crossing David2 David3 Dog1 Doll FaceOcc1 FaceOcc2 Fish FleetFace Football1 Freeman1
Freeman3 Jogging Lemming Mhyang MountainBike Singer1 Subway Suv Tiger1"""
_ONLY_50 = """\
Biker Bird1 BlurBody BlurCar2 BlurFace BlurOwl Box Car1 ClifBar Crowds Diving DragonBaby Human3
Human4 Human6 Human9 Jump Panda RedTeam Skating2 Surfer"""
_REST = """\
Bird2 BlurCar1 BlurCar3 BlurCar4 Board Bolt2 Car2 Car24 Coupon Dancer Dancer2 Dog Girl2 Gym Human2
Human5 Human7 Human8 KiteSurf Man Rubik Skater Skater2 Toy Trans Twinnings Vase"""

# Folders of each split: the benchmark of 2013 and the two of 2015.
SPLITS: dict[str, frozenset[str]] = {
    "otb100": frozenset(f"{_BOTH} {_ONLY_2013} {_ONLY_50} {_REST}".split()),
    "otb50": frozenset(f"{_BOTH} {_ONLY_50}".split()),
    "otb2013": frozenset(f"{_BOTH} {_ONLY_2013}".split()),
}
# First and last annotated picture of videos that come with more of them, by their numbers.
SPANS: dict[str, tuple[int, int | None]] = {
    "blurcar1": (247, 988),
    "blurcar3": (3, 359),
    "blurcar4": (18, 397),
    "david": (300, 770),
    "football1": (1, 74),
    "freeman3": (1, 460),
    "freeman4": (1, 283),
    "diving": (1, 215),
}
# pysot and PySiamTracking leave out the first five pictures of Tiger1; the got10k toolkit does not.
LATE_START: dict[str, tuple[int, int | None]] = {"tiger1": (6, None)}

_TRUTH = re.compile(r"groundtruth.*\.txt")
_PICTURE = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


class Video(NamedTuple):
    """One target of a video: ``pictures`` paths in the root, ``xywh`` (N,4) as published."""

    name: str
    pictures: list[str]
    xywh: npt.NDArray[np.float64]
    problems: list[Problem]
    notes: list[str]


def read_videos(
    source: FolderSource, split: str, late_start: bool
) -> tuple[list[Video], list[str]]:
    """Read the videos of a split.

    Parameters
    ----------
    split : one of `SPLITS`, or ``all`` for every folder that has boxes
    late_start : leave out the first five pictures of Tiger1

    Returns
    -------
    videos, by name, with their malformed parts marked; notes on what is not there

    Raises
    ------
    DataError : if there is none
    """
    truths = _truths(source)
    if not truths:
        raise DataError(f"{source.root}: no sequences found; expected {LAYOUT}")
    wanted = truths.keys() if split == "all" else SPLITS[split]
    chosen = [folder for folder in truths if folder in wanted]
    if not chosen:
        raise DataError(
            f"{source.root}: none of the {len(truths)} folders belongs to {split} "
            f"({named(sorted(truths))}); use --split all"
        )
    notes = []
    missing = sorted(set(wanted) - truths.keys())
    if missing:
        notes.append(
            f"{len(missing)} of {len(wanted)} videos of {split} are not on disk: {named(missing)}"
        )
    others = len(truths) - len(chosen)
    if others:
        notes.append(f"not of {split} and left out: {others} more on disk (--split all takes them)")
    spans = SPANS | (LATE_START if late_start else {})
    videos = []
    for folder in chosen:
        videos += _read_folder(source, folder, truths[folder], spans.get(folder.lower()))
    return videos, notes


def _truths(source: FolderSource) -> dict[str, list[str]]:
    """Files of boxes by folder."""
    found = {}
    for entry in source.list(""):
        if entry.is_folder:
            names = [one.name for one in source.list(entry.name) if not one.is_folder]
            truth = [name for name in names if _TRUTH.fullmatch(name)]
            if truth:
                found[entry.name] = truth
    return found


def _read_folder(
    source: FolderSource, folder: str, truths: list[str], span: tuple[int, int | None] | None
) -> list[Video]:
    """Targets of one video."""
    problems: list[Problem] = []
    pictures = _pictures(source, folder, problems)
    kept = pictures
    if span is not None:
        first, last = span
        kept = {n: p for n, p in pictures.items() if first <= n and (last is None or n <= last)}
    targets = []
    for truth in truths:
        data = source.read(f"{folder}/{truth}")
        if data.strip():
            targets.append((f"{folder}/{truth}", data))
    notes = [f"{folder}: an empty file of boxes passed over"] * (len(targets) < len(truths))
    if not targets:
        problems.append(Problem(f"{folder}/{truths[0]}", "is empty"))
        return [Video(folder, [], np.empty((0, 4)), problems, [])]
    videos = []
    for count, (path, data) in enumerate(targets, 1):
        xywh, faults = parse_boxes(data)
        if len(xywh) == len(pictures) != len(kept):  # boxes of the pictures that are left out too
            xywh = xywh[[n in kept for n in pictures]]
        wrong = [Problem(f"{path}:{line + 1}", what) for line, what in faults.items()]
        unfit = np.flatnonzero(~np.isfinite(xywh).all(axis=1)) if not wrong else ()
        wrong += [Problem(f"{path}: box {row + 1}", f"is {xywh[row].tolist()}") for row in unfit]
        name = folder if len(targets) == 1 else f"{folder}.{count}"
        videos.append(Video(name, list(kept.values()), xywh, [*problems, *wrong], notes))
        notes, problems = [], []
    return videos


def _pictures(source: FolderSource, folder: str, problems: list[Problem]) -> dict[int, str]:
    """Pictures by number, in order; a gap would give all later ones the boxes of others."""
    try:
        names: Iterable[str] = [one.name for one in source.list(f"{folder}/img")]
    except DataError as error:
        problems.append(Problem(f"{folder}/img", str(error)))
        return {}
    matches = [match for match in map(_PICTURE.fullmatch, names) if match]
    found = {int(m[1]): f"{folder}/img/{m[0]}" for m in sorted(matches, key=lambda m: int(m[1]))}
    if not found:
        problems.append(Problem(f"{folder}/img", "no pictures; they are named 0001.jpg and so on"))
    else:
        if len(found) < len(matches):
            numbers = [int(m[1]) for m in matches]
            twice = sorted({f"{n}" for n in numbers if numbers.count(n) > 1}, key=int)
            problems.append(
                Problem(
                    f"{folder}/img", f"two pictures of the number {named(twice)}; move one away"
                )
            )
        lacking = sorted(set(range(min(found), max(found) + 1)) - found.keys())
        if lacking:
            problems.append(Problem(f"{folder}/img", f"no picture {named(lacking)}"))
    return found
