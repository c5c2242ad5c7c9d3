"""The four loss terms of SPM and their normalisers.

Each stage sums a cross entropy over its labelled candidates and an L1 distance of the deltas (all
four added) over its positives. The divisors are P + N and P, where P and N are sums over samples of
max(count, 1), so a batch without positives divides by something and its gradient is zero, not NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from tracker.labels import IGNORED, NEGATIVE, POSITIVE

__all__ = ["Normalise", "StageSums", "loss_terms", "stage_sums"]

Normalise = Literal["global", "per_gpu"]


class StageSums(NamedTuple):
    """Sums of one stage over a batch, float32 scalars: two losses (with gradient), then P and N."""

    cls: Tensor
    reg: Tensor
    positives: Tensor
    negatives: Tensor


def stage_sums(logits: Tensor, deltas: Tensor, labels: Tensor, target: Tensor) -> StageSums:
    """Add up the losses of one stage, in float32.

    Parameters
    ----------
    logits : (B,K,2) float
    deltas : (B,K,4) float
    labels : (B,K) int64: 1, 0, -1
    target : (B,K,4) float32; only read where the label is 1 (it may be infinite elsewhere)

    Returns
    -------
    StageSums; all logits and deltas are in the graph, also those without a label
    """
    positive = labels == POSITIVE
    entropy = F.cross_entropy(
        logits.float().reshape(-1, 2), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    wrong = torch.where(positive[..., None], deltas.float() - target.float(), 0.0)
    counts = [
        (labels == kind).sum(dim=1).clamp(min=1).sum().float() for kind in (POSITIVE, NEGATIVE)
    ]
    return StageSums(entropy, wrong.abs().sum(), *counts)


def loss_terms(stages: Mapping[str, StageSums], normalise: Normalise) -> dict[str, Tensor]:
    """Loss terms ``<stage>_cls`` and ``<stage>_reg`` from the sums of the stages.

    With ``global`` and a process group, P and N are those of the whole batch (one all-reduce of a
    few numbers, so every rank must call this equally often) and the terms are multiplied by the
    number of ranks: the mean over ranks, which is what DistributedDataParallel makes of the
    gradients, is then the loss of the whole batch, however it is split. With ``per_gpu`` each rank
    uses its own P and N, as the published models were trained.

    Parameters
    ----------
    stages : name -> sums
    normalise : ``global`` or ``per_gpu``

    Returns
    -------
    name -> float32 scalar; the loss is their sum
    """
    counts = torch.stack([n for s in stages.values() for n in (s.positives, s.negatives)])
    ranks = 1
    if normalise == "global" and distributed.is_available() and distributed.is_initialized():
        ranks = distributed.get_world_size()
        if ranks > 1:
            distributed.all_reduce(counts)
    terms: dict[str, Tensor] = {}
    for (name, sums), (positives, negatives) in zip(
        stages.items(), counts.view(-1, 2).unbind(), strict=True
    ):
        terms[f"{name}_cls"] = sums.cls * (ranks / (positives + negatives))
        terms[f"{name}_reg"] = sums.reg * (ranks / positives)
    return terms
