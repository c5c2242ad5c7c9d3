"""Crops of a frame for the network, made on its device: what a tracker does to each frame.

A crop is an upright rectangle, so bilinear sampling splits into rows and columns: two rows are
mixed for each row of the crop, then two columns. Only the pixels that the crop touches travel to
the device. Outside the frame lies its mean colour, as in PySiamTracking's ``CropResize``. Positions
and weights are computed in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.geometry import Float, Grid, region_affine, touched
from shards.pixels import MEAN_RGB, STD_RGB, Picture, mean_rgb
from tracker.anchors import SEARCH_PX

__all__ = ["frame_crops", "taps"]

Index = npt.NDArray[np.int64]


def frame_crops(
    frame: Picture,
    regions: Float,
    grid: Grid,
    device: torch.device | str = "cpu",
    out_px: int = SEARCH_PX,
) -> Tensor:
    """Crops of one frame, ready for the network.

    Parameters
    ----------
    frame : (H,W,3) uint8 RGB
    regions : (N,4) xyxy, frame pixels; may leave the frame, or miss it altogether
    grid : how pixels of the crop lie on the frame (`shards.geometry`)
    device : where the crops are made
    out_px : side of the crops

    Returns
    -------
    (N,3,out_px,out_px) float32 on the device, ``(RGB / 255 - mean) / std``; not rounded to levels
    """
    affine = region_affine(regions, out_px, grid)
    parts = touched(affine, out_px, frame.shape[:2])
    x0, y0 = parts[:, :2].min(axis=0).tolist()
    x1, y1 = parts[:, 2:].max(axis=0).tolist()
    columns = taps(affine[:, 0, 0], affine[:, 0, 2] - x0, x1 - x0, out_px)
    rows = taps(affine[:, 1, 1], affine[:, 1, 2] - y0, y1 - y0, out_px)
    patch = _sent(frame[y0:y1, x0:x1].copy(), device)
    pixels = _mixed(patch, rows, columns)
    # What the taps leave of 1 lies outside the frame, and there its mean is.
    covered = rows[1].sum(axis=1)[:, :, None] * columns[1].sum(axis=1)[:, None, :]
    if (covered < 1 - 1e-9).any():
        outside = _sent((1 - covered).astype(np.float32), device)
        pixels += outside[..., None] * _sent(mean_rgb(frame), device)
    std, mean = (np.array(values, np.float32) for values in (STD_RGB, MEAN_RGB))
    scale, offset = _sent(1 / (255 * std), device), _sent(mean / std, device)
    return (pixels * scale - offset).permute(0, 3, 1, 2).contiguous()


def taps(scale: Float, offset: Float, length: int, out_px: int) -> tuple[Index, Float]:
    """Which two pixels each output pixel mixes along one axis, and in what shares.

    Parameters
    ----------
    scale, offset : (N,) of the affine that maps output to input, edge coordinates
    length : input pixels
    out_px : output pixels

    Returns
    -------
    index : (N,2,out_px) int64, within the input
    weight : (N,2,out_px) float64, 0 for pixels outside the input; else the two add up to 1
    """
    centre = np.arange(out_px) + 0.5
    position = np.asarray(scale)[:, None] * centre + np.asarray(offset)[:, None] - 0.5
    low = np.floor(position)
    part = position - low
    index = np.stack([low, low + 1], axis=1)
    weight = np.stack([1 - part, part], axis=1) * ((index >= 0) & (index < length))
    return np.clip(index, 0, length - 1).astype(np.int64), weight


def _sent(values: npt.NDArray[np.generic], device: torch.device | str) -> Tensor:
    """Values on the device; the host does not wait until they are there."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def _mixed(
    patch: Tensor,
    rows: tuple[Index, Float],
    columns: tuple[Index, Float],
) -> Tensor:
    """Mix pixels (h,w,3) by the taps of both axes: (N,out,out,3) float32 levels."""
    n, _, out = rows[0].shape

    row_index, column_index = (_sent(index, patch.device) for index, _ in (rows, columns))
    row_share, column_share = (
        _sent(weight.astype(np.float32), patch.device) for _, weight in (rows, columns)
    )
    by_row = patch.index_select(0, row_index.flatten()).view(n, 2, out, -1, 3).float()
    share = row_share[..., None, None]
    lines = by_row[:, 0] * share[:, 0] + by_row[:, 1] * share[:, 1]
    share = column_share[:, :, None, :, None]
    wide = column_index[:, :, None, :, None].expand(n, 2, out, out, 3)
    left, right = (lines.gather(2, wide[:, side]) for side in (0, 1))
    return left * share[:, 0] + right * share[:, 1]
