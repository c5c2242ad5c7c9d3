"""The training step as it is written first: a Python loop over the samples of a batch.

It is the baseline of `benchmarks.step`: torch and torchvision inside, but one sample at a time for
overlap, assignment, choice, suppression, RoIAlign and losses. The convolutions and layers of the
heads see the whole batch, as everybody writes them. Losses are those of the models' own step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, nms

from tracker.anchors import STRIDE_PX
from tracker.labels import AssignConfig, SampleConfig, decode, encode, priorities
from tracker.roi import BINS
from tracker.siamrpn import SiamRPN
from tracker.spm import FINE_STD, SPM

__all__ = ["per_sample_terms"]


class Sums(NamedTuple):
    """Losses and counts of one sample."""

    cls: Tensor
    reg: Tensor
    positives: int
    negatives: int


def overlap_of(candidates: Tensor, box: Tensor) -> Tensor:
    """IoU (K,) of candidates (K,4) with a box (4,); that of two empty boxes is 0."""
    return box_iou(candidates, box[None])[:, 0].nan_to_num()


def assigned(overlap: Tensor, positive: bool, config: AssignConfig) -> Tensor:
    """Labels (K,) int64 of candidates by their overlap with the target."""
    labels = torch.full_like(overlap, -1, dtype=torch.int64)
    labels[overlap < config.negative_iou] = 0
    if positive:
        labels[overlap >= config.positive_iou] = 1
        best = overlap.max()
        if best >= config.best_iou:
            labels[overlap == best] = 1
    if not (labels == 1).any():
        labels[:] = 0
    return labels


def chosen(labels: Tensor, priority: Tensor, config: SampleConfig) -> Tensor:
    """Labels (K,) of a random few, the rest ignored; `priority` (K,) stands for a shuffle."""
    positives, negatives = ((labels == kind).nonzero()[:, 0] for kind in (1, 0))
    positives = positives[priority[positives].argsort()][: config.positives]
    negatives = negatives[priority[negatives].argsort()][: config.anchors - len(positives)]
    few = torch.full_like(labels, -1)
    few[positives], few[negatives] = 1, 0
    return few


def sample_sums(
    logits: Tensor, deltas: Tensor, labels: Tensor, candidates: Tensor, box: Tensor, std: float
) -> Sums:
    """Losses of one sample, from logits (K,2), deltas (K,4), candidates (K,4) and its box (4,)."""
    counted, positives = (labels >= 0).nonzero()[:, 0], (labels == 1).nonzero()[:, 0]
    cls = F.cross_entropy(logits[counted].float(), labels[counted], reduction="sum")
    target = encode(candidates[positives], box, std)
    reg = (deltas[positives].float() - target).abs().sum()
    return Sums(cls, reg, max(1, len(positives)), max(1, len(counted) - len(positives)))


def regions(feature: Tensor, boxes: Tensor, shift_px: float) -> Tensor:
    """RoIAlign of one sample: feature (C,H,W) and boxes (N,4) -> (N,C,6,6), samples at thirds."""
    height, width = feature.shape[1:]
    scaled = (boxes + shift_px) / STRIDE_PX
    thirds = torch.tensor([1 / 3, 2 / 3], device=boxes.device)
    offset = ((torch.arange(BINS, device=boxes.device)[:, None] + thirds) / BINS).flatten()
    x = scaled[:, 0:1] + (scaled[:, 2:3] - scaled[:, 0:1]) * offset
    y = scaled[:, 1:2] + (scaled[:, 3:4] - scaled[:, 1:2]) * offset
    inside = ((x >= -1) & (x <= width))[:, None, :] & ((y >= -1) & (y <= height))[:, :, None]
    x, y = x * 2 / (width - 1) - 1, y * 2 / (height - 1) - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    points = F.grid_sample(  # of all options that were tried the fastest, also backwards
        feature[None], grid.reshape(1, -1, 2 * BINS, 2), padding_mode="border", align_corners=True
    )
    points = points[0].view(-1, len(boxes), 2 * BINS, 2 * BINS) * inside
    bins = points.view(*points.shape[:2], BINS, 2, BINS, 2).mean(dim=(3, 5))
    return bins.transpose(0, 1)


def proposed(logits: Tensor, deltas: Tensor, box: Tensor, model: SPM) -> Tensor:
    """Box of the target and the best after suppression, (1 + at most 12, 4), of one sample."""
    config = model.config.proposals
    with torch.no_grad():
        decoded = decode(model.anchors, deltas)
        margin = logits[:, 1].float() - logits[:, 0].float()
        best = nms(decoded, margin, config.nms_iou)[: config.keep]
        return torch.cat([box[None], decoded[best]])


def fine_sums(model: SPM, z: Any, x: Any, maps: Any, batch: dict[str, Any]) -> list[Sums]:
    """Losses of the fine stage by sample."""
    count, shift, box = len(batch["sample"]), model.roi_shift_px, batch["search_box"].float()

    def features(of: Any, boxes: list[Tensor]) -> Tensor:
        return torch.cat(
            [
                torch.cat([regions(of[name][b], boxes[b], shift) for b in range(count)])
                for name in model.fine_features
            ],
            dim=1,
        )

    boxes = [proposed(maps.logits[b], maps.deltas[b], box[b], model) for b in range(count)]
    owner = torch.cat([torch.full((len(one),), b) for b, one in enumerate(boxes)])
    template = list(batch["template_box"].float()[:, None])
    part = model.fm_fusion.template_part(features(z, template))
    relation = model.fm_fusion(part[owner], features(x, boxes)[:, None])
    logits, deltas = model.fm_head(relation)
    found = []
    for b in range(count):
        labels = assigned(
            overlap_of(boxes[b], box[b]), bool(batch["positive"][b]), model.config.fine.assign
        )
        mine = owner == b
        found.append(
            sample_sums(logits[mine][:, 0], deltas[mine][:, 0], labels, boxes[b], box[b], FINE_STD)
        )
    return found


def coarse_sums(
    model: SPM | SiamRPN, maps: Any, batch: dict[str, Any], order: Tensor
) -> list[Sums]:
    """Losses of the coarse stage by sample."""
    found = []
    for b, box in enumerate(batch["search_box"].float()):
        labels = assigned(
            overlap_of(model.anchors, box), bool(batch["positive"][b]), model.config.coarse.assign
        )
        labels = chosen(labels, order[b], model.config.coarse.sample)
        found.append(sample_sums(maps.logits[b], maps.deltas[b], labels, model.anchors, box, 1.0))
    return found


def shuffled(model: SPM | SiamRPN, batch: dict[str, Any], epoch: int) -> Tensor:
    """Priorities (B,1445) by which the models choose; ready-made for the loop."""
    return priorities(model.config.seed, epoch, batch["sample"], len(model.anchors))


def per_sample_terms(
    model: SPM | SiamRPN, batch: dict[str, Any], order: Tensor
) -> dict[str, Tensor]:
    """Loss terms of a batch, under the names that the model gives them.

    Parameters
    ----------
    model : whose backbone and heads are used
    batch : arguments of the model but the epoch
    order : (B,1445) int64 of `shuffled`
    """
    z, x = model.features(batch["template"]), model.features(batch["search"])
    maps = model.coarse(model.kernels(z), x)
    stages = {"cm_" if isinstance(model, SPM) else "": coarse_sums(model, maps, batch, order)}
    if isinstance(model, SPM):
        stages["fm_"] = fine_sums(model, z, x, maps, batch)
    terms: dict[str, Tensor] = {}
    for prefix, sums in stages.items():
        positives = sum(one.positives for one in sums)
        negatives = sum(one.negatives for one in sums)
        terms[f"{prefix}cls"] = sum(one.cls for one in sums) / (positives + negatives)
        terms[f"{prefix}reg"] = sum(one.reg for one in sums) / positives
    return terms
