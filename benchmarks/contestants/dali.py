"""Ours for training: decoded and augmented on the GPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import loaders.dali  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader

label = "siamstream dali on the GPU"


def absent() -> str | None:
    """Say why it cannot run here, or None."""
    return None if torch.cuda.is_available() else "needs a CUDA device"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` with the ``dali`` backend, complete on the device."""
    for served in serve_loader(case, "dali", "cuda"):
        # of this batch alone: a wait for the device would be for those made ahead as well
        torch.cuda.current_stream().synchronize()
        yield served
