"""The transform of all peers that leave it to the user, so that they differ in what is theirs.

What such peers bring is how bytes are found and how batches come to the consumer. Decode and
augmentation are those of ``zip-tuned``: the whole picture with simplejpeg, then our kernel, as the
plan says. Pixels leave a worker as uint8; the class ``plain`` is normalised where they arrive, for
float32 would cost four times the memory and copies on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.kernel import Kernel
from loaders.work import Crops, Work

__all__ = ["Encoded", "Transform"]

Encoded = Callable[[Crops, int], Any]  # encoded picture of crop i of some crops


class Transform:
    """Makes the crops of pairs; may be used by several threads.

    Parameters
    ----------
    frame_px : side of the stored pictures
    encoded : encoded picture of crop i of some crops
    """

    def __init__(self, frame_px: int, encoded: Encoded) -> None:
        self._kernel = Kernel(frame_px, encoded)
        self._whole = np.array([0, 0, frame_px, frame_px])

    def fill(self, crops: Crops, out: npt.NDArray[np.uint8]) -> None:
        """Make all crops of one kind.

        Parameters
        ----------
        crops : B of them
        out : (B, 3, S, S) uint8, written
        """
        for i in range(len(crops)):
            self._kernel.make(crops, i, self._whole, out[i])

    def batch(self, work: Work) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a batch in memory of its own: template and search crops, uint8."""
        made = []
        for crops in (work.template, work.search):
            side = crops.params.out_px
            out = np.empty((len(crops), 3, side, side), np.uint8)
            self.fill(crops, out)
            made.append(torch.from_numpy(out))
        return made[0], made[1]
