"""Copies from the host to a batch's device, beside the kernels of earlier steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Copies"]


class Copies:
    """Where the tensors of batches go.

    On a CUDA device they are copied from pinned memory in a stream of their own, so that a copy
    does not wait for the kernels of the step before, which the device may still be working on.

    Parameters
    ----------
    device : of the batches
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = self._open() if device.type == "cuda" else None

    def _open(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def __call__(self, values: Tensor) -> Tensor:
        """Start to copy a tensor of the host; `join` before it is used."""
        if self._stream is None:
            return values.to(self.device)
        with torch.cuda.stream(self._stream):
            return values.pin_memory().to(self.device, non_blocking=True)

    def join(self, tensors: Iterable[Tensor]) -> None:
        """Let what the present stream does from now on come after the copies."""
        if self._stream is None:
            return
        present = torch.cuda.current_stream(self.device)
        present.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(present)  # the memory is the other stream's
