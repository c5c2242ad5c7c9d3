"""Frames in and out: a video file or a folder of pictures, read one by one; MP4 or WebM written.

Files are read by OpenCV's FFmpeg, turned as their metadata say, as players show them. Pictures are
read as everywhere else in the project (`shards.pixels`): one that asks to be turned is refused, as
a box could be meant before or after. Only files on disk are opened, never an address or a pattern.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from shards.errors import SiamstreamError
from shards.pixels import Picture, decode

__all__ = [
    "CODECS",
    "DEFAULT_FPS",
    "MAX_FPS",
    "Clip",
    "VideoError",
    "VideoWriter",
    "check_output",
    "natural_key",
    "open_clip",
]

DEFAULT_FPS = 30.0  # of folders, and of files that tell no sensible figure
MAX_FPS = 240.0
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}
# The wheels of OpenCV have no encoder for H.264. MPEG-4 part 2 plays in desktop players and costs
# 3 ms a frame of 1280x720; VP9 plays in browsers too, and costs sixty times as much.
CODECS = {".mp4": "mp4v", ".webm": "VP90"}
SHORT = 0.01  # share of the frames that a container may promise too many


class VideoError(SiamstreamError):
    """A video, or a picture of it, cannot be read or written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video that can be read; iterate to get its frames, (H,W,3) uint8 RGB, all of one size.

    Iterating raises VideoError at a picture that cannot be decoded, at a frame of another size,
    and where a file ends long before its container says; frames before that are good.

    Parameters
    ----------
    path : of the file or folder
    pictures : of a folder, in order; empty for a file
    count : frames, of a file as its container says; None if that says nothing
    fps : frames a second; None if unknown
    notes : what a user should know
    """

    path: Path
    pictures: tuple[Path, ...]
    count: int | None
    fps: float | None
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Picture]:
        source = _pictures(self.pictures) if self.pictures else _file_frames(self)
        size: tuple[int, ...] | None = None
        for number, frame in enumerate(source, 1):
            if size is not None and frame.shape != size:
                picture = f", {self.pictures[number - 1].name}" if self.pictures else ""
                raise VideoError(
                    f"{self.path}: frame {number:,}{picture} has {frame.shape[1]}x{frame.shape[0]} "
                    f"pixels, those before it {size[1]}x{size[0]}; cut the video there"
                )
            size = frame.shape
            yield frame


def open_clip(path: Path) -> Clip:
    """Look at a video file or a folder of pictures.

    Parameters
    ----------
    path : file that FFmpeg reads, or folder; pictures are sorted by the numbers in their names

    Raises
    ------
    VideoError : if it is missing, cannot be opened, has no frame, or is a folder without pictures
        or with pictures of several kinds
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such video file or folder of pictures")
    if path.suffix.lower() in PICTURES:
        raise VideoError(f"{path}: one picture is no video; give its folder, {path.parent}")
    capture = _capture(path)
    try:
        if not capture.grab():
            raise VideoError(f"{path}: a video without a frame that can be decoded")
        count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    sensible = math.isfinite(fps) and 0 < fps <= MAX_FPS
    note = f"{path} says {fps:g} frames a second, which no player shows; {DEFAULT_FPS:g} taken"
    return Clip(
        path=path,
        pictures=(),
        count=int(count) if math.isfinite(count) and count > 0 else None,
        fps=fps if sensible else None,
        notes=() if sensible else (note,),
    )


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorting key by the numbers in a name: ``1.jpg``, ``2.jpg``, ``10.jpg``."""
    parts = re.split(r"([0-9]+)", name.lower())
    # texts and numbers take turns, so that like is compared with like
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


def _open_folder(path: Path) -> Clip:
    """Pictures of a folder; hidden files and those of other kinds are left out."""
    files = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    if not pictures:
        inner = sorted(
            {p.parent for p in path.glob("*/*") if p.suffix.lower() in PICTURES and p.is_file()}
        )
        hint = f"; {inner[0]} has some" if inner else f" ({', '.join(PICTURES)})"
        raise VideoError(f"{path}: a folder without pictures{hint}")
    kinds = [_SAME.get(p.suffix.lower(), p.suffix.lower()) for p in pictures]
    if len(set(kinds)) > 1:
        counts = " and ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        raise VideoError(
            f"{path}: {counts} in one folder, and no telling which are the frames; "
            f"leave one kind in it"
        )
    others = len(files) - len(pictures)
    ordered = sorted(pictures, key=lambda p: natural_key(p.name))
    note = f"{path}: {others} files that are no pictures are left out"
    return Clip(
        path=path,
        pictures=tuple(ordered),
        count=len(ordered),
        fps=None,
        notes=(note,) if others else (),
    )


def _pictures(paths: tuple[Path, ...]) -> Iterator[Picture]:
    for path in paths:
        try:
            yield decode(path.read_bytes())
        except ValueError as error:
            raise VideoError(f"{path}: {error}") from error
        except OSError as error:
            raise VideoError(f"{path}: {error.strerror or error}") from error


def _file_frames(clip: Clip) -> Iterator[Picture]:
    """Frames of a video file."""
    capture = _capture(clip.path)
    read, shown_ms = 0, 0.0
    try:
        while True:
            shown_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            good, frame = capture.read()
            if not good:
                break
            read += 1
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    # Of frames at uneven times a container may promise more, but then they reach the end in time.
    if clip.count is None or clip.count - read <= max(2, SHORT * clip.count):
        return
    if clip.fps is not None:
        end_s = clip.count / clip.fps
        if shown_ms / 1000 >= (1 - SHORT) * end_s - 3 / clip.fps:
            return
    raise VideoError(
        f"{clip.path}: ends after frame {read:,} of {clip.count:,}; it is cut off or damaged"
    )


def _capture(path: Path) -> Any:
    """Open a file with FFmpeg, silently: what is wrong is said once, by us."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise VideoError(
            f"{path}: not a video that can be opened: another kind of file, cut off, or in a codec "
            "that this OpenCV does not have; a folder of its frames as pictures would do"
        )
    return capture


