"""Compile a model's parts with torch.compile, in place."""

from __future__ import annotations

from tracker.models import TrackerModel

__all__ = ["compile_model"]


def compile_model(model: TrackerModel, backend: str = "inductor") -> None:
    """Compile backbone, fusions and heads, each as one graph, when they are first called.

    The names of the parameters stay, so checkpoints and DistributedDataParallel notice nothing.
    Targets and proposals stay as they are, and so do the filters of a template, which are one
    convolution each. A batch of another size, and the change between training and evaluation, is
    compiled anew.

    Parameters
    ----------
    model : changed in place
    backend : of torch.compile; ``inductor`` needs a C++ compiler on a CPU, Triton on a GPU
    """
    for part in model.children():
        part.compile(fullgraph=True, dynamic=False, backend=backend)
