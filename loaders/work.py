"""One batch between plan and pixels: what a backend is given, and what it offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from loaders.config import PairConfig
from loaders.plan import (
    STREAM_SEARCH,
    STREAM_STEPS,
    STREAM_TEMPLATE,
    Plan,
    plan_batch,
    with_substitutes,
)
from loaders.recipe import DRAW_WIDTH, Half, Params, Step, draw
from loaders.sets import Chosen, DataSet, DataSets
from shards.errors import BadSample
from shards.geometry import Float
from shards.rng import uniforms

if TYPE_CHECKING:  # worker processes plan and read without torch
    import torch

__all__ = [
    "CLOSE_S",
    "Backend",
    "Crops",
    "Pixels",
    "Source",
    "Stored",
    "Work",
    "augment",
    "padded",
    "prepare",
]

Pixels = npt.NDArray[np.uint8]


CLOSE_S = 10.0  # for work under way when its results are no longer wanted


class Source(Protocol):
    """Where the encoded pictures of crops come from: a data set, or a picture held in memory."""

    def read(self, row: int) -> memoryview:
        """Encoded picture of a row, its checksum and size verified; raises `BadSample`."""

    def bad(self, row: int, reason: str) -> BadSample:
        """Error that names the sample of a row."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crops:
    """B stored pictures and what to do with each.

    Attributes
    ----------
    sources : of the B pictures
    rows : (B,) int64, rows of their indexes
    params : of the recipe
    """

    sources: tuple[Source, ...]
    rows: npt.NDArray[np.int64]
    params: Params

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, i: int) -> memoryview:
        """Encoded picture of crop i, its checksum and size verified; raises `BadSample`."""
        try:
            return self.sources[i].read(int(self.rows[i]))
        except BadSample as error:
            error.pair, error.stored = i, True
            raise

    def part(self, first: int, end: int) -> Crops:
        """Crops `first` to `end`, which is left out."""
        return Crops(
            sources=self.sources[first:end],
            rows=self.rows[first:end],
            params=self.params.part(first, end),
        )

    def bad(self, i: int, reason: str) -> BadSample:
        """Error that names the sample of crop i, which a decoder refuses."""
        error = self.sources[i].bad(int(self.rows[i]), reason)
        error.pair = i
        return error


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Work:
    """One batch of one rank: the plan, the crops, and boxes in the coordinates of the results.

    Attributes
    ----------
    template_box, search_box : (B, 4) float32 xyxy
    other_boxes : (B, K, 4) float32; other_mask : (B, K) bool
    """

    epoch: int
    plan: Plan
    template: Crops
    search: Crops
    template_box: npt.NDArray[np.float32]
    search_box: npt.NDArray[np.float32]
    other_boxes: npt.NDArray[np.float32]
    other_mask: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.plan.sample)

    def part(self, first: int, end: int) -> Work:
        """Pairs `first` to `end`, which is left out, as if they had been planned alone."""
        at = slice(first, end)
        most = int(self.other_mask[at].sum(axis=1).max(initial=0))
        return Work(
            epoch=self.epoch,
            plan=Plan(**{one.name: getattr(self.plan, one.name)[at] for one in fields(Plan)}),
            template=self.template.part(first, end),
            search=self.search.part(first, end),
            template_box=self.template_box[at],
            search_box=self.search_box[at],
            other_boxes=np.ascontiguousarray(self.other_boxes[at, :most]),
            other_mask=np.ascontiguousarray(self.other_mask[at, :most]),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """What is known of the pictures of B pairs before their parameters are drawn.

    Attributes
    ----------
    template, search : sources of the pictures
    template_box, search_box : (B, 4) float32 xyxy, pixels of the stored picture
    other_boxes : (B, K, 4) float32, of the search pictures; other_mask : (B, K) bool
    """

    template: tuple[Source, ...]
    search: tuple[Source, ...]
    template_box: npt.NDArray[np.float32]
    search_box: npt.NDArray[np.float32]
    other_boxes: npt.NDArray[np.float32]
    other_mask: npt.NDArray[np.bool_]


class Backend(Protocol):
    """Decodes and augments batches, in the order in which they are given."""

    def start(self, work: Work) -> Any:
        """Begin a batch and return a handle at once."""

    def finish(self, handle: Any, timeout_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Wait for a batch: template and search pixels, (B, 3, S, S).

        Their type says what they are: uint8 RGB, which a loader normalises where that is wanted,
        or floats, which are normalised already, to the last bit as `loaders.batch.normalise` does.
        """

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Give back threads and memory; waits so long at most for what is under way."""


def _boxes(sources: tuple[DataSet, ...], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    out = np.empty((len(rows), 4), np.float32)
    for source in set(sources):
        at = np.array([one is source for one in sources])
        out[at] = source.index.target_boxes(rows[at])
    return out


def padded(
    runs: Sequence[npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """B runs of boxes as one array (B, K, 4), with a mask (B, K) of those that are there."""
    most = max((len(run) for run in runs), default=0)
    boxes = np.zeros((len(runs), most, 4), np.float32)
    mask = np.zeros((len(runs), most), np.bool_)
    for i, run in enumerate(runs):
        boxes[i, : len(run)], mask[i, : len(run)] = run, True
    return boxes, mask


def _other_boxes(
    sources: tuple[DataSet, ...], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    runs = []
    for source, row in zip(sources, rows, strict=True):
        start, stop = source.index.box_start[row : row + 2]
        runs.append(source.index.boxes[start + 1 : stop])
    return padded(runs)


def prepare(
    sets: DataSets,
    config: PairConfig,
    epoch: int,
    start: int,
    count: int,
    step: int = 1,
    attempts: Mapping[int, int] | None = None,
) -> Work:
    """Plan samples and draw their parameters; reads no pictures.

    Parameters
    ----------
    sets, config : of the run
    epoch, start, count, step : which samples, as in `plan_batch`
    attempts : which pairs to replace, by position, as in `with_substitutes`
    """
    plan = plan_batch(sets.tables, config.seed, epoch, start, count, step)
    if attempts:
        plan = with_substitutes(sets.tables, config.seed, epoch, plan, attempts)
    sources = tuple(sets.sets[number] for number in plan.dataset)
    others, mask = _other_boxes(sources, plan.search_row)
    stored = Stored(
        template=sources,
        search=sources,
        template_box=_boxes(sources, plan.template_row),
        search_box=_boxes(sources, plan.search_row),
        other_boxes=others,
        other_mask=mask,
    )
    return augment(sets, config, epoch, plan, stored, step)


def augment(
    sets: Chosen[Any], config: PairConfig, epoch: int, plan: Plan, stored: Stored, step: int = 1
) -> Work:
    """Draw the parameters of planned pairs, by their sample numbers.

    Parameters
    ----------
    sets, config : of the run
    epoch, step : of the sample numbers, which are `step` apart
    plan, stored : which pairs, and what is known of their pictures
    """
    start, count = int(plan.sample[0]), len(plan.sample)
    u_z = uniforms(config.seed, STREAM_TEMPLATE, epoch, start, count, DRAW_WIDTH, step)
    u_x = uniforms(config.seed, STREAM_SEARCH, epoch, start, count, DRAW_WIDTH, step)

    def more(name: Step, half: Half, at: npt.NDArray[np.int64], width: int) -> Float:
        stream = STREAM_STEPS[name, half]
        rows = [uniforms(config.seed, stream, epoch, i, 1, width) for i in plan.sample[at].tolist()]
        return np.concatenate(rows) if rows else np.empty((0, width))

    z, x = draw(
        config.recipe,
        plan.is_image,
        u_z,
        u_x,
        stored.template_box,
        stored.search_box,
        more,
        template_px=config.template_px,
        search_px=config.search_px,
        frame_px=sets.crop_size,
        grid=sets.grid,
    )
    mapped: Float = x.boxes(stored.other_boxes)
    return Work(
        epoch=epoch,
        plan=plan,
        template=Crops(sources=stored.template, rows=plan.template_row, params=z),
        search=Crops(sources=stored.search, rows=plan.search_row, params=x),
        template_box=z.boxes(stored.template_box),
        search_box=x.boxes(stored.search_box),
        other_boxes=np.where(stored.other_mask[..., None], mapped, 0).astype(np.float32),
        other_mask=stored.other_mask,
    )
