"""Depth-wise fusion and head of SiamRPN++ (Li et al., CVPR 2019), in the published form.

Each channel of the template is correlated with the same channel of the search, and both branches
share what comes out. Names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from tracker.heads import BRANCHES, TEMPLATE_CELLS, CoarseMaps, centre_cells, coarse_maps, correlate

__all__ = ["DepthwiseFusion", "DepthwiseHead"]

SEARCH_CELLS = 26  # four more than up-channel: the head's two 3x3 convolutions take them


class DepthwiseFusion(nn.Module):
    """One pair of convolutions, then a correlation channel by channel.

    Parameters
    ----------
    inputs : channels of the backbone feature
    channels : channels that are correlated
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.z_conv = nn.Conv2d(inputs, channels, 3)
        self.x_conv = nn.Conv2d(inputs, channels, 3)

    def kernels(self, template: Tensor) -> tuple[Tensor, ...]:
        """Filters of templates: (B,inputs,32,32) -> one tensor (B,channels,4,4)."""
        return (self.z_conv(centre_cells(template, TEMPLATE_CELLS)),)

    def forward(self, kernels: tuple[Tensor, ...], search: Tensor) -> tuple[Tensor, ...]:
        """Correlate with features (B,inputs,32,32); gives one tensor (B,channels,21,21)."""
        (filters,) = kernels
        x = self.x_conv(centre_cells(search, SEARCH_CELLS))
        # (each channel of each sample is a sample of one channel)
        joined = correlate(x.flatten(0, 1)[:, None], filters.flatten(0, 1)[:, None, None])
        return (joined.view(*x.shape[:2], *joined.shape[2:]),)


class DepthwiseHead(nn.Module):
    """Two 3x3 convolutions for both branches, then one 1x1 convolution a branch.

    Parameters
    ----------
    channels : of the correlation and of the hidden layers
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        cls, reg = BRANCHES
        self.pre_convs = nn.Sequential(
            nn.Conv2d(channels, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU()
        )
        self.cls_convs = nn.Sequential(nn.Conv2d(channels, cls, 1))
        self.reg_convs = nn.Sequential(nn.Conv2d(channels, reg, 1))

    def forward(self, joined: Tensor) -> CoarseMaps:
        """(B,channels,21,21) -> logits (B,1445,2) and deltas (B,1445,4)."""
        hidden = self.pre_convs(joined)
        return coarse_maps(self.cls_convs(hidden), self.reg_convs(hidden))
