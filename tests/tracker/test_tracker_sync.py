"""Nothing in a training step waits for the device.

Without a GPU every operation of a step is looked at, forwards and backwards: one that reads a
value, whose shape depends on values, or that makes a tensor from Python numbers (on a GPU a copy
from the host) is found on the CPU; one that copies between devices, on the device ``meta``. With a
GPU it is CUDA's own check.
"""

from __future__ import annotations

import contextlib
from typing import get_args

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.step import make_batch
from loaders.batch import normalise
from tracker.config import ModelConfig, ModelName
from tracker.models import build
from tracker.training.config import TrainConfig
from tracker.training.step import Stepper, StepReport

NAMES = get_args(ModelName)
READS = {  # a value, or a shape that depends on values
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_static",
    "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave",
    "bincount", "histc", "lift_fresh",  # lift_fresh: torch.tensor(...), a copy from the host
}  # fmt: skip

COPIES = ("_to_copy", "copy", "clone")


class Waits(AssertionError):
    """An operation that a GPU would have to be waited for."""


class NoWaiting(TorchDispatchMode):
    """Refuse operations that need the host; count all that touch the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.seen = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        masks = args[1] if name in ("index", "index_put") else ()
        if any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in masks):
            raise Waits(f"{func}: how much a mask selects is read")
        if name in READS:
            raise Waits(f"{func} reads from the device or copies to it")
        try:
            result = func(*args, **(kwargs or {}))
        except NotImplementedError as error:  # a value of `meta` is asked for
            raise Waits(f"{func}: {error}") from error
        tensors = [
            one for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor)
        ]
        self.seen += any(one.device.type == self.device for one in tensors)
        # A number in a tensor of no dimensions is an argument of a kernel, unless it is copied.
        places = {one.device.type for one in tensors if one.dim() > 0 or name in COPIES}
        if len(places) > 1:
            raise Waits(f"{func} copies between devices")
        return result


def on(device: str, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in data.items()}


def pixels(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch as loaders hand it over, uint8."""
    return {
        name: (value * 60 + 120).clamp(0, 255).byte() if name in ("template", "search") else value
        for name, value in data.items()
    }


def train(name: str, device: str, amp: str = "off"):
    """A step of training on a device, to be called again and again: steps of epochs 0 and 1."""
    model = build(ModelConfig(name=name, width=0.1, init="random")).to(device)
    stepper = Stepper(model, TrainConfig(amp=amp), torch.device(device), 1000)
    data = on(device, pixels(make_batch(4)))

    def step(epoch: int) -> StepReport:
        crops = {side: normalise(data[side]) for side in ("template", "search")}
        return stepper({**data, **crops, "epoch": epoch}, 200 * epoch, epoch)

    return step


class NotFused(torch.optim.SGD):
    """SGD that takes no flag to leave a step out."""

    def __init__(self, *args, fused=False, **options) -> None:
        super().__init__(*args, **options)

    def step(self):
        self.found_inf = None
        return super().step()


@pytest.mark.parametrize(("device", "amp"), [("cpu", "off"), ("cpu", "bf16"), ("meta", "off")])
@pytest.mark.parametrize("name", NAMES)
def test_no_operation_of_a_step_needs_the_host(name, device, amp, monkeypatch):
    if device == "meta":  # which has no autocast
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
        monkeypatch.setattr(torch.optim, "SGD", NotFused)  # nor fused optimisers
    step = train(name, device, amp)
    step(0)  # constants of the device are made once
    with NoWaiting(device) as mode:
        step(0)
        step(1)
    assert mode.seen > 100


WAITS = {
    "a value": lambda x: x.sum().item(),
    "a condition": lambda x: bool((x > 0).any()),
    "a mask": lambda x: x[x > 0],
    "a mask that is written to": lambda x: x.index_put_((x > 0,), x.new_ones(())),
    "a size": lambda x: (x > 0).nonzero(),
    "numbers": lambda x: x * torch.tensor([1.0, 2.0], device=x.device),
    "a copy to the device": lambda x: x * torch.ones(2).to(x.device),
    "a copy to the host": lambda x: x.cpu(),
}


@pytest.mark.parametrize("kind", WAITS)
def test_the_check_finds_what_waits(kind):
    found = []
    for device in ("cpu", "meta"):
        try:
            with NoWaiting(device):
                WAITS[kind](torch.zeros(2, device=device))
        except Waits:
            found.append(device)
    assert found == {"numbers": ["cpu"]}.get(kind, ["meta"] if "copy" in kind else ["cpu", "meta"])


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_cuda_itself_finds_no_synchronisation(name, amp):
    step = train(name, "cuda", amp)
    step(0)
    step(1)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(epoch) for epoch in (0, 1)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(term.isfinite() for one in losses for term in one.values())
