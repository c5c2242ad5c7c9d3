"""Blur: which kind and how strong, drawn for the crops concerned only; kernels in stored pixels.

The four kinds and their numbers are those that PySiamTracking published (defaults of `Blur`). All
act on the stored picture before it is cropped, as there, so a kernel covers the same part of the
scene whatever the size of the crop. Outside the stored picture its edge pixels go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le, Lt, MinLen

from configs.document import Contradiction
from shards.geometry import Float

__all__ = [
    "BLUR_WIDTH",
    "Blur",
    "BlurStep",
    "Kernels",
    "Ratios",
    "draw_blur",
    "gaussian_kernel",
    "motion_kernel",
]

Probability = Annotated[float, Ge(0), Le(1)]
Weight = Annotated[float, Ge(0), Le(1e6)]

BLUR_WIDTH = 8  # uniforms of one blurred crop
_KIND, _SIZE, _SLOPE, _TRANSPOSED = range(4)


def _check(name: str, sizes: tuple[float, ...], weights: tuple[float, ...]) -> None:
    if len(sizes) != len(weights) or sum(weights) <= 0:
        raise Contradiction(
            f"{len(sizes)} sizes and {len(weights)} weights {weights}: each size needs a weight, "
            "and one of them must be above 0",
            name,
            "weights",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """One kind of blur by a square kernel.

    Attributes
    ----------
    weight : share of this kind among all blurs; 0: never
    sizes : odd sides in pixels of the stored picture
    weights : share of each size
    """

    weight: Weight = 0.0
    sizes: Annotated[tuple[Annotated[int, Ge(1), Le(63)], ...], MinLen(1)] = (3,)
    weights: Annotated[tuple[Weight, ...], MinLen(1)] = (1.0,)

    def __post_init__(self) -> None:
        _check("sizes", self.sizes, self.weights)
        if any(size % 2 == 0 for size in self.sizes):
            raise Contradiction(f"sizes {self.sizes}: a kernel has an odd side", "sizes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratios:
    """Blur by making the picture smaller and larger again.

    Attributes
    ----------
    weight : share of this kind among all blurs; 0: never
    ratios : of the small picture's side to the stored one's
    weights : share of each ratio
    """

    weight: Weight = 0.0
    ratios: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(1)] = (0.5,)
    weights: Annotated[tuple[Weight, ...], MinLen(1)] = (1.0,)

    def __post_init__(self) -> None:
        _check("ratios", self.ratios, self.weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blur:
    """Blur with probability `p`, of one kind.

    Attributes
    ----------
    p : probability
    gaussian : sigma is ``0.3 ((size - 1) / 2 - 1) + 0.8``
    average : mean over a square
    down_up : bilinear to a part of the side and back, without antialiasing
    motion : mean along a line through the centre, its direction uniform in slope angle
    """

    p: Probability = 0.0
    gaussian: Kernels = field(
        default_factory=lambda: Kernels(
            weight=1.0,
            sizes=(3, 5, 7, 9, 11, 13, 15, 17, 19),
            weights=(0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1),
        )
    )
    average: Kernels = field(
        default_factory=lambda: Kernels(
            weight=0.3, sizes=(3, 5, 7, 9), weights=(0.4, 0.3, 0.2, 0.1)
        )
    )
    down_up: Ratios = field(
        default_factory=lambda: Ratios(
            weight=1.0, ratios=(0.2, 0.25, 0.33, 0.5), weights=(0.1, 0.2, 0.3, 0.4)
        )
    )
    motion: Kernels = field(
        default_factory=lambda: Kernels(
            weight=1.0,
            sizes=(5, 7, 9, 11, 13, 15, 17, 19),
            weights=(0.12, 0.15, 0.20, 0.14, 0.13, 0.10, 0.09, 0.07),
        )
    )

    def __post_init__(self) -> None:
        if self.p > 0 and sum(self.shares) <= 0:
            raise Contradiction(
                "p is above 0, but gaussian, average, down_up and motion all weigh 0", "p", *KINDS
            )

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Weights of the four kinds in the order of `BlurStep.kind`."""
        kinds = (self.gaussian, self.average, self.down_up, self.motion)
        return (kinds[0].weight, kinds[1].weight, kinds[2].weight, kinds[3].weight)


KINDS = ("gaussian", "average", "down_up", "motion")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlurStep:
    """Blur of one stored picture, before it is cropped.

    Attributes
    ----------
    kind : ``gaussian``, ``average``, ``down_up`` or ``motion``
    kernel : (k, k) float32 that sums to 1, k odd, for a correlation; None for ``down_up``
    small_px : side of the small picture; 0 but for ``down_up``
    """

    kind: str
    kernel: npt.NDArray[np.float32] | None = None
    small_px: int = 0

    @property
    def margin_px(self) -> int:
        """Pixels around a region that its blur reads."""
        return 0 if self.kernel is None else len(self.kernel) // 2


def gaussian_kernel(size: int) -> npt.NDArray[np.float32]:
    """Kernel (size, size) with the sigma that belongs to its size."""
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    line /= line.sum()
    return np.outer(line, line).astype(np.float32)


def motion_kernel(size: int, slope: float, transposed: bool) -> npt.NDArray[np.float32]:
    """Kernel (size, size) of a line through its centre: in every column one pixel of 1 / size.

    Parameters
    ----------
    size : odd
    slope : in [-1, 1]; the line rises by ``tan(slope * pi / 4)`` rows a column, rows rounded
    transposed : rows and columns change places
    """
    column = np.arange(size) - size // 2
    row = np.rint(column * np.tan(slope * np.pi / 4)).astype(np.int64)
    kernel = np.zeros((size, size), np.float32)
    kernel[row + size // 2, column + size // 2] = 1 / size
    return np.ascontiguousarray(kernel.T) if transposed else kernel


def _one_of(weights: tuple[float, ...], u: float) -> int:
    bounds = np.cumsum(weights)
    return int(np.searchsorted(bounds[:-1] / bounds[-1], u, side="right"))


def draw_blur(blur: Blur, u: Float, flipped: bool, frame_px: int) -> BlurStep:
    """Blur of one crop.

    Parameters
    ----------
    blur : the ranges
    u : (BLUR_WIDTH,) uniforms in [0, 1)
    flipped : the crop is mirrored later; the published blur comes after that, so the line of a
        motion is mirrored now
    frame_px : side of the stored picture
    """
    kind = KINDS[_one_of(blur.shares, u[_KIND])]
    if kind == "down_up":
        ratio = blur.down_up.ratios[_one_of(blur.down_up.weights, u[_SIZE])]
        return BlurStep(kind=kind, small_px=max(1, round(frame_px * ratio)))
    kernels: Kernels = getattr(blur, kind)
    size = kernels.sizes[_one_of(kernels.weights, u[_SIZE])]
    if kind == "gaussian":
        kernel = gaussian_kernel(size)
    elif kind == "average":
        kernel = np.full((size, size), 1 / size**2, np.float32)
    else:
        kernel = motion_kernel(size, 2 * u[_SLOPE] - 1, u[_TRANSPOSED] < 0.5)
        kernel = np.ascontiguousarray(kernel[:, ::-1]) if flipped else kernel
    return BlurStep(kind=kind, kernel=kernel)
