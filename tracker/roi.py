"""RoIAlign of the published SPM checkpoints: the average of 2x2 bilinear samples in each bin.

It is not torchvision's. The samples lie at 1/3 and 2/3 of a bin (not 1/4 and 3/4), a box has no
minimum size, coordinates have no half-pixel shift. With random weights the usual form gives
features that are 3 % off (``aligned=False``) or 20 % (``aligned=True``).

Sampling, averaging and the border rule all split into rows and columns, so the whole operation is
``rows @ feature @ columns``: two batched matrix products, differentiable in the feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BINS", "axis_weights", "roi_align"]

BINS = 6


def axis_weights(start: Tensor, size: Tensor, cells: int, bins: int = BINS) -> Tensor:
    """Share of each feature cell in each bin, along one axis.

    Parameters
    ----------
    start, size : (...) float32, near edge and extent of the boxes in cells (cell k is at k)
    cells : length of the feature along this axis
    bins : bins a box

    Returns
    -------
    (..., bins, cells) float32. A sample before -1 or after `cells` counts as zero; one that is
    between there and the outer cells takes the outer cell.
    """
    # Made on the device: a constant that is copied there would wait for it.
    thirds = torch.arange(1, 3, device=start.device) / 3
    offset = torch.arange(bins, device=start.device)[:, None] + thirds
    point = start[..., None, None] + size[..., None, None] * (offset / bins)
    inside = (point >= -1) & (point <= cells)
    distance = point.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=start.device)
    weight = (1 - distance.abs()).clamp(min=0) * inside[..., None]
    return weight.mean(dim=-2)


def roi_align(
    feature: Tensor, boxes: Tensor, *, stride_px: float, shift_px: float, bins: int = BINS
) -> Tensor:
    """Features of boxes, resampled to a fixed size.

    Always computed in float32, also under autocast: bfloat16 would move the samples.

    Parameters
    ----------
    feature : (B,C,H,W) float
    boxes : (B,N,4) float32 xyxy, pixels of the crop that `feature` comes from; no gradient flows to
        them
    stride_px : pixels a cell
    shift_px : added to the boxes before they are scaled to cells
    bins : bins a side

    Returns
    -------
    (B,N,C,bins,bins) float32
    """
    b, c, h, w = feature.shape
    n = boxes.shape[1]
    with torch.autocast(feature.device.type, enabled=False):
        scaled = (boxes.detach().float() + shift_px) / stride_px
        start, size = scaled[..., :2], scaled[..., 2:] - scaled[..., :2]
        columns = axis_weights(start[..., 0], size[..., 0], w, bins)
        rows = axis_weights(start[..., 1], size[..., 1], h, bins)
        by_row = feature.float().permute(0, 2, 1, 3).reshape(b, h, c * w)
        picked = rows.reshape(b, n * bins, h) @ by_row
        out = picked.view(b, n, bins * c, w) @ columns.transpose(-1, -2)
        return out.view(b, n, bins, c, bins).transpose(2, 3)
