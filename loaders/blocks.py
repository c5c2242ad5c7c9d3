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

Block = npt.NDArray[Any]

# Blocks of one size that wait to be used: both halves of a batch. What comes beyond them is freed.
SPARE = 2


class Blocks:
    """See the module. Any thread may ask, and any may let go last."""

    def __init__(self) -> None:
        self._spare: dict[int, deque[Block]] = {}  # by bytes
        self._lent: dict[int, tuple[weakref.ref[Block], Block]] = {}  # by identity of the reference

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
        reference = weakref.ref(whole, self._back)
        self._lent[id(reference)] = reference, block
        return whole.reshape(shape)

    def _back(self, reference: weakref.ref[Block]) -> None:
        """Take a block back to which nothing refers any more."""
        _, block = self._lent.pop(id(reference))
        self._spare[block.nbytes].append(block)
