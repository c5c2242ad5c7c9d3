"""The ``model:`` section of a configuration: which model, its training step and its tracking."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from types import SimpleNamespace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from configs.document import Contradiction
from shards.geometry import Grid
from tracker.labels import AssignConfig, SampleConfig
from tracker.losses import Normalise
from tracker.proposals import ProposalConfig
from tracker.response import ResponseConfig
from tracker.rules import TrackConfig

__all__ = ["CoarseConfig", "FineConfig", "ModelConfig", "ModelName"]

ModelName = Literal[
    "spm_alexnet", "spm_r18c4", "siamrpn_alexnet", "siamrpn_alexnet_dw", "siamfc_alexnet"
]

_SIAMRPN_LACKS = (
    "proposals", "fine", "response", "track.match.proposals", "track.match.fine_weight",
    "track.scale",
)  # fmt: skip
# Sections and keys that would be without effect; other values than the defaults are an error.
LACKS: dict[ModelName, tuple[str, ...]] = {
    "spm_alexnet": ("response", "track.scale"),
    "spm_r18c4": ("response", "track.scale"),
    "siamrpn_alexnet": _SIAMRPN_LACKS,
    "siamrpn_alexnet_dw": _SIAMRPN_LACKS,
    "siamfc_alexnet": ("coarse", "proposals", "fine", "track.match"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseConfig:
    """Targets of the coarse stage: who is positive, and how many anchors count.

    Parameters
    ----------
    assign : overlaps that make an anchor positive or negative
    sample : how many anchors of a sample enter the loss
    """

    assign: AssignConfig = field(default_factory=AssignConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class FineConfig:
    """Targets of the fine stage; all proposals with a label count.

    Parameters
    ----------
    assign : overlaps that make a proposal positive or negative
    """

    assign: AssignConfig = field(
        default_factory=lambda: AssignConfig(positive_iou=0.50, negative_iou=0.45, best_iou=0.45)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A model, its training step and its tracking; the defaults are the published ones.

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
    coarse : targets of the anchors (SPM, SiamRPN)
    proposals, fine : what the fine stage trains on (SPM)
    response : targets of the response map (SiamFC)
    track : numbers of tracking

    A section that the model does not have must be left out or keep its defaults.
    """

    name: ModelName = "spm_alexnet"
    init: str = "auto"
    pretrained: str = "data/pretrained"
    grid: Grid = "edge"
    width: Annotated[float, Gt(0), Le(1)] = 1.0
    seed: Annotated[int, Ge(0), Lt(2**63)] = 7
    normalise: Normalise = "global"
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    fine: FineConfig = field(default_factory=FineConfig)
    response: ResponseConfig = field(default_factory=ResponseConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        if not self.init:
            raise Contradiction(
                "init must be auto, imagenet, random or the path of a file of weights", "init"
            )
        plain = SimpleNamespace(
            coarse=CoarseConfig(),
            proposals=ProposalConfig(),
            fine=FineConfig(),
            response=ResponseConfig(),
            track=TrackConfig(),
        )
        for key in LACKS[self.name]:
            if attrgetter(key)(self) != attrgetter(key)(plain):
                raise Contradiction(f"{self.name} has no '{key}': leave it out", key, "name")
