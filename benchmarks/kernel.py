"""Our kernel for one crop (`loaders.cpu.Bench`) on bytes from elsewhere, for worker processes.

The baselines that are meant to be good get the best decode and augmentation that we know: buffers
that are used again, blur and occlusion for the crops concerned only, region decode if they ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loaders.cpu import Bench
from loaders.work import Crops
from shards.errors import BadSample

__all__ = ["Kernel"]

Read = Callable[[Crops, int], Any]


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Crops as `Bench` asks for them, with other bytes."""

    crops: Crops
    source: Read

    def read(self, i: int) -> Any:
        """Encoded picture of crop i."""
        return self.source(self.crops, i)

    def bad(self, i: int, reason: str) -> BadSample:
        """Error that names its sample."""
        return self.crops.bad(i, reason)


class Kernel:
    """Makes crops in one process.

    Parameters
    ----------
    frame_px : side of the stored pictures
    read : encoded picture of crop i of some crops
    """

    def __init__(self, frame_px: int, read: Read) -> None:
        self._frame_px, self._read = frame_px, read
        self._bench: Bench | None = None

    def make(
        self, crops: Crops, i: int, region: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]
    ) -> None:
        """Make crop i as the plan says.

        Parameters
        ----------
        crops, i : of the plan
        region : its row of ``crops.params.decoded``, or the whole picture
        out : (3, S, S) uint8, written
        """
        if self._bench is None:  # in the worker: a decoder does not survive a fork
            self._bench = Bench(self._frame_px)
        view: Any = _Elsewhere(crops, self._read)
        picture, origin = self._bench.decode(view, i, region)
        self._bench.render(picture, origin, crops.params, i, out)
