"""SiamRPN (Li et al., CVPR 2018): the coarse stage of SPM alone, its features correlated in one of
two ways: up-channel, as published, or depth-wise (SiamRPN++, Li et al., CVPR 2019).

``forward`` is one training step's loss; a tracker calls the parts one by one.
"""  # noqa: D205

from __future__ import annotations

from torch import Tensor, nn

from tracker.anchors import anchor_boxes
from tracker.backbones import Backbone, narrow, pair_features
from tracker.config import ModelConfig
from tracker.depthwise import DepthwiseFusion, DepthwiseHead
from tracker.heads import CHANNELS, CoarseFusion, CoarseHead, CoarseMaps
from tracker.labels import assign, choose, encode, iou, priorities
from tracker.losses import Term, loss_terms, stage_terms

__all__ = ["SiamRPN", "coarse_terms"]


class SiamRPN(nn.Module):
    """SiamRPN on any backbone.

    Parameters
    ----------
    backbone : shared by template and search
    config : the rest
    feature : feature that is correlated
    depthwise : correlate each channel with itself, instead of up-channel
    """

    anchors: Tensor

    def __init__(
        self, backbone: Backbone, config: ModelConfig, *, feature: str, depthwise: bool
    ) -> None:
        super().__init__()
        inputs, channels = backbone.channels[feature], narrow(CHANNELS, config.width)
        self.config, self.feature, self.depthwise = config, feature, depthwise
        self.z_net = backbone
        self.fusion = (DepthwiseFusion if depthwise else CoarseFusion)(inputs, channels)
        self.head = DepthwiseHead(channels) if depthwise else CoarseHead()
        self.register_buffer("anchors", anchor_boxes(config.grid), persistent=False)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Backbone features of crops (B,3,255,255), by name."""
        return dict(self.z_net(image))

    def kernels(self, template: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Correlation filters of templates, from their features: one tensor a branch.

        Up-channel (B,10,C,4,4) and (B,20,C,4,4); depth-wise (B,C,4,4), for both branches.
        """
        return self.fusion.kernels(template[self.feature])

    def coarse(self, kernels: tuple[Tensor, ...], search: dict[str, Tensor]) -> CoarseMaps:
        """Maps of search features: logits (B,1445,2) and deltas (B,1445,4)."""
        maps: CoarseMaps = self.head(*self.fusion(kernels, search[self.feature]))
        return maps

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
        """Losses of a batch of pairs; the arguments are those of `SPM.forward`.

        `template_box` is not used: the middle of the template crop is what is looked for.

        Returns
        -------
        ``cls``, ``reg``: float32 scalars; the loss is their sum. (The stage's prefix is left out
        as it is in the names of the parameters: there is one stage.)
        """
        del template_box
        z, x = pair_features(self.z_net, template, search)
        maps = self.coarse(self.kernels(z), x)
        cls, reg = coarse_terms(
            maps, self.anchors, search_box.float(), positive, sample, epoch, config=self.config
        )
        return loss_terms({"cls": cls, "reg": reg}, self.config.normalise)


def coarse_terms(
    maps: CoarseMaps,
    anchors: Tensor,
    search_box: Tensor,
    positive: Tensor,
    sample: Tensor,
    epoch: int | Tensor,
    *,
    config: ModelConfig,
) -> tuple[Term, Term]:
    """Losses of the coarse maps over a chosen few of the anchors.

    Parameters
    ----------
    maps : of the batch
    anchors : (1445,4) float32 xyxy, pixels of the search crop
    search_box : (B,4) float32 xyxy, the same crop
    positive, sample, epoch : as in `SPM.forward`
    config : ``coarse`` and ``seed`` are used

    Returns
    -------
    classification and regression
    """
    box = search_box[:, None]
    labels = assign(iou(anchors, box), positive, config.coarse.assign)
    priority = priorities(config.seed, epoch, sample, len(anchors))
    labels = choose(labels, priority, config.coarse.sample)
    return stage_terms(*maps, labels, encode(anchors, box))
