"""TrackingNet: 30,132 training videos of YouTube-BoundingBoxes (Mueller et al., ECCV 2018).

Source: https://tracking-net.org; code and files list: github.com/SilvioGiancola/TrackingNet-devkit.
For academic research; the videos are YouTube's.

Layout: ``TRAIN_<k>/{anno/<id>.txt, frames/<id>/0.jpg 1.jpg ..., zips/<id>.zip}``, k from 0 to 11,
2,511 videos each, and ``TEST/`` with 511 videos of which only the first box is public. Downloads
come as one zip a video; those are read in place where ``frames/<id>`` is not there. Frames count
from 0 without leading zeros, so 10.jpg comes after 9.jpg. An id is that of YouTube with ``_<n>``
and may begin with ``-``.

Boxes: ``x,y,w,h`` a line in pixels with decimals, one a frame, exclusive width: x1 = x + w. A
tracker filled in between human boxes of one a second; they may leave the picture. There are no
flags of visibility. The frame rate is that of the YouTube video and published nowhere.

Classes come in files of their own, see `shards.classinfo`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from packer.sequence import Found, Problem, Sequence, Split, Survey, named
from packer.source import Entry, RefusedLink, Source
from packer.video import Flags, assemble, entries_of, read_boxes, read_pictures
from shards.classinfo import UNKNOWN, files, is_class_file, merge, parse
from shards.errors import DataError
from shards.relabel import NO_CLASSES

__all__ = ["CHUNKS", "TrackingNet"]

CHUNKS = 12
PER_CHUNK = 2511
TEST_VIDEOS = 511
SHOWN_CLASSES = 10
DEEPEST = 3  # folders in an archive around its pictures

_CHUNK = re.compile(r"(?P<name>TRAIN_(?P<number>\d+)|TEST)(\.zip)?")
_OFFICIAL_FILE = re.compile(r"(?:.*/)?TRAIN_(\d+)_classinfo\.txt")
_PICTURE = re.compile(r"(\d{1,9})\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingNet:
    """TrackingNet with its options; fits `packer.sequence.DataSet`.

    Attributes
    ----------
    chunks : which TRAIN_<k>; None: all that are on disk
    class_info : file or folder of the classes; None: the root
    require_classes : a video without class is an error
    """

    NAME: ClassVar[str] = "trackingnet"
    LAYOUT: ClassVar[str] = (
        "<root>/TRAIN_<k>/ with anno/<id>.txt and frames/<id>/0.jpg or zips/<id>.zip"
    )
    STRIDE: ClassVar[int] = 10
    MIN_SIZE: ClassVar[int] = 10
    MIN_EXCLUSIVE: ClassVar[bool] = True
    SPLITS: ClassVar[tuple[Split, ...]] = ("train", "test")

    chunks: tuple[int, ...] | None = None
    class_info: Path | None = None
    require_classes: bool = False

    def __post_init__(self) -> None:
        if self.chunks is None:
            return
        wrong = [one for one in self.chunks if not 0 <= one < CHUNKS]
        if wrong or not self.chunks:
            raise ValueError(f"chunks are numbers from 0 to {CHUNKS - 1}, got {list(self.chunks)}")
        object.__setattr__(self, "chunks", tuple(sorted(set(self.chunks))))

    def options(self) -> dict[str, Any]:
        """Options that change what is packed; classes are part of the input's fingerprint."""
        return {"chunks": None if self.chunks is None else list(self.chunks)}

    def survey(self, source: Source, split: Split) -> Survey:
        """List the videos of a split that are on disk.

        Raises
        ------
        DataError : if there is none, class info is malformed, or a required class is not there
        """
        base, everything = _discover(source)
        if not everything:
            raise DataError(f"no folder TRAIN_<k> or TEST found; expected {self.LAYOUT}")
        chunks = self._chosen(everything, split)
        problems: list[Problem] = []
        videos: dict[str, _Video] = {}
        notes: list[str] = []
        lacking: list[str] = []
        for chunk in chunks:
            own = _videos(source, chunk, problems)
            for name, video in own.items():
                if name in videos:
                    what = f"{name} is there twice, also in {videos[name].chunk.name}"
                    problems.append(Problem(video.pictures_at, what))
                elif video.pictures_at:
                    videos[name] = video
                else:
                    lacking.append(name)
        info = self._class_files(source, base)
        classes = merge(info)
        notes += _chunk_notes(chunks, self.chunks, videos, split)
        notes += self._class_notes(videos, classes, bool(info), split)
        missing = dict.fromkeys([*lacking, *_official(info, chunks)])
        return Survey(
            found=tuple(
                Found(
                    name=name,
                    category=classes.get(name, UNKNOWN),
                    number=max(video.chunk.number, 0),
                    folder=video.pictures_at,
                    path=f"{video.chunk.name}/frames/{name}",
                )
                for name, video in sorted(videos.items(), key=_order)
            ),
            missing=tuple(name for name in missing if name not in videos),
            notes=tuple(notes),
            problems=tuple(problems),
        )

    def _chosen(self, everything: list[_Chunk], split: Split) -> list[_Chunk]:
        """Chunks of a split."""
        if split not in self.SPLITS:
            raise DataError(f"--split {split}: TrackingNet has {' and '.join(self.SPLITS)} only")
        if self.chunks is not None and split == "test":
            raise DataError("--chunks choose among TRAIN_<k>; leave them out for --split test")
        chosen = [
            one
            for one in everything
            if (one.number < 0) == (split == "test")
            and (self.chunks is None or one.number in self.chunks)
        ]
        if not chosen:
            asked = f"--split {split}"
            if self.chunks is not None:
                asked = f"--chunks {','.join(map(str, self.chunks))}"
            held = ", ".join(one.name for one in everything)
            raise DataError(f"nothing of {asked} is on disk; there are: {held}")
        return chosen

    def _class_files(self, source: Source, base: str) -> list[tuple[str, bytes]]:
        """Files of class info: those asked for, or those in the root and in the chunks' folder."""
        if self.class_info is not None:
            return files(self.class_info)
        paths = [
            f"{folder}/{name}" if folder else name
            for folder in dict.fromkeys(("", base))
            for name, is_folder in source.list(folder)
            if not is_folder and is_class_file(name)
        ]
        return [(path, source.read(path)) for path in paths]

    def _class_notes(
        self, videos: Mapping[str, _Video], classes: Mapping[str, str], there: bool, split: Split
    ) -> list[str]:
        """What is not known about classes; an error if all have to be."""
        unknown = sorted(name for name in videos if classes.get(name, UNKNOWN) == UNKNOWN)
        if unknown and self.require_classes:
            where = "in the class info" if there else "as there is no class info at all"
            raise DataError(
                f"{len(unknown):,} of {len(videos):,} videos have no class {where}: "
                f"{named(unknown, SHOWN_CLASSES)}; give --class-info DIR or FILE, or leave out "
                "--require-classes"
            )
        if not there:
            return [
                f"{NO_CLASSES}: the category of all videos is {UNKNOWN!r}; give --class-info, or "
                "add classes later with 'python -m shards relabel'"
            ]
        notes = []
        unlisted = [name for name in unknown if name not in classes]
        listed = len(unknown) - len(unlisted)
        if unlisted and split != "test":
            notes.append(
                f"{len(unlisted):,} videos are not in the class info, category {UNKNOWN!r}: "
                f"{named(unlisted)}"
            )
        if listed:
            notes.append(f"{listed:,} videos have no class in the class info: {UNKNOWN!r}")
        return notes

    def read(self, source: Source, found: Found) -> Sequence:
        """Read one video: its boxes and the names of its pictures."""
        problems: list[Problem] = []
        folder, pictures = _pictures(source, found, problems)
        chunk = found.folder.rsplit("/", 2)[0]
        boxes = read_boxes(source, f"{chunk}/anno/{found.name}.txt", True, problems)
        return assemble(
            found,
            category=found.category,
            fps=None,
            first=0,
            pictures_at=folder,
            source_at=found.path,
            pictures=pictures,
            boxes=boxes,
            flags=Flags.none(len(boxes.xywh)),
            problems=problems,
        )


