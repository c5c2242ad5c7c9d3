"""The training step beside the same step in a Python loop over samples.

Question: what does it bring on a CPU that no part of the step loops over samples? Method: SPM and
SiamRPN at width 1, a batch of pairs, the backbone's features made beforehand from smooth synthetic
pictures; the clock takes losses and gradients down to those features. Ours is the models' own
``forward``; the other is `benchmarks.per_sample`, with torchvision's NMS, the fastest simple form
of RoIAlign that we found, and its random order of the anchors ready-made. Both are run in turn in
every repeat, on the same batches; the ratio is taken within a repeat, the median is judged. Losses
and gradients are compared first, and a difference ends the run.

Two cuts: ``targets and losses``, where the heads are next to nothing (the coarse maps are
ready-made, the fine head is a mean), so only assignment, choice, proposals, RoIAlign and losses are
timed (for SiamRPN, which has neither proposals nor RoIAlign, targets and losses alone): the bar is
on this one. And ``all but the backbone``, with the real heads, whose convolutions see whole batches
in both and so are the same work: it says what is left of the gain.

Limits: first weights, so coarse boxes are near their anchors; a CPU. On a GPU the loop also waits
for the device at every ``nonzero``, ``bool`` and NMS of every sample.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import result
from benchmarks.environment import usable_cores
from benchmarks.per_sample import per_sample_terms, shuffled
from benchmarks.proc import machine_cpu_s
from benchmarks.runner import summary
from shards.errors import MismatchError
from tracker.config import ModelConfig
from tracker.heads import CoarseMaps
from tracker.models import build
from tracker.siamrpn import SiamRPN
from tracker.spm import SPM

__all__ = ["STEP_HEADER", "measure_step", "step_lines", "step_rows"]

STEP_HEADER = ("model", "timed", "threads", "ours ms", "loop ms", "x steps/s", "bar", "holds")
MODELS = ("spm_alexnet", "siamrpn_alexnet")
BAR = 1.5
EPOCH = 3
LOSS_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-3  # of the largest gradient of a tensor
STEPS = {"targets and losses": 10, "all but the backbone": 2}  # of one side in one repeat


class Ready(nn.Module):
    """A backbone whose features are there already."""

    def __init__(self, search: Tensor, z: dict[str, Tensor], x: dict[str, Tensor]) -> None:
        super().__init__()
        self.search, self.z, self.x = search, z, x

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of the search crops if it is they, else of the templates."""
        return self.x if image is self.search else self.z


class ReadyMaps(nn.Module):
    """Fusion and head of the coarse stage whose maps are there already."""

    def __init__(self, maps: CoarseMaps) -> None:
        super().__init__()
        self.maps = maps

    def kernels(self, template: Tensor) -> tuple[Tensor]:
        """Nothing of use."""
        return (template,)

    def forward(self, *_: Any) -> CoarseMaps:
        """Logits and deltas, which a fusion hands to its head."""
        return self.maps


class AddedFusion(nn.Module):
    """Relation that is a sum."""

    def template_part(self, template: Tensor) -> Tensor:
        """Features as they are."""
        return template

    def forward(self, template_part: Tensor, proposals: Tensor) -> Tensor:
        """(B,C,6,6) and (B,N,C,6,6) -> (B,N,C,6,6)."""
        return template_part[:, None] + proposals


