"""Slow, obvious forms of the training step: one sample, one box, one pixel at a time.

Written from the formulas alone, with loops, scalars and float64, as judge of the batched code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    """Return the SplitMix64 number of a state that was already advanced."""
    x = state & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def priority(seed: int, epoch: int, sample: int, candidate: int) -> int:
    state = splitmix(seed + GOLDEN)
    state = splitmix((state ^ epoch) + GOLDEN)
    state = splitmix((state ^ sample) + GOLDEN)
    return splitmix(state + (candidate + 1) * GOLDEN) >> 1


def iou(a: Sequence[float], b: Sequence[float]) -> np.float32:
    """Overlap in float32, so that thresholds fall as they do in the batched code."""
    f = np.float32
    a, b = [f(v) for v in a], [f(v) for v in b]
    zero = f(0)
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), zero) * max(
        min(a[3], b[3]) - max(a[1], b[1]), zero
    )
    area_a = max(a[2] - a[0], zero) * max(a[3] - a[1], zero)
    area_b = max(b[2] - b[0], zero) * max(b[3] - b[1], zero)
    union = area_a + area_b - inter
    return inter / union if union > 0 else zero


def assign(
    overlaps: Sequence[float],
    positive: bool,
    high: float,
    low: float,
    least: float,
    valid: Sequence[bool] | None = None,
) -> list[int]:
    valid = [True] * len(overlaps) if valid is None else valid
    best = max((o for o, v in zip(overlaps, valid, strict=True) if v), default=-1.0)
    labels = []
    for overlap in overlaps:
        label = -1
        if overlap < np.float32(low):
            label = 0
        if overlap >= np.float32(high) or (best >= np.float32(least) and overlap == best):
            label = 1
        labels.append(label)
    if not positive or not any(label == 1 and v for label, v in zip(labels, valid, strict=True)):
        labels = [0] * len(labels)
    return [label if v else -1 for label, v in zip(labels, valid, strict=True)]


def choose(labels: Sequence[int], order: Sequence[int], total: int, most: int) -> list[int]:
    """Keep the first of each kind in the order of their priorities."""
    ranked = sorted(range(len(labels)), key=lambda k: order[k])
    positives = [k for k in ranked if labels[k] == 1][:most]
    negatives = [k for k in ranked if labels[k] == 0][: total - len(positives)]
    return [labels[k] if k in {*positives, *negatives} else -1 for k in range(len(labels))]


def encode(candidate: Sequence[float], box: Sequence[float], std: float) -> list[float]:
    pw, ph = candidate[2] - candidate[0], candidate[3] - candidate[1]
    px, py = candidate[0] + pw / 2, candidate[1] + ph / 2
    gw, gh = box[2] - box[0], box[3] - box[1]
    gx, gy = box[0] + gw / 2, box[1] + gh / 2
    deltas = [(gx - px) / pw, (gy - py) / ph, math.log(gw / pw), math.log(gh / ph)]
    return [d / std for d in deltas]


def decode(candidate: Sequence[float], deltas: Sequence[float], std: float) -> list[float]:
    dx, dy, dw, dh = (d * std for d in deltas)
    pw, ph = candidate[2] - candidate[0], candidate[3] - candidate[1]
    cx, cy = candidate[0] + pw / 2 + dx * pw, candidate[1] + ph / 2 + dy * ph
    limit = math.log(8)
    w = pw * math.exp(min(max(dw, -limit), limit))
    h = ph * math.exp(min(max(dh, -limit), limit))
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def suppress(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], nms_iou: float, keep: int
) -> list[int]:
    """Sorted greedy suppression, cut after `keep`."""
    kept: list[int] = []
    for k in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        if all(iou(boxes[k], boxes[j]) <= np.float32(nms_iou) for j in kept):
            kept.append(k)
        if len(kept) == keep:
            break
    return kept


def bilinear(feature: Tensor, y: float, x: float) -> Tensor:
    """Value of a (C,H,W) feature at a point, cells at whole numbers."""
    _, h, w = feature.shape
    if y < -1 or y > h or x < -1 or x > w:
        return feature[:, 0, 0] * 0
    y, x = min(max(y, 0.0), h - 1.0), min(max(x, 0.0), w - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    fy, fx = y - y0, x - x0
    return (
        feature[:, y0, x0] * (1 - fy) * (1 - fx)
        + feature[:, y0, x1] * (1 - fy) * fx
        + feature[:, y1, x0] * fy * (1 - fx)
        + feature[:, y1, x1] * fy * fx
    )


def roi_align(
    feature: Tensor, box: Sequence[float], stride: float, shift: float, bins: int = 6
) -> Tensor:
    """(C,H,W) float64 -> (C,bins,bins), 2x2 samples at thirds of each bin."""
    x0, y0, x1, y1 = ((v + shift) / stride for v in box)
    bin_h, bin_w = (y1 - y0) / bins, (x1 - x0) / bins
    rows = []
    for i in range(bins):
        row = []
        for j in range(bins):
            samples = [
                bilinear(feature, y0 + i * bin_h + a * bin_h / 3, x0 + j * bin_w + b * bin_w / 3)
                for a in (1, 2)
                for b in (1, 2)
            ]
            row.append(sum(samples[1:], samples[0]) / 4)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def stage_loss(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    labels: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[Sequence[float]]],
    boxes: Sequence[Sequence[float]],
    std: float,
) -> tuple[Tensor, Tensor]:
    """Both terms of a stage over a batch, float64, with gradient."""
    cls, reg = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    positives = negatives = 0
    for b, row in enumerate(labels):
        positives += max(sum(label == 1 for label in row), 1)
        negatives += max(sum(label == 0 for label in row), 1)
        for k, label in enumerate(row):
            if label == -1:
                continue
            pair = logits[b][k].double()
            cls = cls + torch.log(torch.exp(pair[0]) + torch.exp(pair[1])) - pair[label]
            if label == 1:
                want = encode(candidates[b][k], boxes[b], std)
                for d in range(4):
                    reg = reg + (deltas[b][k, d].double() - want[d]).abs()
    return cls / (positives + negatives), reg / positives