def check_output(path: Path) -> None:
    """Refuse a name that no video can be written to, before any work is done."""
    if path.suffix.lower() not in CODECS:
        raise VideoError(
            f"{path}: the name of a video to write must end in .mp4 or .webm (slower; for browsers)"
        )
    if path.is_dir():
        raise VideoError(f"{path}: a folder has that name")
    if not path.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {path.parent}; make it first")


class VideoWriter:
    """Writes frames to a temporary name; `commit` gives the video its own, `close` drops it.

    A frame of odd width or height is repeated at its right or lower edge by one pixel: both codecs
    halve the resolution of colour.

    Parameters
    ----------
    path : ``.mp4`` (MPEG-4 part 2) or ``.webm`` (VP9)
    frame_hw : height and width of the frames
    fps : frames a second
    """

    def __init__(self, path: Path, frame_hw: tuple[int, int], fps: float) -> None:
        check_output(path)
        self._path, self._fps = path, fps
        self._odd = (frame_hw[0] % 2, frame_hw[1] % 2)
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix.lower()}")
        size = (frame_hw[1] + self._odd[1], frame_hw[0] + self._odd[0])
        code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self._writer = cv2.VideoWriter(str(self._partial), cv2.CAP_FFMPEG, code, fps, size)
        self._written = 0
        if not self._writer.isOpened():
            self.close()
            raise VideoError(
                f"{path}: cannot be written: no right to it, or this OpenCV has no encoder for "
                f"{size[0]}x{size[1]} pixels at {fps:g} frames a second"
            )

    def write(self, frame: Picture) -> None:
        """Append a frame (H,W,3) uint8 RGB."""
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if any(self._odd):
            bottom, right = self._odd
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(bgr)
        self._written += 1

    def commit(self) -> None:
        """Finish the file, look whether it is whole, and give it its name.

        Raises
        ------
        VideoError : if it is not whole (OpenCV does not tell of a full disk)
        """
        self._writer.release()
        try:
            found = open_clip(self._partial).count
        except VideoError:
            found = 0
        if found is None or abs(found - self._written) > max(1, SHORT * self._written):
            self.close()
            raise VideoError(
                f"{self._path}: {self._written:,} frames were written and {found or 0:,} are in "
                "the file; is the disk full?"
            )
        self._partial.replace(self._path)

    def close(self) -> None:
        """Remove the temporary file, if it is still there."""
        self._writer.release()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
