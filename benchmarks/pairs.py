"""The same pairs for every contestant, from the loaders' own plan."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from benchmarks.case import Case, Served
from loaders.batch import normalise
from loaders.config import BackendName, DaliConfig, PairConfig
from loaders.loader import PairLoader
from loaders.recipe import Augment, Recipe
from loaders.sets import DataSets, open_sets
from loaders.work import Backend, Work, prepare

__all__ = [
    "drive",
    "hand_over",
    "pair_config",
    "plain_recipe",
    "serve_loader",
    "whole_work",
    "works",
]


def pair_config(case: Case, backend: BackendName = "cpu") -> PairConfig:
    """Configuration of ours for a case: published rule; pixels as its class of work wants them."""
    return PairConfig(
        path=case.data,
        recipe=Recipe() if case.work == "recipe" else plain_recipe(),
        pixels="uint8" if case.work == "recipe" else "float32",
        backend=backend,
        dali=DaliConfig(**case.dali),
        threads=case.threads,
        workers=case.workers,
        template_px=case.template_px,
        search_px=case.search_px,
        seed=case.seed,
        pairs_per_epoch=max(case.planned_pairs, 1_000_000),
    )


def plain_recipe() -> Recipe:
    """Recipe of the class ``plain``: the published scales and shifts of the crop, nothing else."""
    published = Recipe()
    kept = {}
    for name in (field.name for field in fields(Recipe)):
        ranges = getattr(published, name)
        if isinstance(ranges, Augment):
            kept[name] = Augment(
                scale=ranges.scale, shift=ranges.shift, keep_aspect=ranges.keep_aspect
            )
    return Recipe(**kept)


def works(case: Case, sets: DataSets) -> Iterator[Work]:
    """Plans and drawn parameters of every planned batch."""
    config = pair_config(case)
    for start in case.starts():
        yield prepare(sets, config, 0, start, case.batch_size)


def whole_work(case: Case) -> tuple[DataSets, Work]:
    """Plan every pair of a case at once, for readers of single samples."""
    sets = open_sets(pair_config(case))
    return sets, prepare(sets, pair_config(case), 0, 0, case.planned_pairs)


def serve_loader(
    case: Case, backend: BackendName, device: str = "cpu", **settings: Any
) -> Iterator[Served]:
    """Batches of `PairLoader`, as training gets them; `settings` are of `PairConfig`."""
    config = replace(pair_config(case, backend), **settings)
    with PairLoader(config, device=device, batch_size=case.batch_size) as loader:
        for _ in case.starts():
            batch = next(loader)
            yield Served(batch.sample.tolist(), batch.template, batch.search)


def hand_over(
    case: Case, sample: list[int], template: torch.Tensor, search: torch.Tensor
) -> Served:
    """Batch of uint8 pixels as the class of work wants it: normalised to float32 in ``plain``.

    For the consumer's process, which is the cheapest place: a worker that normalises sends four
    times the bytes. The values are those of `PairLoader`.
    """
    if case.work == "plain":
        template, search = normalise(template), normalise(search)
    return Served(sample, template, search)


def drive(case: Case, backend: Backend, ahead: int = 4) -> Generator[Served, None, None]:
    """Batches of a backend alone, a few ahead, without a loader around it."""
    sets = open_sets(pair_config(case))
    waiting: list[tuple[Work, object]] = []
    try:
        for work in works(case, sets):
            waiting.append((work, backend.start(work)))
            if len(waiting) > ahead:
                yield _finish(backend, *waiting.pop(0))
        while waiting:
            yield _finish(backend, *waiting.pop(0))
    finally:
        backend.close()


def _finish(backend: Backend, work: Work, handle: object) -> Served:
    template, search = backend.finish(handle, timeout_s=300)
    return Served(work.plan.sample.tolist(), template, search)