class MeanHead(nn.Module):
    """Fine head that takes the means of six groups of channels."""

    def forward(self, relation: Tensor) -> tuple[Tensor, Tensor]:
        """(B,N,C,6,6) -> logits (B,N,2) and deltas (B,N,4)."""
        channels = relation.shape[2] // 6 * 6
        means = relation[:, :, :channels].unflatten(2, (6, -1)).flatten(3).mean(dim=3)
        return means[..., :2], means[..., 2:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One step in both forms: each gives loss terms; gradients flow to `leaves`."""

    ours: Callable[[], dict[str, Tensor]]
    loop: Callable[[], dict[str, Tensor]]
    leaves: list[Tensor]


def make_batch(samples: int, seed: int = 5) -> dict[str, Tensor]:
    """Pairs of smooth synthetic pictures; every fourth is negative."""
    generator = torch.Generator().manual_seed(seed)

    def pictures() -> Tensor:
        coarse = torch.randn(samples, 3, 24, 24, generator=generator)
        return F.interpolate(coarse, (255, 255), mode="bicubic")

    def boxes() -> Tensor:
        centre = 127.5 + 60 * (torch.rand(samples, 2, generator=generator) - 0.5)
        half = 20 + 30 * torch.rand(samples, 2, generator=generator)
        return torch.cat([centre - half, centre + half], dim=1)

    return {
        "template": pictures(),
        "search": pictures(),
        "template_box": boxes(),
        "search_box": boxes(),
        "positive": torch.arange(samples) % 4 != 3,
        "sample": torch.arange(samples) * 37,
    }


def make_work(name: str, timed: str, batch: dict[str, Tensor], width: float = 1.0) -> Work:
    """Model with ready-made features (and maps), and its step in both forms.

    Parameters
    ----------
    name : of the model
    timed : a key of `STEPS`
    batch : of `make_batch`
    width : of the model
    """
    model = build(ModelConfig(name=name, width=width, init="random"))  # type: ignore[arg-type]
    assert isinstance(model, SPM | SiamRPN)
    with torch.no_grad():
        z, x = model.features(batch["template"]), model.features(batch["search"])
        maps = model.coarse(model.kernels(z), x)
    for features in (z, x):
        for feature in features.values():
            feature.requires_grad_()
    model.z_net = Ready(batch["search"], z, x)  # type: ignore[assignment]
    leaves = [*z.values(), *x.values()]
    if timed == "targets and losses":
        maps = CoarseMaps(*(one.detach().clone().requires_grad_() for one in maps))
        prefix = "cm_" if isinstance(model, SPM) else ""
        for part in ("fusion", "head"):
            setattr(model, prefix + part, ReadyMaps(maps))
        if isinstance(model, SPM):
            model.fm_fusion, model.fm_head = AddedFusion(), MeanHead()  # type: ignore[assignment]
        leaves += maps
    leaves += model.parameters()
    order = shuffled(model, batch, EPOCH)
    return Work(
        ours=lambda: model(**batch, epoch=EPOCH),
        loop=lambda: per_sample_terms(model, batch, order),
        leaves=leaves,
    )


def step(terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor]) -> dict[str, Tensor]:
    """Losses, and gradients in the leaves."""
    for leaf in leaves:
        leaf.grad = None
    found = terms()
    torch.autograd.backward(torch.stack(list(found.values())).sum())
    return {name: term.detach() for name, term in found.items()}


def compare(work: Work) -> dict[str, float]:
    """Largest differences of both forms: of losses, relative, and of gradients, as shares.

    Raises
    ------
    MismatchError : if they are too large to be rounding
    """
    ours = step(work.ours, work.leaves)
    mine = [leaf.grad for leaf in work.leaves]
    loop = step(work.loop, work.leaves)
    wrong = {"losses": 0.0, "gradients": 0.0}
    for name, term in loop.items():
        off = abs((ours[name] - term).item()) / max(abs(term.item()), 1e-6)
        wrong["losses"] = max(wrong["losses"], off)
    for one, leaf in zip(mine, work.leaves, strict=True):
        if (one is None) != (leaf.grad is None):
            raise MismatchError("a gradient is there in one form of the step alone")
        if one is not None and leaf.grad is not None:
            off = ((one - leaf.grad).abs().max() / leaf.grad.abs().max().clamp(min=1e-12)).item()
            wrong["gradients"] = max(wrong["gradients"], off)
    if wrong["losses"] > LOSS_TOLERANCE or wrong["gradients"] > GRADIENT_TOLERANCE:
        raise MismatchError(
            f"the loop's step is another: losses differ by {wrong['losses']:.1e} (at most "
            f"{LOSS_TOLERANCE:g}), gradients by {wrong['gradients']:.1e} (at most "
            f"{GRADIENT_TOLERANCE:g}); a change of the models' step must go into per_sample.py too"
        )
    return wrong


def timed_ms(terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor], steps: int) -> float:
    """Milliseconds of one step, the mean of some."""
    started = time.perf_counter()
    for _ in range(steps):
        step(terms, leaves)
    return 1e3 * (time.perf_counter() - started) / steps


def measure_work(work: Work, repeats: int, steps: int) -> dict[str, Any]:
    """Compare both forms, then time them in turn."""
    wrong = compare(work)
    forms = {"ours": work.ours, "loop": work.loop}
    before = time.perf_counter(), machine_cpu_s() - time.process_time()
    found: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name in sorted(forms, reverse=repeat % 2 == 0):
            spent = timed_ms(forms[name], work.leaves, steps)
            if repeat:  # the first warms up
                found[name].append(spent)
    wall_s, others_s = time.perf_counter() - before[0], machine_cpu_s() - time.process_time()
    ratio = [loop / ours for ours, loop in zip(found["ours"], found["loop"], strict=True)]
    return {
        "difference": wrong,
        "others_cores_busy": max(0.0, others_s - before[1]) / wall_s,
        "ms": {name: summary(values) for name, values in found.items()},
        "ms_repeats": found,
        "ratio": statistics.median(ratio),
        "ratio_repeats": ratio,
    }


def _cases() -> Iterator[tuple[str, str, int, float | None]]:
    for name in MODELS:
        for timed in STEPS:
            for threads in sorted({1, min(2, usable_cores())}):
                yield name, timed, threads, BAR if timed == "targets and losses" else None


def measure_step(
    samples: int, repeats: int, command: str, told: Callable[[str], None], width: float = 1.0
) -> dict[str, Any]:
    """Measure every model, cut and number of threads.

    Parameters
    ----------
    samples : pairs of the batch
    repeats : of both forms
    command : that repeats it, for the result
    told : called with lines of progress
    width : of the models

    Returns
    -------
    the result, as its JSON has it

    Raises
    ------
    MismatchError : if the forms give different losses or gradients
    """
    run = result.start("step", command)
    batch, before, cases = make_batch(samples), torch.get_num_threads(), []
    try:
        for name, timed, threads, bar in _cases():
            torch.set_num_threads(threads)
            case = {"model": name, "timed": timed, "threads": threads, "bar": bar}
            case |= measure_work(make_work(name, timed, batch, width), repeats, STEPS[timed])
            case["holds"] = None if bar is None else case["ratio"] >= bar
            cases.append(case)
            told(f"{name}, {timed}, {threads} thread(s): x {case['ratio']:.2f}")
    finally:
        torch.set_num_threads(before)
    return {
        **run,
        "batch": samples,
        "repeats": repeats,
        "width": width,
        "tolerance": {"losses": LOSS_TOLERANCE, "gradients": GRADIENT_TOLERANCE},
        "cases": cases,
    }


def step_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `STEP_HEADER`, medians."""
    return [
        (
            one["model"],
            one["timed"],
            f"{one['threads']}",
            f"{one['ms']['ours']['median']:.1f}",
            f"{one['ms']['loop']['median']:.1f}",
            f"{one['ratio']:.2f}",
            "" if one["bar"] is None else f"{one['bar']:g}",
            {None: "", True: "yes", False: "NO"}[one["holds"]],
        )
        for one in run["cases"]
    ]


def step_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers."""
    worst = max(one["difference"]["losses"] for one in run["cases"])
    busy = statistics.median(one["others_cores_busy"] for one in run["cases"])
    steepest = max(one["difference"]["gradients"] for one in run["cases"])
    return [
        f"Losses and gradients of {run['batch']} pairs in float32, without the backbone, whose "
        f"features are ready-made; median of {run['repeats']} repeats, ratios within a repeat.",
        "`targets and losses` has stand-ins for the heads; `all but the backbone` has the real "
        "ones, the same work in both forms. The loop is `benchmarks/per_sample.py`.",
        f"Losses of both forms differed by at most {worst:.0e} (relative), gradients by "
        f"{steepest:.0e} of the largest. Other programs kept {busy:.1f} cores busy meanwhile; two "
        "threads wait for each other many times a step, so theirs are the figures that suffer.",
    ]
