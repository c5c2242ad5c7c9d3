"""Follow an object through one video and write what was found: a video, a text file, or both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shards.atomic import replace_text
from shards.geometry import Float
from shards.pixels import Picture
from tracker.follow import Tracker, TrackingError, check_start
from tracker.overlay import draw_box
from tracker.video import DEFAULT_FPS, Clip, VideoError, VideoWriter, check_output

__all__ = ["Tracked", "check_paths", "start_notes", "track"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """What following took.

    Parameters
    ----------
    frames : of the video, the first one included
    width, height : of the frames
    read_s, network_s, draw_s : seconds spent reading; in crops, network and rule; drawing and
        writing the video
    notes : what a user should know
    """

    frames: int
    width: int
    height: int
    read_s: float
    network_s: float
    draw_s: float
    notes: tuple[str, ...]


def track(
    clip: Clip,
    tracker: Tracker,
    box: Float,
    *,
    out: Path | None = None,
    txt: Path | None = None,
    fps: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Tracked:
    """Follow, draw, write. Outputs get their names when they are whole.

    Parameters
    ----------
    clip : of `tracker.video.open_clip`
    tracker : of `tracker.follow.make_tracker`
    box : (4,) xyxy in the first frame, frame pixels
    out : video with box and score drawn; see `VideoWriter`
    txt : one ``x,y,w,h`` a frame, the start box first, three decimals, 0 the outer corner of the
        first pixel
    fps : of `out`; that of the clip if None
    progress : called with the number of frames done
    tell : called with each note as soon as it is known

    Raises
    ------
    TrackingError : if there is nothing to follow in the start box, or the network fails
    VideoError : if a frame cannot be read, after the outputs of the frames before it were written;
        or if an output cannot be written
    """
    reader, outputs = _Reader(clip), _Outputs(out, txt, fps or clip.fps or DEFAULT_FPS)
    notes, network_s = list(clip.notes), 0.0
    with outputs:
        for frame in reader:
            before = time.perf_counter()
            if outputs.frames == 0:
                notes += start_notes(box, frame.shape[:2])
                for note in notes:
                    tell(note)
                tracker.start(frame, box)
                found, label = box, ""
            else:
                found, score = tracker.step(frame)
                label = f"{score:.2f}"
            network_s += time.perf_counter() - before
            outputs.add(frame, found, label)
            progress(outputs.frames)
        outputs.commit()
    if reader.failure is not None:
        raise _kept(reader.failure, outputs)
    height, width = outputs.frame_hw
    return Tracked(
        frames=outputs.frames,
        width=width,
        height=height,
        read_s=reader.read_s,
        network_s=network_s,
        draw_s=outputs.draw_s,
        notes=tuple(notes),
    )


def start_notes(box: Float, frame_hw: tuple[int, int]) -> tuple[str, ...]:
    """Check a start box that a person typed: `check_start`, and no side longer than the frame's.

    Returns
    -------
    a warning if the box leaves the frame, which is allowed

    Raises
    ------
    TrackingError : if it shows nothing, or is larger than the frame
    """
    check_start(box, frame_hw)
    height, width = frame_hw
    x0, y0, x1, y1 = (float(v) for v in box)
    shown = f"start box {x0:g},{y0:g},{x1 - x0:g},{y1 - y0:g}"
    if x1 - x0 > width or y1 - y0 > height:
        raise TrackingError(
            f"{shown} is larger than the frame of {width}x{height} pixels; it reads x,y,w,h: left "
            "and upper edge, then width and height"
        )
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        return (
            f"{shown} leaves the frame of {width}x{height} pixels; it reads x,y,w,h, "
            "width and height last",
        )
    return ()


def check_paths(out: Path | None, txt: Path | None, inputs: Sequence[Path]) -> None:
    """Refuse outputs that could not be written, or that would replace what is read.

    Raises
    ------
    VideoError, TrackingError : saying which
    """
    if out is not None:
        check_output(out)
    if txt is not None and not txt.parent.is_dir():
        raise TrackingError(f"{txt}: there is no folder {txt.parent}; make it first")
    if txt is not None and txt.is_dir():
        raise TrackingError(f"{txt}: a folder has that name")
    given = [*inputs, *([out] if out is not None and txt is not None else [])]
    for path in (out, txt):
        for other in given:
            if path is not None and path is not other and path.resolve() == other.resolve():
                raise TrackingError(f"{path}: would be written over, but it is also {other}")


class _Reader:
    """Frames of a clip up to the first that cannot be read; `failure` says why it stopped there."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.failure: VideoError | None = None
        self.read_s = 0.0

    def __iter__(self) -> Iterator[Picture]:
        frames = iter(self._clip)
        while True:
            before = time.perf_counter()
            try:
                frame = next(frames)
            except StopIteration:
                return
            except VideoError as error:
                self.failure = error
                return
            finally:
                self.read_s += time.perf_counter() - before
            yield frame


class _Outputs:
    """The video and the text of one run; what was not committed is dropped."""

    def __init__(self, out: Path | None, txt: Path | None, fps: float) -> None:
        self._out, self._txt, self._fps = out, txt, fps
        self._writer: VideoWriter | None = None
        self._lines: list[str] = []
        self.frame_hw = (0, 0)
        self.draw_s = 0.0

    @property
    def frames(self) -> int:
        return len(self._lines)

    @property
    def names(self) -> str:
        return " and ".join(str(path) for path in (self._out, self._txt) if path is not None)

    def add(self, frame: Picture, box: Float, label: str) -> None:
        before = time.perf_counter()
        self.frame_hw = frame.shape[0], frame.shape[1]
        self._lines.append(_line(box))
        if self._out is not None:
            if self._writer is None:
                self._writer = VideoWriter(self._out, self.frame_hw, self._fps)
            self._writer.write(draw_box(frame, box, label))
        self.draw_s += time.perf_counter() - before

    def commit(self) -> None:
        before = time.perf_counter()
        if self._writer is not None:
            self._writer.commit()
        if self._txt is not None and self._lines:
            try:
                replace_text(self._txt, "".join(self._lines))
            except OSError as error:
                raise TrackingError(f"{self._txt}: cannot be written: {error.strerror}") from error
        self.draw_s += time.perf_counter() - before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _line(box: Float) -> str:
    """Box xyxy as a line ``x,y,w,h``."""
    return f"{box[0]:.3f},{box[1]:.3f},{box[2] - box[0]:.3f},{box[3] - box[1]:.3f}\n"


def _kept(failure: VideoError, outputs: _Outputs) -> VideoError:
    """The same failure, saying what was written all the same."""
    if outputs.frames == 0:
        return failure
    return VideoError(
        f"{failure}\nThe {outputs.frames:,} frames before that are in {outputs.names}."
    )
