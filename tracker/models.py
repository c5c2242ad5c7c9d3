"""Models put together from the parts: composition, configuration, first weights.

SPM (Wang et al., "SPM-Tracker: Series-Parallel Matching", CVPR 2019) matches twice. The coarse
stage correlates template and search into 1,445 anchors; the best become a few proposals; the fine
stage relates each proposal's features with the template's. ``forward`` is one training step's loss;
a tracker calls the stages one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from shards.geometry import Grid, anchor_origin
from tracker import weights
from tracker.anchors import SEARCH_PX, STRIDE_PX, anchor_boxes
from tracker.backbones import ALEXNET_CHANNELS, AlexNet, Backbone
from tracker.heads import CoarseFusion, CoarseHead, CoarseMaps, FineFusion, FineHead
from tracker.labels import (
    AssignConfig,
    SampleConfig,
    assign,
    choose,
    decode,
    encode,
    iou,
    priorities,
)
from tracker.losses import Normalise, StageSums, loss_terms, stage_sums
from tracker.proposals import ProposalConfig, Proposals, propose, with_target
from tracker.roi import roi_align
from tracker.rules import TrackConfig

__all__ = [
    "SPM",
    "CoarseConfig",
    "FineConfig",
    "InitReport",
    "ModelConfig",
    "build",
    "initialise",
    "narrow",
]

CHANNELS = 256  # of the correlation, the relation and the hidden layers, at width 1
FEATURE_CELLS = 32
FINE_STD = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseConfig:
    """Targets of the coarse stage: who is positive, and how many anchors count."""

    assign: AssignConfig = field(default_factory=AssignConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class FineConfig:
    """Targets of the fine stage; all proposals with a label count."""

    assign: AssignConfig = field(
        default_factory=lambda: AssignConfig(positive_iou=0.50, negative_iou=0.45, best_iou=0.45)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A model and its training step.

    Parameters
    ----------
    name : which model
    init : first weights: ``auto`` (ImageNet from `pretrained` or the net, else random with a
        warning), ``imagenet`` (the same, but an error if there are none), ``random``, or the path
        of a file
    pretrained : folder that is searched for ``alexnet*.pth`` and the like
    grid : how pixels lie in crops (`shards.geometry`); must be that of the data
    width : factor on all channels but the outputs, rounded to a multiple of 8, for tests and demos;
        ImageNet weights fit only width 1, the published model
    seed : of the random weights and of the choice of anchors
    normalise : whether losses are divided by the counts of the whole batch or of each GPU's share
    coarse, proposals, fine : numbers of the training step
    track : numbers of tracking
    """

    name: Literal["spm_alexnet"] = "spm_alexnet"
    init: str = "auto"
    pretrained: str = "data/pretrained"
    grid: Grid = "edge"
    width: Annotated[float, Gt(0), Le(1)] = 1.0
    seed: Annotated[int, Ge(0), Lt(2**63)] = 7
    normalise: Normalise = "global"
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    fine: FineConfig = field(default_factory=FineConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        if not self.init:
            raise ValueError("init must be auto, imagenet, random or the path of a file of weights")


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

    def kernels(self, template: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Correlation filters of templates, from their features: (B,10,C,4,4) and (B,20,C,4,4)."""
        return self.cm_fusion.kernels(template[self.coarse_feature])

    def coarse(self, kernels: tuple[Tensor, Tensor], search: dict[str, Tensor]) -> CoarseMaps:
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
        for name, image in (("template", template), ("search", search)):
            if image.shape[1:] != (3, SEARCH_PX, SEARCH_PX):
                raise ValueError(
                    f"{name} must be (B, 3, {SEARCH_PX}, {SEARCH_PX}), got {tuple(image.shape)}"
                )
        template_box, search_box = template_box.float(), search_box.float()
        z, x = self.features(template), self.features(search)
        maps = self.coarse(self.kernels(z), x)
        proposals = with_target(self.propose(maps, self.config.proposals), search_box)
        fine = self.fine(self.template_part(z, template_box), x, proposals.boxes)
        stages = {
            "cm": self._coarse_sums(maps, search_box, positive, sample, epoch),
            "fm": self._fine_sums(fine, proposals, search_box, positive),
        }
        return loss_terms(stages, self.config.normalise)

    def _regions(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Concatenated features of boxes (B,N,4) -> (B,N,inputs,6,6)."""
        joined = torch.cat([features[name] for name in self.fine_features], dim=1)
        return roi_align(joined, boxes, stride_px=STRIDE_PX, shift_px=self.roi_shift_px)

    def _coarse_sums(
        self,
        maps: CoarseMaps,
        search_box: Tensor,
        positive: Tensor,
        sample: Tensor,
        epoch: int | Tensor,
    ) -> StageSums:
        """Losses of the coarse stage over a chosen few of the anchors."""
        box, config = search_box[:, None], self.config.coarse
        labels = assign(iou(self.anchors, box), positive, config.assign)
        priority = priorities(self.config.seed, epoch, sample, len(self.anchors))
        labels = choose(labels, priority, config.sample)
        return stage_sums(*maps, labels, encode(self.anchors, box))

    def _fine_sums(
        self,
        fine: tuple[Tensor, Tensor],
        proposals: Proposals,
        search_box: Tensor,
        positive: Tensor,
    ) -> StageSums:
        """Losses of the fine stage over all proposals."""
        box = search_box[:, None]
        overlap = iou(proposals.boxes, box)
        labels = assign(overlap, positive, self.config.fine.assign, proposals.valid)
        return stage_sums(*fine, labels, encode(proposals.boxes, box, FINE_STD))


def narrow(channels: int, width: float) -> int:
    """Channels at a width: the nearest multiple of 8, at least 8."""
    return max(8, 8 * math.floor(channels * width / 8 + 0.5))


def build(config: ModelConfig) -> SPM:
    """Model with random weights; `initialise` gives it those that the configuration asks for.

    Parameters
    ----------
    config : the model

    Returns
    -------
    SPM on the CPU, in training mode. The same seed gives the same weights; global random states
    stay.
    """
    c1, c2, c3, c4, c5 = (narrow(c, config.width) for c in ALEXNET_CHANNELS)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made
        model = SPM(
            AlexNet((c1, c2, c3, c4, c5)),
            config,
            coarse_feature="conv5",
            fine_features=("conv2", "conv4"),
        )
    weights.randomise(model, config.seed)
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport:
    """Where the first weights came from, and what the user should know about it (else None)."""

    source: str
    warning: str | None = None


def initialise(model: SPM, config: ModelConfig) -> InitReport:
    """Give a model its first weights.

    In a distributed run call it on rank 0 alone, before DistributedDataParallel is made: that
    copies the parameters of rank 0 to the others, so one process reads or downloads.

    Parameters
    ----------
    model : of `build`; changed in place
    config : ``init``, ``pretrained``, ``seed`` and ``width`` are used

    Returns
    -------
    InitReport

    Raises
    ------
    WeightsError : if the weights that were asked for cannot be had or do not fit, or if a file that
        is there is damaged
    """
    weights.randomise(model, config.seed)
    if config.init == "random":
        return InitReport(source=f"random, seed {config.seed}")
    if config.init not in ("auto", "imagenet"):
        return _from_file(model, Path(config.init))
    try:
        if config.width != 1:
            raise weights.UnavailableWeights(
                f"no ImageNet weights fit a model of width {config.width}"
            )
        path = weights.imagenet_file(model.z_net.pretrained, Path(config.pretrained))
    except weights.UnavailableWeights as error:
        if config.init == "imagenet":
            raise
        warning = f"{error}. The backbone starts from random weights."
        return InitReport(source=f"random, seed {config.seed}", warning=warning)
    weights.load_backbone(model.z_net, weights.read_state(path), str(path))
    return InitReport(source=f"ImageNet, {path}")


def _from_file(model: SPM, path: Path) -> InitReport:
    """Load a file that was named: a whole model, or a backbone alone."""
    if not path.is_file():
        raise weights.WeightsError(
            f"model.init: {path} is no file; give auto, imagenet, random, or the path of weights"
        )
    state = weights.read_state(path)
    backbone = set(model.z_net.state_dict())
    if all(k.removeprefix("z_net.") in backbone for k in state) or any(
        k in state for k in model.z_net.pretrained.names
    ):
        weights.load_backbone(model.z_net, state, str(path))
        return InitReport(source=f"backbone, {path}")
    weights.load_model(model, state, str(path))
    return InitReport(source=f"model, {path}")
