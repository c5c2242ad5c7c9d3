"""Anchors of the coarse stage: 17x17 cells with five shapes each, in pixels of the search crop.

Order everywhere: row, column, shape; 1,445 in all. SiamRPN's anchors (Li et al., CVPR 2018) with
the rounding of the published code, which makes them symmetric about the cell's centre.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shards.geometry import Float, Grid, anchor_origin

__all__ = ["CELLS", "RATIOS", "SEARCH_PX", "STRIDE_PX", "anchor_boxes", "anchor_shapes"]

SEARCH_PX = 255
STRIDE_PX = 8
CELLS = 17  # a side: 22 feature cells - 2 of the 3x3 convolution - 3 of the 4x4 correlation
RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)  # height / width
BASE_PX, SCALE = 8, 8


def anchor_shapes() -> Float:
    """Half sizes of the five shapes: ``(size - 1) / 2``, rounded half to even.

    Returns
    -------
    (5, 2) float64, half width and half height, pixels: 55,18 45,22 32,32 22,45 18,55
    """
    side = BASE_PX * SCALE
    ratio = np.array(RATIOS)
    size = np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], axis=-1)
    return np.asarray(np.rint((size - 1) / 2))


def anchor_boxes(grid: Grid, search_px: int = SEARCH_PX) -> Tensor:
    """All anchors of a search crop.

    Parameters
    ----------
    grid : which point is the middle of the crop: 127.5 (``edge``) or 127 (``corner``) for 255 px
    search_px : side of the search crop

    Returns
    -------
    (1445, 4) float32 xyxy, pixels of the search crop
    """
    centre = anchor_origin(search_px, grid) + STRIDE_PX * (np.arange(CELLS) - CELLS // 2)
    half = anchor_shapes()
    boxes = np.empty((CELLS, CELLS, len(half), 4))
    boxes[..., 0] = centre[None, :, None] - half[:, 0]
    boxes[..., 1] = centre[:, None, None] - half[:, 1]
    boxes[..., 2] = centre[None, :, None] + half[:, 0]
    boxes[..., 3] = centre[:, None, None] + half[:, 1]
    return torch.from_numpy(boxes.reshape(-1, 4).astype(np.float32))
