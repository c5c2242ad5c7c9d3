"""Raw test data as sequences to follow: OTB, LaSOT, GOT-10k and TrackingNet.

The folders are those that `packer` reads, extracted; OTB is read by `tracker.otb`. Missing
sequences are normal and noted; what is malformed is found before anything runs and listed together.
Ground truth that is longer or shorter than the video is cut to the shorter of both, and noted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from packer.datasets import lasot
from packer.datasets.got10k import COVER_LEVELS, Got10k, parse_meta
from packer.datasets.trackingnet import TrackingNet
from packer.sequence import REASONS, DataSet, Found, Problem, Sequence, Split, Survey, named
from packer.source import FolderSource
from shards.errors import DataError
from shards.pixels import header
from tracker import otb

__all__ = [
    "DATASETS",
    "SPLITS",
    "Convention",
    "Dataset",
    "Sequences",
    "VideoSequence",
    "read_sequences",
]

Dataset = Literal["otb", "lasot", "got10k", "trackingnet"]
Convention = Literal["got10k", "pysot", "reference"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
# The first is the default.
SPLITS: dict[Dataset, tuple[str, ...]] = {
    "otb": (*otb.SPLITS, "all"),
    "lasot": ("test", "train", "all"),
    "got10k": ("val", "test", "train", "all"),
    "trackingnet": ("test", "train", "all"),
}
SHOWN_PROBLEMS = 50
_COUNTS = re.compile(r"\d+ (pictures|lines), \d+ |1 line for \d+ pictures")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_NO_LABEL = REASONS.index("no_label")
_PACKED: dict[str, DataSet] = {
    "lasot": lasot,
    "got10k": Got10k(keep_known_bad=True),
    "trackingnet": TrackingNet(),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoSequence:
    """One object in one video, to be followed from its box in the first frame.

    Parameters
    ----------
    name : as in the data set; names the result file
    frames : pictures, in order
    boxes : (N,4) float64 xyxy, frame pixels counted from 0 (edge coordinates), one a frame; sizes
        of zero or less and NaN are kept as published, NaN after the first where only that is public
    absent : (N,) bool, flagged as fully occluded or out of view
    cover : (N,) int8, visible eighths (GOT-10k); None: not annotated
    frame_size : width and height in pixels, where the data set says it (GOT-10k)
    origin : number of the first pixel in published boxes and result files: 1 for OTB, else 0
    scored : the ground truth of all frames is there
    """

    name: str
    frames: tuple[Path, ...]
    boxes: npt.NDArray[np.float64]
    absent: npt.NDArray[np.bool_]
    cover: npt.NDArray[np.int8] | None = None
    frame_size: tuple[int, int] | None = None
    origin: int = 0
    scored: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """Sequences of a split, by name, and what is not there."""

    dataset: Dataset
    split: str
    sequences: tuple[VideoSequence, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[VideoSequence]:
        return iter(self.sequences)

    def __len__(self) -> int:
        return len(self.sequences)


def read_sequences(
    dataset: Dataset,
    root: Path,
    split: str | None = None,
    convention: Convention = "got10k",
) -> Sequences:
    """Read what is on disk of a data set; no pixels.

    Parameters
    ----------
    dataset : which
    root : its folder
    split : one of `SPLITS`; None: the first of them
    convention : whose; only decides whether OTB's Tiger1 starts at picture 1 (got10k toolkit) or 6

    Raises
    ------
    DataError : if there is no such folder, none of the split in it, or something malformed
    """
    split = split or SPLITS[dataset][0]
    if split not in SPLITS[dataset]:
        raise DataError(f"--split {split}: {dataset} has {', '.join(SPLITS[dataset])}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {_layout(dataset)}")
    source = FolderSource(root)
    if dataset == "otb":
        found, notes, problems = _read_otb(source, split, convention)
    else:
        found, notes, problems = _read_packed(source, dataset, split)
    problems += _twice(found)
    for one in found:
        problems += (*_name_faults(one), *_first_faults(one), *_links_out(root, one))
    if problems:
        lines = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            lines.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
        raise DataError("\n".join([f"{root}: malformed, mend or move away:", *lines]))
    if not found:
        raise DataError(
            f"{root}: no sequence of {dataset} {split} is there; expected {_layout(dataset)}"
        )
    found.sort(key=lambda sequence: sequence.name)
    return Sequences(dataset=dataset, split=split, sequences=tuple(found), notes=tuple(notes))


_Read = tuple[list[VideoSequence], list[str], list[Problem]]


def _read_otb(source: FolderSource, split: str, convention: Convention) -> _Read:
    videos, notes = otb.read_videos(source, split, late_start=convention != "got10k")
    found, problems = [], []
    for video in videos:
        problems += video.problems
        notes += video.notes
        if video.problems:
            continue
        count = min(len(video.pictures), len(video.xywh))
        _note_cut(video.name, len(video.pictures), len(video.xywh), notes)
        found.append(
            VideoSequence(
                name=video.name,
                frames=tuple(source.root / path for path in video.pictures[:count]),
                boxes=_xyxy(video.xywh[:count] - [otb.ORIGIN, otb.ORIGIN, 0, 0]),
                absent=np.zeros(count, bool),
                origin=otb.ORIGIN,
            )
        )
    return found, notes, problems


def _read_packed(source: FolderSource, dataset: Dataset, split: str) -> _Read:
    """Sequences of a data set that `packer` knows."""
    found: list[VideoSequence] = []
    notes: list[str] = []
    problems: list[Problem] = []
    without: dict[str, list[str]] = {}
    for part, survey in _surveys(source, dataset, split):
        notes += [note for note in survey.notes if "class" not in note]
        problems += survey.problems
        if survey.missing:
            notes.append(
                f"{len(survey.missing):,} official sequences of {dataset} {part} are not on disk: "
                f"{named(survey.missing)}"
            )
        for one in survey.found:
            if not (source.root / one.folder).is_dir():
                problems.append(Problem(one.folder, "is in an archive; unpack it to evaluate"))
                continue
            raw = _PACKED[dataset].read(source, one)
            first_only = dataset != "lasot" and part == "test"  # other boxes are not public
            count, wrong = _usable(one, raw, first_only)
            if wrong:
                problems += wrong
                continue
            lines = int((raw.fault != _NO_LABEL).sum())
            if not first_only:
                _note_cut(one.name, sum(map(bool, raw.pictures)), lines, notes)
                for note in _label_notes(dataset, raw):
                    without.setdefault(note, []).append(one.name)
            found.append(_sequence(source, dataset, one, raw, count, first_only))
    for note, names in without.items():
        notes.append(f"{note}: {len(names):,} sequences, {named(names)}")
    return found, notes, problems


def _label_notes(dataset: Dataset, raw: Sequence) -> list[str]:
    """What is counted otherwise because a file of labels is missing."""
    notes = [note for note in raw.notes if note.endswith("taken as visible")]
    if dataset == "got10k" and raw.visible is None:
        notes.append("no cover.label: hidden frames count, which the toolkit leaves out")
    return notes


def _usable(found: Found, raw: Sequence, first_only: bool) -> tuple[int, list[Problem]]:
    """How many frames have a picture and a box, or what is wrong with the sequence.

    That there are more pictures than lines, or fewer, is nothing wrong; a gap is.
    """
    wrong = [one for one in raw.problems if not _COUNTS.match(one.what)]
    pictured = np.array([bool(name) for name in raw.pictures], bool)
    both = pictured if first_only else pictured & (raw.fault != _NO_LABEL)
    count = int(both.sum())
    if not count or not both[:count].all():
        wrong = wrong or list(raw.problems) or [Problem(found.folder, "no frames with boxes")]
    return count, wrong


def _sequence(
    source: FolderSource,
    dataset: Dataset,
    found: Found,
    raw: Sequence,
    count: int,
    first_only: bool,
) -> VideoSequence:
    """Sequence of the first `count` frames; with `first_only` the other boxes are NaN."""
    xywh = raw.xywh[:count].copy()
    if first_only:
        xywh[1:] = np.nan
    cover = None
    if dataset == "got10k" and raw.visible is not None:
        cover = np.rint(raw.visible[:count] * COVER_LEVELS).astype(np.int8)
    folder = source.root / raw.pictures_at
    frames = tuple(folder / name for name in raw.pictures[:count])
    return VideoSequence(
        name=raw.name,
        frames=frames,
        boxes=_xyxy(xywh),
        absent=raw.absent[:count],
        cover=cover,
        frame_size=_frame_size(source, found, frames[0]) if dataset == "got10k" else None,
        scored=not first_only,
    )


def _frame_size(source: FolderSource, found: Found, first: Path) -> tuple[int, int]:
    """Width and height as the annotations say, else those of the first picture."""
    if (source.root / found.folder / "meta_info.ini").is_file():
        meta = parse_meta(source.read(f"{found.folder}/meta_info.ini"))
        size = re.fullmatch(r"\((\d+), *(\d+)\)", meta.get("resolution", ""))
        if size is not None:
            return int(size[1]), int(size[2])
    try:
        shape = header(first.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{first}: its size cannot be read: {error}") from error
    return shape.width, shape.height


def _surveys(source: FolderSource, dataset: Dataset, split: str) -> list[tuple[str, Survey]]:
    """Surveys of the parts of a split that are there."""
    kind = _PACKED[dataset]
    if split != "all" or dataset == "lasot":
        try:
            return [(split, kind.survey(source, _as_split(split)))]
        except DataError as error:
            raise DataError(f"{source.root}: {error}") from error
    surveys, failures = [], []
    for part in SPLITS[dataset]:
        if part != "all":
            try:
                surveys.append((part, kind.survey(source, _as_split(part))))
            except DataError as error:
                failures.append(str(error))
    if not surveys:
        raise DataError(f"{source.root}: {failures[0]}")
    return surveys


def _as_split(name: str) -> Split:
    splits: tuple[Split, ...] = get_args(Split)
    return next(split for split in splits if split == name)


def _layout(dataset: Dataset) -> str:
    return otb.LAYOUT if dataset == "otb" else _PACKED[dataset].LAYOUT


def _note_cut(name: str, pictures: int, lines: int, notes: list[str]) -> None:
    if pictures != lines:
        notes.append(
            f"{name}: {pictures} pictures, {lines} lines of ground truth, cut to the shorter"
        )


def _xyxy(xywh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _twice(found: list[VideoSequence]) -> list[Problem]:
    """Sequences of one name in two places: they would share a result file."""
    first: dict[str, Path] = {}
    problems = []
    for one in found:
        folder = one.frames[0].parent
        if one.name in first:
            other = first[one.name]
            problems.append(Problem(f"{folder}", f"has the name of {other}; evaluate one split"))
        first.setdefault(one.name, folder)
    return problems


def _name_faults(sequence: VideoSequence) -> list[Problem]:
    """Why no result file can be named after a sequence, if so."""
    if _NAME.fullmatch(sequence.name):
        return []
    what = "rename it: result files are named after it, with letters, digits and _ . - only"
    return [Problem(sequence.name, what)]


def _first_faults(sequence: VideoSequence) -> list[Problem]:
    """Why a tracker cannot start, if it cannot."""
    box = sequence.boxes[0]
    where = f"{sequence.frames[0].parent}: first frame"
    if sequence.absent[0]:
        return [Problem(where, "the object is flagged as absent; a tracker needs its box")]
    if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
        return [Problem(where, f"box {box.tolist()} (x0, y0, x1, y1) has no area")]
    return []


def _links_out(root: Path, sequence: VideoSequence) -> list[Problem]:
    """Pictures that are links out of the root (`FolderSource` has refused such folders)."""
    folder = sequence.frames[0].parent
    wanted = {frame.name for frame in sequence.frames}
    with os.scandir(folder) as entries:
        links = [entry.name for entry in entries if entry.is_symlink() and entry.name in wanted]
    inside = root.resolve()
    return [
        Problem(f"{folder / name}", f"leads out of {root}; links that leave the root are refused")
        for name in sorted(links)
        if not (folder / name).resolve().is_relative_to(inside)
    ]