class _Chunk(NamedTuple):
    """A folder TRAIN_<k>, or TEST, whose number is -1."""

    number: int
    name: str
    folder: str


class _Video(NamedTuple):
    """Where a video's pictures are; empty if only its boxes are on disk."""

    chunk: _Chunk
    pictures_at: str


def _order(item: tuple[str, _Video]) -> tuple[int, str]:
    return item[1].chunk.number, item[0]


def _discover(source: Source) -> tuple[str, list[_Chunk]]:
    """Folder that holds the chunks, the root or one in it, and the chunks in order."""
    top = source.list("")
    chunks = _chunks(source, "", top)
    if chunks:
        return "", chunks
    refused: RefusedLink | None = None
    for entry in top:
        if entry.is_folder or entry.is_archive:
            try:
                inner = source.list(entry.name)
            except RefusedLink as error:  # matters only if the chunks are nowhere else
                refused = error
                continue
            chunks = _chunks(source, entry.name, inner)
            if chunks:
                return entry.name, chunks
    if refused is not None:
        raise refused
    return "", []


def _chunks(source: Source, base: str, entries: list[Entry]) -> list[_Chunk]:
    """Chunks among the names of a folder; an archive of a chunk may hold a folder of its name."""
    found: dict[int, _Chunk] = {}
    for entry in entries:
        match = _CHUNK.fullmatch(entry.name)
        if match is None or not (entry.is_folder or entry.is_archive):
            continue
        folder = f"{base}/{entry.name}" if base else entry.name
        if entry.is_archive and not entry.is_folder:
            inner = {one.name for one in source.list(folder)}
            folder += f"/{match['name']}" if match["name"] in inner else ""
        number = -1 if match["number"] is None else int(match["number"])
        found.setdefault(number, _Chunk(number, match["name"], folder))  # TRAIN_0, then .zip
    return [found[number] for number in sorted(found)]


