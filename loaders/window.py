"""Pairs from a stream of tracks: a window of whole tracks, and the published rule inside it.

A stream is read in order, so only what was read lately can be paired. The window holds the newest
tracks within its bounds, oldest out first. The rule of `loaders.plan` is applied to it as if it
were the data set:

1. a category with probability proportional to min(its frames in the window, ``category_cap``
   scaled by the window's share of all frames);
2. the template: a uniform frame of the category;
3. the search frame: *same instance* within ``max_gap`` in the same track (image data: the same
   picture), *same category*, or *any*, both from the window.

While pairs are drawn the stream goes on, ``frames_per_pair`` frames for every pair. Everything here
is a pure function of what the stream yields and of the numbers given.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le

from loaders.dealing import Frame, Mark, Stream
from loaders.plan import ANY, SAME_INSTANCE, STREAM_WINDOW, SamplerConfig
from shards.rng import uniforms

__all__ = ["Drawn", "SequentialConfig", "Window", "choose_dataset", "pair_uniforms"]

_WIDTH = 8
_DATASET, _CATEGORY, _TEMPLATE, _KIND, _SEARCH, _OTHER_CATEGORY, _OTHER = range(7)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequentialConfig:
    """Bounds of the window; they hold for every data set and every process.

    Attributes
    ----------
    window_tracks : tracks of a video data set at once
    window_pictures : pictures of an image data set at once
    window_mb : encoded pictures in memory, all data sets together, each its share by weight. A
        track that needs more than half of its data set's share is cut into several
    frames_per_pair : frames read for every pair. 2 reads as many bytes as the pairs have; more
        reads more and repeats fewer frames
    """

    window_tracks: Annotated[int, Ge(1), Le(1 << 20)] = 64
    window_pictures: Annotated[int, Ge(1), Le(1 << 24)] = 4096
    window_mb: Annotated[float, Gt(0), Le(1e9)] = 1024.0
    frames_per_pair: Annotated[float, Gt(0), Le(1e6)] = 4.0


class Drawn(NamedTuple):
    """One pair."""

    template: Frame
    search: Frame
    kind: int


@dataclass(slots=True, eq=False)
class _Piece:
    """Adjacent frames of one track, in frame order."""

    frames: list[Frame] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.numbers.append(frame.number)
        self.size += frame.size


def pair_uniforms(
    seed: int, epoch: int, start: int, number: int, step: int
) -> npt.NDArray[np.float64]:
    """Uniforms (number, 8) of the pairs ``start, start + step, ...``."""
    return uniforms(seed, STREAM_WINDOW, epoch, start, number, _WIDTH, step)


def choose_dataset(bounds: npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> list[int]:
    """Data set of each pair, by cumulative weights without the final 1."""
    found: list[int] = np.searchsorted(bounds, u[:, _DATASET], side="right").tolist()
    return found


def _below(u: float, limit: int) -> int:
    return min(int(u * limit), limit - 1)


class Window:
    """The newest tracks of one data set's stream.

    Parameters
    ----------
    source : the stream; it is asked for no more than is needed
    config : bounds
    rule : kinds of pair, gap, cap
    share : of ``window_mb``, 0..1
    total_frames : of the data set
    """

    def __init__(
        self,
        source: Stream,
        config: SequentialConfig,
        rule: SamplerConfig,
        share: float,
        total_frames: int,
    ) -> None:
        self._source, self._config, self._rule = source, config, rule
        self._max_size, self._total = share * config.window_mb * 1e6, total_frames
        self._pieces: deque[_Piece] = deque()
        self._incoming = _Piece()
        self._by_category: dict[str, deque[tuple[_Piece, int]]] = {}
        self._frames = self._size = self._pairs = self._read = 0
        self._full = self._whole = False

    @property
    def size(self) -> int:
        """Bytes of pictures held, those of the track that comes in included."""
        return self._size + self._incoming.size

    @property
    def tracks(self) -> int:
        """Tracks to draw from, or pieces of them."""
        return len(self._pieces)

    def advance(self, pairs: int = 1) -> None:
        """Fill the window, then read what is due for so many further pairs."""
        while not (self._full or self._whole):
            self._take()
        self._pairs += pairs
        due = int(self._pairs * self._config.frames_per_pair)
        while self._read < due and not self._whole:
            self._read += self._take()

    def _take(self) -> bool:
        """Read on; tells whether it was a frame."""
        item = next(self._source)
        if isinstance(item, Mark):
            self._admit()
            # A data set that is in the window as a whole need not be read again.
            self._whole = item is Mark.PASS_END and not self._full
            return False
        incoming = self._incoming.frames
        if incoming and (
            incoming[0].track != item.track or self._incoming.size + item.size > self._max_size / 2
        ):
            self._admit()
        self._incoming.add(item)
        self._evict(item.is_image)
        return True

    def _admit(self) -> None:
        piece, self._incoming = self._incoming, _Piece()
        if not piece.frames:
            return
        self._pieces.append(piece)
        self._size += piece.size
        self._frames += len(piece.frames)
        for position, frame in enumerate(piece.frames):
            self._by_category.setdefault(frame.category, deque()).append((piece, position))
        self._evict(piece.frames[0].is_image)

    def _evict(self, is_image: bool) -> None:
        config = self._config
        most = config.window_pictures if is_image else config.window_tracks
        while len(self._pieces) > 1 and (len(self._pieces) > most or self.size > self._max_size):
            self._full = True
            piece = self._pieces.popleft()
            self._size -= piece.size
            self._frames -= len(piece.frames)
            for frame in piece.frames:
                frames = self._by_category[frame.category]
                frames.popleft()
                if not frames:
                    del self._by_category[frame.category]

    def draw(self, u: Sequence[float]) -> Drawn:
        """Draw a pair from the window as it is.

        Parameters
        ----------
        u : 8 uniforms, a row of `pair_uniforms`
        """
        category = self._category(u[_CATEGORY])
        piece, at = self._frame(category, u[_TEMPLATE])
        template = piece.frames[at]
        kinds = self._rule.image if template.is_image else self._rule.video
        kind = int(np.searchsorted(kinds.cumulative, u[_KIND], side="right"))
        if kind == SAME_INSTANCE:
            return Drawn(template, self._same_instance(piece, at, u[_SEARCH]), kind)
        if kind == ANY:
            other, at = self._frame(self._category(u[_OTHER_CATEGORY]), u[_OTHER])
        else:
            other, at = self._frame(category, u[_SEARCH])
        return Drawn(template, other.frames[at], kind)

    def _category(self, u: float) -> str:
        cap = self._rule.category_cap * self._frames / self._total
        names = list(self._by_category)
        weights = [min(len(frames), cap) for frames in self._by_category.values()]
        total = np.cumsum(weights)
        return names[int(np.searchsorted(total[:-1] / total[-1], u, side="right"))]

    def _frame(self, category: str, u: float) -> tuple[_Piece, int]:
        frames = self._by_category[category]
        return frames[_below(u, len(frames))]

    def _same_instance(self, piece: _Piece, at: int, u: float) -> Frame:
        if piece.frames[at].is_image:
            return piece.frames[at]
        number, gap = piece.numbers[at], self._rule.max_gap
        low = bisect_left(piece.numbers, number - gap)
        high = bisect_right(piece.numbers, number + gap)
        return piece.frames[low + _below(u, high - low)]
