"""What each candidate box should become: overlap, deltas, assignment, and the choice of a few.

Boxes are (..., 4) float32 xyxy in pixels of the search crop. A *candidate* is an anchor (coarse
stage) or a proposal (fine stage). Labels are 1 positive, 0 negative, -1 ignored. Pure tensors, no
loop over samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from configs.document import Contradiction

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "POSITIVE",
    "AssignConfig",
    "SampleConfig",
    "assign",
    "choose",
    "decode",
    "encode",
    "iou",
    "priorities",
]

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
LOG_SIZE_LIMIT = math.log(8)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignConfig:
    """Overlaps that make a candidate positive or negative; the class's defaults are of the anchors.

    Parameters
    ----------
    positive_iou : at least this is positive
    negative_iou : below this is negative; in between is ignored
    best_iou : if the best overlap of a sample reaches this, every candidate equal to it is positive
    """

    positive_iou: Annotated[float, Gt(0), Le(1)] = 0.60
    negative_iou: Annotated[float, Gt(0), Le(1)] = 0.30
    best_iou: Annotated[float, Gt(0), Le(1)] = 0.50

    def __post_init__(self) -> None:
        if self.negative_iou > min(self.positive_iou, self.best_iou):
            raise Contradiction(
                f"negative_iou {self.negative_iou} must not exceed positive_iou "
                f"{self.positive_iou} or best_iou {self.best_iou}: a candidate would be both",
                "negative_iou",
                "positive_iou",
                "best_iou",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How many anchors of a sample enter the coarse loss.

    Parameters
    ----------
    anchors : positives and negatives together
    positives : at most this many positives; negatives take all places that are left
    """

    anchors: Annotated[int, Ge(1), Le(1445)] = 64
    positives: Annotated[int, Ge(1), Le(1445)] = 16

    def __post_init__(self) -> None:
        if self.positives > self.anchors:
            raise Contradiction(
                f"positives {self.positives} must not exceed anchors {self.anchors}",
                "positives",
                "anchors",
            )


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, with broadcasting; widths are ``x1 - x0``, empty boxes give 0.

    Parameters
    ----------
    a, b : (..., 4) float xyxy, the same frame

    Returns
    -------
    (...) float
    """
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)
    union = area_a + area_b - shared
    return torch.where(union > 0, shared / union, 0.0)


def encode(candidates: Tensor, boxes: Tensor, std: float = 1.0) -> Tensor:
    """Deltas that turn candidates into boxes (R-CNN, Girshick et al. 2014).

    Parameters
    ----------
    candidates : (..., 4) float xyxy
    boxes : (..., 4) float xyxy, broadcasts against `candidates`; a box without area gives -inf
    std : deltas are divided by this

    Returns
    -------
    (..., 4) float: shift of the centre in candidate sizes, then log of the ratio of sizes, x before
    y
    """
    size = candidates[..., 2:] - candidates[..., :2]
    size_box = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - candidates[..., :2] - candidates[..., 2:]) / 2
    return torch.cat([shift / size, torch.log(size_box / size)], dim=-1) / std


def decode(candidates: Tensor, deltas: Tensor, std: float = 1.0) -> Tensor:
    """Boxes from candidates and deltas; log sizes are clamped to ±log 8. Inverse of `encode`.

    Parameters
    ----------
    candidates : (..., 4) float32 xyxy
    deltas : (..., 4) float, any precision; computed in float32
    std : deltas are multiplied by this

    Returns
    -------
    (..., 4) float32 xyxy, not clipped to the crop
    """
    deltas = deltas.float() * std
    size = candidates[..., 2:] - candidates[..., :2]
    centre = (candidates[..., :2] + candidates[..., 2:]) / 2 + deltas[..., :2] * size
    half = size * torch.exp(deltas[..., 2:].clamp(-LOG_SIZE_LIMIT, LOG_SIZE_LIMIT)) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def assign(
    overlap: Tensor, positive: Tensor, config: AssignConfig, valid: Tensor | None = None
) -> Tensor:
    """Labels of the candidates from their overlap with the target.

    In a negative pair all are negative. A positive pair in which no candidate becomes positive is
    treated alike: also the candidates on the target become negative (kept for parity with published
    models).

    Parameters
    ----------
    overlap : (B,K) float, IoU of each candidate with the target
    positive : (B,) bool, whether template and search show the same object
    config : the thresholds
    valid : (B,K) bool, False where there is no candidate; None means all are

    Returns
    -------
    (B,K) int64: 1, 0, or -1 for ignored and for invalid ones
    """
    if valid is not None:
        overlap = overlap.masked_fill(~valid, -1.0)
    best = overlap.amax(dim=1, keepdim=True)
    chosen = (overlap >= config.positive_iou) | ((overlap == best) & (best >= config.best_iou))
    chosen = chosen & positive[:, None]
    negative = (overlap < config.negative_iou) | ~chosen.any(dim=1, keepdim=True)
    labels = torch.full_like(overlap, IGNORED, dtype=torch.int64)
    labels = labels.masked_fill(negative, NEGATIVE).masked_fill(chosen, POSITIVE)
    return labels if valid is None else labels.masked_fill(~valid, IGNORED)


def choose(labels: Tensor, priority: Tensor, config: SampleConfig) -> Tensor:
    """Keep a random few of the labels of each sample, ignore the rest.

    Parameters
    ----------
    labels : (B,K) int64 of `assign`
    priority : (B,K) int64 of `priorities`; within a kind the lowest are kept
    config : how many

    Returns
    -------
    (B,K) int64: at most ``config.positives`` ones, zeros up to ``config.anchors`` together, else -1
    """
    positive = labels == POSITIVE
    n_positive = positive.sum(dim=1, keepdim=True).clamp(max=config.positives)
    chosen = _lowest(positive, priority, n_positive, config.positives)
    room = config.anchors - n_positive
    kept = chosen | _lowest(labels == NEGATIVE, priority, room, config.anchors)
    return labels.masked_fill(~kept, IGNORED)


def _lowest(mask: Tensor, priority: Tensor, count: Tensor, most: int) -> Tensor:
    """Mark in each row the `count` lowest priorities under a mask, all if there are fewer."""
    ranked = priority.masked_fill(~mask, torch.iinfo(torch.int64).max)
    lowest = torch.topk(ranked, min(most, ranked.shape[1]), dim=1, largest=False).values
    bound = lowest.gather(1, (count - 1).clamp(0, lowest.shape[1] - 1))
    return mask & (ranked <= bound) & (count > 0)


# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), its constants as signed 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def priorities(seed: int, epoch: int | Tensor, sample: Tensor, count: int) -> Tensor:
    """Random numbers that depend on nothing but (seed, epoch, sample number, candidate).

    Not on rank, world size, place in the batch or resume, and no generator is held. (seed, epoch,
    sample) is hashed to the start of a SplitMix64 stream of 64-bit numbers; candidate k gets its
    k-th number. Integer arithmetic that wraps: the same on every device.

    Parameters
    ----------
    seed : non-negative
    epoch : one number
    sample : (B,) int64, number of each sample in the epoch
    count : candidates of a sample, K

    Returns
    -------
    (B, K) int64, uniform over the non-negative 63-bit numbers, on the device of `sample`
    """
    state = _mix(torch.full_like(sample, seed) + _GOLDEN)
    for part in (epoch, sample):
        state = _mix((state ^ part) + _GOLDEN)
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=sample.device) * _GOLDEN
    return _shift(_mix(state[:, None] + steps), 1)


def _mix(x: Tensor) -> Tensor:
    """Finaliser of SplitMix64: a bijection of 64-bit numbers; each input bit moves all."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch's own shift of int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
