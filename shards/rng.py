"""Counter-based random numbers: row i is the same drawn alone or in a block, anywhere.

Philox4x64 (Salmon et al. 2011) with ``key = (seed, stream)`` and ``counter = (start * width // 4,
0, epoch, 0)``; raw bits become numbers here, so nothing moves with NumPy's distributions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["integers_below", "uniforms"]

_UINT64 = 1 << 64


def uniforms(
    seed: int, stream: int, epoch: int, start: int, count: int, width: int, step: int = 1
) -> npt.NDArray[np.float64]:
    """Rows of uniform numbers in [0, 1).

    Parameters
    ----------
    seed, stream : the key; one stream for every purpose, seeds are never added together
    epoch : 0 or more
    start : number of the first row, 0 or more
    count : rows
    width : numbers in a row, a multiple of 4
    step : distance between the rows that are returned (a rank takes every world_size-th)

    Returns
    -------
    (count, width) float64; row j is row ``start + j * step`` of the stream

    Raises
    ------
    ValueError : if `width` is no multiple of 4 or a number is out of range
    """
    if width <= 0 or width % 4:
        raise ValueError(f"width must be a positive multiple of 4, got {width}")
    if min(seed, stream, epoch, start, count) < 0 or step < 1 or max(seed, stream) >= _UINT64:
        raise ValueError(
            f"seed {seed}, stream {stream}, epoch {epoch}, start {start} and count {count} must be "
            f"0 or more and fit 64 bits, step {step} at least 1"
        )
    counter = np.array([start * width // 4, 0, epoch, 0], np.uint64)
    generator = np.random.Philox(counter=counter, key=np.array([seed, stream], np.uint64))
    rows = (count - 1) * step + 1 if count else 0
    raw = generator.random_raw(rows * width).reshape(rows, width)[::step]
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53)


def integers_below(
    u: npt.NDArray[np.float64], limit: npt.NDArray[np.integer] | int
) -> npt.NDArray[np.int64]:
    """Integers in [0, limit) from uniforms in [0, 1); `limit` broadcasts and must be 1 or more."""
    return np.minimum((u * limit).astype(np.int64), np.asarray(limit, np.int64) - 1)
