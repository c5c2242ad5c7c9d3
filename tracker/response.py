"""Targets and loss of SiamFC's response map (Bertinetto et al., "Fully-Convolutional Siamese
Networks", ECCVW 2016; distances of PySiamTracking's siamfc_alexnet).

A cell of the map is positive near the centre of the target, negative far from it, and ignored
between. Both kinds weigh the same, however few the positives are. Pure tensors, no loop over
samples.
"""  # noqa: D205

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from configs.document import Contradiction
from shards.geometry import Grid, anchor_origin
from tracker.anchors import CELLS, SEARCH_PX, STRIDE_PX
from tracker.labels import IGNORED, NEGATIVE, POSITIVE
from tracker.losses import Term

__all__ = ["ResponseConfig", "balanced_term", "cell_centres", "label_cells"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseConfig:
    """Distances that make a cell positive or negative: |dx| + |dy|, pixels of the search crop.

    Parameters
    ----------
    positive_px : nearer than this is positive
    negative_px : farther than this is negative; in between is ignored
    """

    positive_px: Annotated[float, Gt(0)] = 24.0
    negative_px: Annotated[float, Gt(0)] = 30.0

    def __post_init__(self) -> None:
        if self.positive_px > self.negative_px:
            raise Contradiction(
                f"positive_px {self.positive_px} must not exceed negative_px {self.negative_px}: "
                "a cell would be both",
                "positive_px",
                "negative_px",
            )


def cell_centres(grid: Grid) -> Tensor:
    """Points of the search crop that the cells of the response stand for.

    Parameters
    ----------
    grid : which point is the middle of the crop: 127.5 (``edge``) or 127 (``corner``)

    Returns
    -------
    (289, 2) float32 xy, pixels of the search crop, by row and column of the 17x17 map
    """
    place = anchor_origin(SEARCH_PX, grid) + STRIDE_PX * (np.arange(CELLS) - CELLS // 2)
    y, x = np.meshgrid(place, place, indexing="ij")
    return torch.from_numpy(np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32))


def label_cells(centres: Tensor, boxes: Tensor, positive: Tensor, config: ResponseConfig) -> Tensor:
    """Labels of the cells from their distance to the middle of the target.

    Parameters
    ----------
    centres : (K,2) float32 of `cell_centres`
    boxes : (B,4) float32 xyxy, the same crop
    positive : (B,) bool; in a negative pair all cells are negative (the published pairs have none)
    config : the distances

    Returns
    -------
    (B,K) int64: 1, 0, or -1 for ignored
    """
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    distance = (centres - middle).abs().sum(-1)
    labels = torch.full(distance.shape, IGNORED, device=distance.device)
    labels = labels.masked_fill(distance > config.negative_px, NEGATIVE)
    labels = labels.masked_fill(distance < config.positive_px, POSITIVE)
    return labels.masked_fill(~positive[:, None], NEGATIVE)


def balanced_term(logits: Tensor, labels: Tensor) -> Term:
    """Sigmoid cross entropy in which the two kinds share each sample's weight of 1 equally.

    Parameters
    ----------
    logits : (B,K) float
    labels : (B,K) int64: 1, 0, -1; where a sample has one kind alone, that has the whole weight

    Returns
    -------
    Term of float32 scalars: sum over the batch, and the number of samples
    """
    weight = torch.zeros(labels.shape, device=labels.device)
    kinds = [labels == kind for kind in (POSITIVE, NEGATIVE)]
    counts = [kind.sum(dim=1, keepdim=True) for kind in kinds]
    present = sum((count > 0).float() for count in counts)
    for kind, count in zip(kinds, counts, strict=True):
        weight = torch.where(kind, 1 / (present * count), weight)
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), (labels == POSITIVE).float(), weight, reduction="sum"
    )
    return Term(entropy, torch.full((), float(len(labels)), device=labels.device))
