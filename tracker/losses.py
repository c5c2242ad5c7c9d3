"""Loss terms of the models and their normalisers.

A term is a sum over a batch and the count that divides it. SPM's stages (SiamRPN is the first of
them) add up a cross entropy over the labelled candidates and an L1 distance of the deltas (all four
added) over the positives. The divisors are P + N and P, where P and N are sums over samples of
max(count, 1), so a batch without positives divides by something and its gradient is zero, not NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from tracker.labels import IGNORED, NEGATIVE, POSITIVE

__all__ = ["Normalise", "Term", "loss_terms", "stage_terms"]

Normalise = Literal["global", "per_gpu"]


class Term(NamedTuple):
    """Sum of a loss over a batch (with gradient) and what to divide it by; float32 scalars."""

    total: Tensor
    divisor: Tensor


def stage_terms(
    logits: Tensor, deltas: Tensor, labels: Tensor, target: Tensor
) -> tuple[Term, Term]:
    """Add up the losses of one stage, in float32.

    Parameters
    ----------
    logits : (B,K,2) float
    deltas : (B,K,4) float
    labels : (B,K) int64: 1, 0, -1
    target : (B,K,4) float32; only read where the label is 1 (it may be infinite elsewhere)

    Returns
    -------
    classification and regression; all logits and deltas are in the graph, also those without a
    label
    """
    positive = labels == POSITIVE
    entropy = F.cross_entropy(
        logits.float().reshape(-1, 2), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    wrong = torch.where(positive[..., None], deltas.float() - target.float(), 0.0)
    positives, negatives = (
        (labels == kind).sum(dim=1).clamp(min=1).sum().float() for kind in (POSITIVE, NEGATIVE)
    )
    return Term(entropy, positives + negatives), Term(wrong.abs().sum(), positives)


def loss_terms(terms: Mapping[str, Term], normalise: Normalise) -> dict[str, Tensor]:
    """Divide the sums of the losses by their counts.

    With ``global`` and a process group, the counts are those of the whole batch (one all-reduce of
    a few numbers, so every rank must call this equally often) and the terms are multiplied by the
    number of ranks: the mean over ranks, which is what DistributedDataParallel makes of the
    gradients, is then the loss of the whole batch, however it is split. With ``per_gpu`` each rank
    uses its own counts, as the published models were trained.

    Parameters
    ----------
    terms : name -> sum and count
    normalise : ``global`` or ``per_gpu``

    Returns
    -------
    name -> float32 scalar; the loss is their sum
    """
    counts = torch.stack([term.divisor for term in terms.values()])
    ranks = 1
    if normalise == "global" and distributed.is_available() and distributed.is_initialized():
        ranks = distributed.get_world_size()
        if ranks > 1:
            distributed.all_reduce(counts)
    return {
        name: term.total * (ranks / count)
        for (name, term), count in zip(terms.items(), counts.unbind(), strict=True)
    }