def _videos(source: Source, chunk: _Chunk, problems: list[Problem]) -> dict[str, _Video]:
    """Videos of a chunk by name: all with pictures or boxes; extracted pictures before archives."""
    parts = entries_of(source, chunk.folder, problems)
    videos: dict[str, _Video] = {}
    if "anno" in parts:
        for name in entries_of(source, f"{chunk.folder}/anno", problems):
            if name.endswith(".txt"):
                videos[name.removesuffix(".txt")] = _Video(chunk, "")
    for part in ("zips", "frames"):
        if part not in parts:
            continue
        folder = f"{chunk.folder}/{part}"
        for name, entry in entries_of(source, folder, problems).items():
            if part == "frames" and entry.is_folder:
                videos[name] = _Video(chunk, f"{folder}/{name}")
            elif part == "zips" and entry.is_archive:
                videos[name.rpartition(".")[0]] = _Video(chunk, f"{folder}/{name}")
    return videos


def _pictures(source: Source, found: Found, problems: list[Problem]) -> tuple[str, dict[int, str]]:
    """Folder and names of a video's pictures; an archive may hold them in folders of their own."""
    folder, pictures = found.folder, {}
    for _ in range(DEEPEST):
        entries = entries_of(source, folder, problems)
        pictures = read_pictures(entries, folder, _PICTURE, 0, problems)
        inner = [entry.name for entry in entries.values() if entry.is_folder]
        if pictures or len(inner) != 1:
            break
        folder = f"{folder}/{inner[0]}"
    if not pictures and not problems:
        problems.append(Problem(found.folder, "no pictures; they are named 0.jpg, 1.jpg and so on"))
    return folder, pictures


def _official(info: list[tuple[str, bytes]], chunks: list[_Chunk]) -> list[str]:
    """Names that the files TRAIN_<k>_classinfo.txt list for the chunks."""
    numbers = {chunk.number for chunk in chunks}
    names: list[str] = []
    for path, data in info:
        match = _OFFICIAL_FILE.fullmatch(path)
        if match is not None and int(match[1]) in numbers:
            names.extend(parse(data, path))
    return names


def _chunk_notes(
    chunks: list[_Chunk],
    asked: tuple[int, ...] | None,
    videos: Mapping[str, _Video],
    split: Split,
) -> list[str]:
    """How much of the data set is there."""
    counts = Counter(video.chunk.name for video in videos.values())
    partial = [
        f"{chunk.name} {counts[chunk.name]:,}"
        for chunk in chunks
        if counts[chunk.name] != (TEST_VIDEOS if chunk.number < 0 else PER_CHUNK)
    ]
    notes = []
    if partial:
        whole = TEST_VIDEOS if split == "test" else PER_CHUNK
        notes.append(f"of officially {whole:,} videos each, on disk are: {', '.join(partial)}")
    wanted = range(CHUNKS) if asked is None else asked
    absent = sorted(set(wanted) - {chunk.number for chunk in chunks})
    if absent and split != "test":
        notes.append(f"not on disk: {', '.join(f'TRAIN_{number}' for number in absent)}")
    return notes
