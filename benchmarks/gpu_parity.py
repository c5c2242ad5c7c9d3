"""Our pixels on the GPU beside those of the reference: the published recipe, crop by crop.

First with the settings of everybody, and after the sweep with those that it chose: another mode,
and another share for the JPEG engine, are other decoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.gpu_facts import Facts
from benchmarks.pairs import pair_config
from loaders.batch import PairBatch
from loaders.loader import PairLoader
from shards.errors import MismatchError

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["differences", "figures", "parity"]

PAIRS, DRY_PAIRS = 256, 8
BATCH, DRY_BATCH = 32, 4
FACTS = ("template_box", "search_box", "other_boxes", "other_mask", "positive", "sample")
LEVELS = 256
Counts = npt.NDArray[np.int64]


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> Counts:
    """How many pixels (256,) are how many grey levels apart."""
    if ours.shape != theirs.shape:
        raise MismatchError(f"crops of {tuple(ours.shape)} and of {tuple(theirs.shape)}")
    apart = (ours.cpu().short() - theirs.cpu().short()).abs().flatten()
    return np.bincount(apart.numpy(), minlength=LEVELS).astype(np.int64)


def figures(counts: Counts) -> dict[str, float]:
    """Mean, quantiles and maximum, in grey levels."""
    total, below = counts.sum(), np.cumsum(counts)
    return {
        "mean": float((counts * np.arange(LEVELS)).sum() / total),
        "p99": float(np.searchsorted(below, 0.99 * total)),
        "p999": float(np.searchsorted(below, 0.999 * total)),
        "max": float(np.flatnonzero(counts).max()),
    }


def same_facts(ours: PairBatch, theirs: PairBatch) -> bool:
    """Whether two batches have equal boxes, classes and sample numbers."""
    return all(torch.equal(getattr(ours, name).cpu(), getattr(theirs, name)) for name in FACTS)


def parity(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Compare batch by batch, as far as there is time."""
    own = Facts.read(facts)
    pairs, batch = (DRY_PAIRS, DRY_BATCH) if own.is_dry else (PAIRS, BATCH)
    case = own.case(batch_size=batch, pairs=pairs, threads=own.cores)
    counts = {name: np.zeros(LEVELS, np.int64) for name in ("template", "search")}
    found: dict[str, Any] = {
        "mode": own.settings.mode,
        "hw_decoder_load": own.settings.hw_decoder_load,
        "pairs": 0,
        "boxes_equal": True,
    }
    judge = replace(pair_config(case, "reference"), prefetch=1)
    tried = pair_config(case, own.backend)  # type: ignore[arg-type]
    with (
        PairLoader(judge, batch_size=batch) as theirs,
        PairLoader(tried, device=own.device, batch_size=batch) as ours,
    ):
        while found["pairs"] < pairs and (talk.left_s() > 5 or not found["pairs"]):
            mine, other = next(ours), next(theirs)
            for name, count in counts.items():
                count += differences(getattr(mine, name), getattr(other, name))
                found[name] = figures(count)
            found["boxes_equal"] &= same_facts(mine, other)
            found["pairs"] += batch
            found["crops"] = 2 * found["pairs"]
            talk.found(found)
    return found
