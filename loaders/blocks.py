"""Memory of batches, used again instead of given back to the system.

A block that is freed and asked for again costs a page fault for every page, each of which the
system fills with zeros. Here it comes back at the moment at which it would have been freed: when
nothing refers to it any more, no tensor and no view of one. So a batch that somebody still holds
is never written to.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Blocks"]

# Blocks of one size that wait to be used: both halves of a batch. What comes beyond them is freed.
SPARE = 2


class Blocks:
    """See the module. Any thread may ask, and any may let go last."""

    def __init__(self) -> None:
        self._spare: dict[int, deque[npt.NDArray[np.uint8]]] = {}  # by bytes

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Array that is not initialised, as of `numpy.empty`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        spare = self._spare.setdefault(size, deque(maxlen=SPARE))
        try:
            block = spare.pop()
        except IndexError:
            block = np.empty(size, np.uint8)
        # `block.data` is a memoryview. A view of a NumPy array refers to the array at the root,
        # past those between: of all that is made of the result that is `whole`, and not `block`.
        whole = np.frombuffer(block.data, dtype)
        weakref.finalize(whole, spare.append, block).atexit = False
        return whole.reshape(shape)
