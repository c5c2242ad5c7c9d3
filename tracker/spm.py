"""SPM (Wang et al., "SPM-Tracker: Series-Parallel Matching", CVPR 2019): matching twice.

The coarse stage, which is SiamRPN's, correlates template and search into 1,445 anchors; the best
become a few proposals; the fine stage relates each proposal's features with the template's.
``forward`` is one training step's loss; a tracker calls the stages one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shards.geometry import anchor_origin
from tracker.anchors import SEARCH_PX, STRIDE_PX, anchor_boxes
from tracker.backbones import Backbone, narrow, pair_features
from tracker.config import ModelConfig
from tracker.heads import CHANNELS, CoarseFusion, CoarseHead, CoarseMaps, FineFusion, FineHead
from tracker.labels import assign, decode, encode, iou
from tracker.losses import Term, loss_terms, stage_terms
from tracker.proposals import ProposalConfig, Proposals, propose, with_target
from tracker.roi import roi_align
from tracker.siamrpn import coarse_terms

__all__ = ["SPM"]

FEATURE_CELLS = 32
FINE_STD = 0.1


class SPM(nn.Module):
    """SPM on any backbone.

    Parameters
    ----------
    backbone : shared by template and search
    config : the rest
    coarse_feature : feature that is correlated
    fine_features : features, of stride 8, that are concatenated for the fine stage
    """

    anchors: Tensor

    def __init__(
        self,
        backbone: Backbone,
        config: ModelConfig,
        *,
        coarse_feature: str,
        fine_features: tuple[str, ...],
    ) -> None:
        super().__init__()
        channels = narrow(CHANNELS, config.width)
        fine_inputs = sum(backbone.channels[name] for name in fine_features)
        self.config, self.coarse_feature, self.fine_features = config, coarse_feature, fine_features
        self.z_net = backbone
        self.cm_fusion = CoarseFusion(backbone.channels[coarse_feature], channels)
        self.cm_head = CoarseHead()
        self.fm_fusion = FineFusion(fine_inputs, channels)
        self.fm_head = FineHead(channels, channels)
        self.register_buffer("anchors", anchor_boxes(config.grid), persistent=False)
        # Published: the features' middle stands for the middle of the crop; -3 px in `corner`.
        middle_px = (FEATURE_CELLS - 1) / 2 * STRIDE_PX
        self.roi_shift_px = middle_px - anchor_origin(SEARCH_PX, config.grid)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Backbone features of crops (B,3,255,255), by name."""
        return dict(self.z_net(image))

    def kernels(self, template: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Correlation filters of templates, from their features: (B,10,C,4,4) and (B,20,C,4,4)."""
        return self.cm_fusion.kernels(template[self.coarse_feature])

    def coarse(self, kernels: tuple[Tensor, ...], search: dict[str, Tensor]) -> CoarseMaps:
        """Coarse maps of search features: logits (B,1445,2) and deltas (B,1445,4)."""
        cls, reg = self.cm_fusion(kernels, search[self.coarse_feature])
        maps: CoarseMaps = self.cm_head(cls, reg)
        return maps

    def propose(self, maps: CoarseMaps, config: ProposalConfig) -> Proposals:
        """Best boxes of the coarse maps after suppression, search crop pixels; no gradient."""
        return propose(maps.logits, maps.deltas, self.anchors, config)

    def template_part(self, template: dict[str, Tensor], box: Tensor) -> Tensor:
        """Template's share of the fine relation, (B,C,6,6), from its features and its box (B,4)."""
        return self.fm_fusion.template_part(self._regions(template, box[:, None])[:, 0])

    def fine(
        self, template_part: Tensor, search: dict[str, Tensor], boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Judge boxes in the search crop.

        Parameters
        ----------
        template_part : (B,C,6,6) of `template_part`
        search : features of the search crops
        boxes : (B,N,4) float32 xyxy, pixels of the search crop

        Returns
        -------
        logits (B,N,2) and deltas (B,N,4); `refine` applies the deltas
        """
        logits, deltas = self.fm_head(self.fm_fusion(template_part, self._regions(search, boxes)))
        return logits, deltas

    def refine(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (B,N,4) moved by the deltas of the fine stage, float32 xyxy."""
        return decode(boxes, deltas, FINE_STD)

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
        """Losses of a batch of pairs. Every parameter takes part, also where nothing is positive.

        Parameters
        ----------
        template, search : (B,3,255,255) float, normalised RGB
        template_box, search_box : (B,4) float xyxy, pixels of the crop; of two objects in a
            negative pair
        positive : (B,) bool, whether both show the same object
        sample : (B,) int64, numbers of the pairs in the epoch; with `epoch` they choose the anchors
        epoch : number of the epoch

        Returns
        -------
        ``cm_cls``, ``cm_reg``, ``fm_cls``, ``fm_reg``: float32 scalars; the loss is their sum

        Raises
        ------
        ValueError : if a crop has another size
        """
        template_box, search_box = template_box.float(), search_box.float()
        z, x = pair_features(self.z_net, template, search)
        maps = self.coarse(self.kernels(z), x)
        proposals = with_target(self.propose(maps, self.config.proposals), search_box)
        fine = self.fine(self.template_part(z, template_box), x, proposals.boxes)
        cm = coarse_terms(
            maps, self.anchors, search_box, positive, sample, epoch, config=self.config
        )
        fm = self._fine_terms(fine, proposals, search_box, positive)
        terms = {"cm_cls": cm[0], "cm_reg": cm[1], "fm_cls": fm[0], "fm_reg": fm[1]}
        return loss_terms(terms, self.config.normalise)

    def _regions(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Concatenated features of boxes (B,N,4) -> (B,N,inputs,6,6)."""
        joined = torch.cat([features[name] for name in self.fine_features], dim=1)
        return roi_align(joined, boxes, stride_px=STRIDE_PX, shift_px=self.roi_shift_px)

    def _fine_terms(
        self,
        fine: tuple[Tensor, Tensor],
        proposals: Proposals,
        search_box: Tensor,
        positive: Tensor,
    ) -> tuple[Term, Term]:
        """Losses of the fine stage over all proposals."""
        box = search_box[:, None]
        overlap = iou(proposals.boxes, box)
        labels = assign(overlap, positive, self.config.fine.assign, proposals.valid)
        return stage_terms(*fine, labels, encode(proposals.boxes, box, FINE_STD))
