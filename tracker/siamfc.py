"""SiamFC (Bertinetto et al., ECCVW 2016) as PySiamTracking trains it: one correlation, one score.

``forward`` is one training step's loss; a tracker calls the parts one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tracker.backbones import Backbone, narrow, pair_features
from tracker.config import ModelConfig
from tracker.heads import CHANNELS, SEARCH_CELLS, TEMPLATE_CELLS, centre_cells, correlate
from tracker.losses import loss_terms
from tracker.response import balanced_term, cell_centres, label_cells

__all__ = ["SiamFC"]

SCORE_SCALE = 1e-3  # a sum over 6x6 cells of 256 channels becomes a logit


class SharedFusion(nn.Module):
    """One 1x1 convolution for both branches, then the correlation over all channels.

    Parameters
    ----------
    inputs : channels of the backbone feature
    channels : channels that are correlated
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.z_conv = nn.Conv2d(inputs, channels, 1)

    def kernels(self, template: Tensor) -> Tensor:
        """Filters of templates: (B,inputs,32,32) -> (B,channels,6,6)."""
        filters: Tensor = self.z_conv(centre_cells(template, TEMPLATE_CELLS))
        return filters

    def forward(self, kernels: Tensor, search: Tensor) -> Tensor:
        """Correlate (B,channels,6,6) with features (B,inputs,32,32) -> (B,17,17)."""
        x = self.z_conv(centre_cells(search, SEARCH_CELLS))
        return correlate(x, kernels[:, None])[:, 0]


class ScoreHead(nn.Module):
    """Logits from correlations: a fixed scale and a learned bias."""

    def __init__(self) -> None:
        super().__init__()
        self.score_bias = nn.Parameter(torch.zeros(1))

    def forward(self, correlation: Tensor) -> Tensor:
        """Logits of correlations of any shape."""
        return SCORE_SCALE * correlation + self.score_bias


class SiamFC(nn.Module):
    """SiamFC on any backbone.

    Parameters
    ----------
    backbone : shared by template and search
    config : the rest
    feature : feature that is correlated
    """

    centres: Tensor

    def __init__(self, backbone: Backbone, config: ModelConfig, *, feature: str) -> None:
        super().__init__()
        self.config, self.feature = config, feature
        self.z_net = backbone
        self.fusion = SharedFusion(backbone.channels[feature], narrow(CHANNELS, config.width))
        self.head = ScoreHead()
        self.register_buffer("centres", cell_centres(config.grid), persistent=False)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Backbone features of crops (B,3,255,255), by name."""
        return dict(self.z_net(image))

    def kernels(self, template: dict[str, Tensor]) -> Tensor:
        """Correlation filters of templates, (B,C,6,6), from their features."""
        return self.fusion.kernels(template[self.feature])

    def response(self, kernels: Tensor, search: dict[str, Tensor]) -> Tensor:
        """Logits (B,17,17) of search features: how likely each cell is the target's middle."""
        logits: Tensor = self.head(self.fusion(kernels, search[self.feature]))
        return logits

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        template_box: Tensor,
        search_box: Tensor,
        positive: Tensor,
        sample: Tensor,
        epoch: int | Tensor,
    ) -> dict[str, Tensor]:
        """Loss of a batch of pairs; the arguments are those of `SPM.forward`.

        `template_box`, `sample` and `epoch` are not used: the middle of the template crop is what
        is looked for, and all cells count.

        Returns
        -------
        ``cls``: float32 scalar
        """
        del template_box, sample, epoch
        z, x = pair_features(self.z_net, template, search)
        logits = self.response(self.kernels(z), x).flatten(1)
        labels = label_cells(self.centres, search_box.float(), positive, self.config.response)
        return loss_terms({"cls": balanced_term(logits, labels)}, self.config.normalise)
