"""From the coarse maps to a few boxes a sample: decode, rank, non-maximum suppression.

Only the first `keep` survivors are wanted, so suppression is `keep` rounds of "take the best, drop
what overlaps it", each for the whole batch at once: fixed shapes, no host synchronisation, no loop
over samples. The result is that of the usual sorted form cut after `keep` (torchvision's rule: IoU
> threshold goes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from tracker.labels import decode, iou

__all__ = ["ProposalConfig", "Proposals", "propose", "survivors", "with_target"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalConfig:
    """Proposals of the coarse stage; the defaults are those of training.

    Parameters
    ----------
    keep : boxes a sample after suppression
    nms_iou : a box that overlaps a better one by more than this is dropped
    """

    keep: Annotated[int, Ge(1), Le(1445)] = 12
    nms_iou: Annotated[float, Gt(0), Le(1)] = 0.75


class Proposals(NamedTuple):
    """Boxes that the fine stage judges.

    ``boxes`` (B,N,4) float32 xyxy, search crop; ``scores`` (B,N) float32, probability of the
    target; ``valid`` (B,N) bool, False where suppression left fewer than N (the box there is a
    repetition).
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor


def survivors(boxes: Tensor, scores: Tensor, config: ProposalConfig) -> tuple[Tensor, Tensor]:
    """Choose the best boxes by greedy non-maximum suppression.

    Parameters
    ----------
    boxes : (B,K,4) float32 xyxy
    scores : (B,K) float32, finite, anything that orders the boxes
    config : how many, and the threshold

    Returns
    -------
    index : (B,keep) int64, best first
    valid : (B,keep) bool
    """
    left = scores
    index, valid = [], []
    for _ in range(config.keep):
        value, best = left.max(dim=1, keepdim=True)
        index.append(best)
        valid.append(value > -torch.inf)
        kept = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        left = left.masked_fill(iou(boxes, kept) > config.nms_iou, -torch.inf)
        left = left.scatter(1, best, -torch.inf)  # also a box without area, whose IoU is 0
    return torch.cat(index, dim=1), torch.cat(valid, dim=1)


@torch.no_grad()
def propose(logits: Tensor, deltas: Tensor, anchors: Tensor, config: ProposalConfig) -> Proposals:
    """Proposals from the coarse maps, without gradient; no score threshold, no clipping.

    Parameters
    ----------
    logits : (B,K,2) float, class 1 is the target
    deltas : (B,K,4) float
    anchors : (K,4) float32 xyxy
    config : how many, and the threshold

    Returns
    -------
    Proposals, N = ``config.keep``, best first
    """
    boxes = decode(anchors, deltas)
    # The margin orders as the probability does, without its ties near 0 and 1.
    margin = logits[..., 1].float() - logits[..., 0].float()
    index, valid = survivors(boxes, margin, config)
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Proposals(chosen, margin.gather(1, index).sigmoid(), valid)


def with_target(proposals: Proposals, box: Tensor) -> Proposals:
    """Put the target's own box (B,4) first, with score 1, as training does."""
    return Proposals(
        torch.cat([box[:, None].to(proposals.boxes.dtype), proposals.boxes], dim=1),
        torch.cat([torch.ones_like(proposals.scores[:, :1]), proposals.scores], dim=1),
        torch.cat([torch.ones_like(proposals.valid[:, :1]), proposals.valid], dim=1),
    )
