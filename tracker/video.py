"""Frames in and out: a video file or a folder of pictures, read one by one; MP4 written.

Files are read by FFmpeg, turned as their metadata say, as players show them. (PyAV's: OpenCV's
stretches frames to the size of the first one and passes over damage, and has no encoder for H.264.)
Pictures are read as everywhere else in the project (`shards.pixels`): one that asks to be turned is
refused, as a box could be meant before or after. Only files on disk are opened, never an address or
a pattern.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np

from shards.errors import SiamstreamError
from shards.pixels import Picture, decode

__all__ = [
    "DEFAULT_FPS",
    "MAX_FPS",
    "MIN_FPS",
    "Clip",
    "VideoError",
    "VideoWriter",
    "check_output",
    "natural_key",
    "open_clip",
]

DEFAULT_FPS = 30.0  # of folders, and of files that tell no sensible figure
MIN_FPS, MAX_FPS = 0.1, 240.0
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}
SHORT = 0.01  # share by which a container may promise too much
NAMES = (".mp4", ".m4v", ".mov")


class VideoError(SiamstreamError):
    """A video, or a picture of it, cannot be read or written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video that can be read; iterate to get its frames, (H,W,3) uint8 RGB, all of one size.

    Iterating raises VideoError at a picture or frame that is damaged or of another size, and where
    a file ends long before its container says; the frames before that are good.

    Parameters
    ----------
    path : of the file or folder
    pictures : of a folder, in order; empty for a file
    count : frames, of a file about as many as its container says; None if that says nothing
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
    with _opened(path) as container:
        stream = container.streams.video[0]
        try:
            next(container.decode(stream))
        except StopIteration:
            raise VideoError(f"{path}: a video without frames") from None
        except av.FFmpegError as error:
            raise VideoError(f"{path}: not one frame can be decoded: {_said(error)}") from error
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        length_s = _length_s(container)
    sensible = math.isfinite(rate) and MIN_FPS <= rate <= MAX_FPS
    told = stream.frames or (round(length_s * rate) if length_s and sensible else 0)
    note = f"{path} says {rate:g} frames a second, which no player shows; {DEFAULT_FPS:g} taken"
    return Clip(
        path=path,
        pictures=(),
        count=told or None,
        fps=rate if sensible else None,
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
    path, read, end_s = clip.path, 0, 0.0
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except av.FFmpegError as error:
                raise VideoError(f"{path}: damaged after frame {read:,}: {_said(error)}") from error
            if frame is None:
                break
            if frame.is_corrupt:
                raise VideoError(f"{path}: frame {read + 1:,} is damaged")
            read += 1
            end_s = max(end_s, frame.time or 0.0)
            yield _upright(frame, path)
        _check_end(container, path, read, end_s)


def _check_end(container: Any, path: Path, read: int, end_s: float) -> None:
    """Compare the frames that there were with what the container promises.

    The number of frames is not compared in MP4: there it has those that an edit list leaves out.
    """
    stream, length_s = container.streams.video[0], _length_s(container)
    told = 0 if "mp4" in container.format.name else stream.frames
    rate = float(stream.average_rate or 0) or DEFAULT_FPS
    early = length_s is not None and end_s + 3 / rate < (1 - SHORT) * length_s
    if early or read + 2 < (1 - SHORT) * told:
        whole = f"{told:,}" if told else f"about {round((length_s or 0) * rate):,}"
        raise VideoError(f"{path}: ends after frame {read:,} of {whole}; it is cut off or damaged")


def _length_s(container: Any) -> float | None:
    """End of the pictures, seconds, as the container says; None if it does not."""
    stream = container.streams.video[0]
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if container.duration is None or len(container.streams) > 1:  # sound may be longer
        return None
    return float(Fraction(container.duration, av.time_base))


def _upright(frame: Any, path: Path) -> Picture:
    """Pixels of a frame, turned as its metadata say."""
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise VideoError(
            f"{path}: to be turned by {frame.rotation} degrees; only quarters are done"
        )
    pixels: Picture = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _opened(path: Path) -> Any:
    """Container with a video stream."""
    try:
        # A playlist is a file, too; what it names elsewhere is not fetched.
        container = av.open(
            str(path.resolve()), metadata_errors="replace", options={"protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: not a video that can be opened ({_said(error)}): another kind of file, or "
            "cut off; a folder of its frames as pictures would do"
        ) from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path}: has no pictures in it, only {container.format.long_name}")
    return container


def _said(error: Exception) -> str:
    """Text of an error of FFmpeg, without its number."""
    return str(getattr(error, "strerror", None) or error).lower()


def check_output(path: Path) -> None:
    """Refuse a name that no video can be written to, before any work is done."""
    if path.suffix.lower() not in NAMES:
        raise VideoError(f"{path}: the name of a video to write must end in {', '.join(NAMES)}")
    if path.is_dir():
        raise VideoError(f"{path}: a folder has that name")
    if not path.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {path.parent}; make it first")


class VideoWriter:
    """Writes H.264 to a temporary name; `commit` gives the video its own, `close` drops it.

    A frame of odd width or height gets its last column or row once more: H.264 as all players read
    it halves the resolution of colour.

    Parameters
    ----------
    path : ``.mp4`` or another of `NAMES`
    frame_hw : height and width of the frames
    fps : frames a second
    """

    def __init__(self, path: Path, frame_hw: tuple[int, int], fps: float) -> None:
        check_output(path)
        self._path, self._written = path, 0
        self._odd = (frame_hw[0] % 2, frame_hw[1] % 2)
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix.lower()}")
        try:
            self._file = av.open(str(self._partial), "w", options={"movflags": "faststart"})
            rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 and the like
            self._stream: Any = self._file.add_stream("libx264", rate=rate)
            self._stream.height = frame_hw[0] + self._odd[0]
            self._stream.width = frame_hw[1] + self._odd[1]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"preset": "veryfast", "crf": "18"}
        except (av.FFmpegError, OSError) as error:
            self._partial.unlink(missing_ok=True)
            raise self._failed(error) from error

    def write(self, frame: Picture) -> None:
        """Append a frame (H,W,3) uint8 RGB; raises VideoError where that fails."""
        if any(self._odd):
            bottom, right = self._odd
            frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        try:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            self._file.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        self._written += 1

    def commit(self) -> None:
        """Finish the file, look whether it is whole, and give it its name.

        Raises
        ------
        VideoError : if it cannot be finished
        """
        try:
            self._file.mux(self._stream.encode())
            self._file.close()
            found = open_clip(self._partial).count
            if found != self._written:
                raise OSError(f"{found} of {self._written} frames are in the file")
            self._partial.replace(self._path)
        except (av.FFmpegError, OSError, VideoError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> VideoError:
        return VideoError(f"{self._path}: cannot be written: {_said(error)}")

    def close(self) -> None:
        """Remove the temporary file, if it is still there."""
        with suppress(av.FFmpegError, OSError):  # a failure that ended the work was told already
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
