"""Fusion of template and search, and the heads on top: the coarse stage and the fine stage of SPM.

Coarse: the template's features become correlation filters, one bank a branch (classes, deltas).
Fine: the template's and a proposal's features are related by a 1x1 convolution and judged by two
layers. Parameter names and shapes are those of the published checkpoints. What depends on the
template alone (`CoarseFusion.kernels`, `FineFusion.template_part`) is apart, so that a tracker
computes it once a video.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker.roi import BINS

__all__ = [
    "ANCHORS_A_CELL",
    "CHANNELS",
    "CoarseFusion",
    "CoarseHead",
    "CoarseMaps",
    "FineFusion",
    "FineHead",
    "centre_cells",
    "coarse_maps",
    "correlate",
]

CHANNELS = 256  # of the correlation, the relation and the hidden layers, at width 1
ANCHORS_A_CELL = 5
TEMPLATE_CELLS, SEARCH_CELLS = 6, 22
CLASSES = 2
BRANCHES = (CLASSES * ANCHORS_A_CELL, 4 * ANCHORS_A_CELL)  # outputs of the branches cls and reg


class CoarseMaps(NamedTuple):
    """``logits`` (B,K,2), class 1 the target; ``deltas`` (B,K,4); by row, column, shape."""

    logits: Tensor
    deltas: Tensor


def centre_cells(feature: Tensor, cells: int) -> Tensor:
    """Middle of a feature map.

    Parameters
    ----------
    feature : (B,C,S,S)
    cells : side of the part, at most S; it starts at row and column ``(S - cells) // 2``

    Returns
    -------
    (B,C,cells,cells), a view
    """
    start = (feature.shape[-1] - cells) // 2
    return feature[..., start : start + cells, start : start + cells]


def correlate(search: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each sample with the filters of its own template.

    Parameters
    ----------
    search : (B,C,H,W)
    kernels : (B,O,C,h,w)

    Returns
    -------
    (B, O, H-h+1, W-w+1)
    """
    b, o, c, h, w = kernels.shape
    out = F.conv2d(
        search.reshape(1, b * c, *search.shape[2:]), kernels.reshape(b * o, c, h, w), groups=b
    )
    return out.view(b, o, *out.shape[2:])


def coarse_maps(cls: Tensor, reg: Tensor) -> CoarseMaps:
    """Maps by anchor: (B,10,17,17) and (B,20,17,17) -> logits (B,1445,2) and deltas (B,1445,4)."""
    logits = cls.permute(0, 2, 3, 1).reshape(len(cls), -1, CLASSES)
    deltas = reg.permute(0, 2, 3, 1).reshape(len(reg), -1, 4)
    return CoarseMaps(logits, deltas)


class CoarseFusion(nn.Module):
    """Up-channel correlation of SiamRPN (Li et al., CVPR 2018), one pair of convolutions a branch.

    Parameters
    ----------
    inputs : channels of the backbone feature
    channels : channels that are correlated
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.z_conv = nn.ModuleList(
            nn.Conv2d(inputs, channels * outputs, 3) for outputs in BRANCHES
        )
        self.x_conv = nn.ModuleList(nn.Conv2d(inputs, channels, 3) for _ in BRANCHES)

    def kernels(self, template: Tensor) -> tuple[Tensor, ...]:
        """Filters of templates.

        Parameters
        ----------
        template : (B,inputs,32,32) float

        Returns
        -------
        cls (B,10,channels,4,4) and reg (B,20,channels,4,4)
        """
        z = centre_cells(template, TEMPLATE_CELLS)
        cls, reg = (
            conv(z).unflatten(1, (outputs, -1))
            for conv, outputs in zip(self.z_conv, BRANCHES, strict=True)
        )
        return cls, reg

    def forward(self, kernels: tuple[Tensor, ...], search: Tensor) -> tuple[Tensor, ...]:
        """Correlate.

        Parameters
        ----------
        kernels : of `kernels`
        search : (B,inputs,32,32) float

        Returns
        -------
        cls (B,10,17,17) and reg (B,20,17,17)
        """
        x = centre_cells(search, SEARCH_CELLS)
        cls, reg = (
            correlate(conv(x), kernel) for conv, kernel in zip(self.x_conv, kernels, strict=True)
        )
        return cls, reg


class CoarseHead(nn.Module):
    """One 1x1 convolution a branch; channels go by anchor, then by class or delta."""

    def __init__(self) -> None:
        super().__init__()
        cls, reg = BRANCHES
        self.cls_convs = nn.Sequential(nn.Conv2d(cls, cls, 1))
        self.reg_convs = nn.Sequential(nn.Conv2d(reg, reg, 1))

    def forward(self, cls: Tensor, reg: Tensor) -> CoarseMaps:
        """(B,10,17,17) and (B,20,17,17) -> logits (B,1445,2) and deltas (B,1445,4)."""
        return coarse_maps(self.cls_convs(cls), self.reg_convs(reg))


class FineFusion(nn.Module):
    """Relation of template and proposal: 1x1 convolution of both, template channels first; ReLU.

    The convolution is linear, so the template's share is computed once and added to that of each
    proposal.

    Parameters
    ----------
    inputs : channels of one side
    channels : channels of the relation
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.post_convs = nn.Sequential(nn.Conv2d(2 * inputs, channels, 1))

    def template_part(self, template: Tensor) -> Tensor:
        """Share of the template, bias included: (B,inputs,6,6) -> (B,channels,6,6)."""
        weight, bias = (
            self.post_convs.get_parameter("0.weight"),
            self.post_convs.get_parameter("0.bias"),
        )
        return F.conv2d(template, weight[:, : self.inputs], bias)

    def forward(self, template_part: Tensor, proposals: Tensor) -> Tensor:
        """Relate.

        Parameters
        ----------
        template_part : (B,channels,6,6)
        proposals : (B,N,inputs,6,6)

        Returns
        -------
        (B,N,channels,6,6)
        """
        weight = self.post_convs.get_parameter("0.weight")
        part = F.conv2d(proposals.flatten(0, 1), weight[:, self.inputs :])
        return torch.relu(template_part[:, None] + part.view(*proposals.shape[:2], *part.shape[1:]))


class FineHead(nn.Module):
    """Two hidden layers, then classes and deltas.

    Parameters
    ----------
    inputs : channels of the relation
    hidden : width of the hidden layers
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.feat_fcs = nn.Sequential(
            nn.Linear(inputs * BINS * BINS, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.cls_fc = nn.Linear(hidden, CLASSES)
        self.reg_fc = nn.Linear(hidden, 4)

    def forward(self, relation: Tensor) -> tuple[Tensor, Tensor]:
        """(B,N,inputs,6,6) -> logits (B,N,2) and deltas (B,N,4)."""
        hidden = self.feat_fcs(relation.flatten(2))
        return self.cls_fc(hidden), self.reg_fc(hidden)
