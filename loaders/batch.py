"""What a loader hands over: a batch of pairs, and the step from stored to normalised pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import torch

from loaders.config import PixelType
from shards.pixels import MEAN_RGB, STD_RGB

__all__ = [
    "MEAN_RGB",
    "STD_RGB",
    "PairBatch",
    "as_tensor",
    "normalise",
    "normalised_levels",
    "torch_dtype",
]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairBatch:
    """B pairs of one rank. T and S are the sides of template and search crops, K other boxes.

    Attributes
    ----------
    template : (B, 3, T, T) RGB, uint8 0..255 or normalised floats
    search : (B, 3, S, S) alike
    template_box, search_box : (B, 4) float32 xyxy, pixels of the crop that each belongs to; not
        clipped to it. In a negative pair `search_box` is the other object's box.
    other_boxes : (B, K, 4) float32, further boxes of the search picture, K the most of this batch
    other_mask : (B, K) bool, which of those are there
    positive : (B,) bool, both crops show one object
    sample : (B,) int64, number in the epoch
    epoch : of all samples
    stats : of making this batch: ``wait_s``, seconds that the consumer waited for it; ``bad``, how
        many of its pairs are substitutes for pairs with a damaged picture (`loaders.faults`)
    """

    template: torch.Tensor
    search: torch.Tensor
    template_box: torch.Tensor
    search_box: torch.Tensor
    other_boxes: torch.Tensor
    other_mask: torch.Tensor
    positive: torch.Tensor
    sample: torch.Tensor
    epoch: int
    stats: Mapping[str, float]

    def to(self, device: torch.device | str) -> PairBatch:
        """Copy to a device; without waiting where the tensors are pinned."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSOR_FIELDS}
        return replace(self, **moved)


TENSOR_FIELDS = (
    "template",
    "search",
    "template_box",
    "search_box",
    "other_boxes",
    "other_mask",
    "positive",
    "sample",
)


def as_tensor(pixels: npt.NDArray[Any], channels_last: bool) -> torch.Tensor:
    """Tensor (B, 3, S, S) over an array (B, S, S, 3) if `channels_last`, else (B, 3, S, S)."""
    tensor = torch.from_numpy(pixels)
    return tensor.permute(0, 3, 1, 2) if channels_last else tensor


def torch_dtype(pixels: PixelType) -> torch.dtype:
    """Torch's type of that name."""
    dtype: torch.dtype = getattr(torch, pixels)
    return dtype


def normalise(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Turn stored pixels into a network's input.

    Parameters
    ----------
    pixels : (B, 3, H, W); uint8 RGB 0..255, or floats, which are normalised already
    dtype : of the result

    Returns
    -------
    (B, 3, H, W), ``(RGB / 255 - mean) / std``, in the memory layout of `pixels`
    """
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    mean, std = _statistics(pixels.device)
    # float32 first: 1 / 255 in half precision would cost two bits. In place: a fresh block for
    # every step of the arithmetic costs as much again in page faults.
    return pixels.float().mul_(1 / (255 * std)).sub_(mean / std).to(dtype)


def normalised_levels(dtype: torch.dtype) -> torch.Tensor:
    """Table of what `normalise` makes of each level: (3, 256) of that type, for R, G and B."""
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    return normalise(levels, dtype).reshape(3, 256)


@functools.cache
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (1,3,1,1) on a device; copied there once, for a copy waits for a GPU."""
    mean, std = (torch.tensor(of, device=device).view(1, 3, 1, 1) for of in (MEAN_RGB, STD_RGB))
    return mean, std
