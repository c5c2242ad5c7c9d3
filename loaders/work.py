"""One batch between plan and pixels: what a backend is given, and what it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

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
from loaders.sets import DataSet, DataSets
from shards.errors import BadSample
from shards.geometry import Float
from shards.rng import uniforms

__all__ = ["CLOSE_S", "Backend", "Crops", "Pixels", "Work", "as_tensor", "prepare"]

Pixels = npt.NDArray[np.uint8]


CLOSE_S = 10.0  # for work under way when its results are no longer wanted


def as_tensor(pixels: Pixels, channels_last: bool) -> torch.Tensor:
    """Tensor (B, 3, S, S) over an array (B, S, S, 3) if `channels_last`, else (B, 3, S, S)."""
    tensor = torch.from_numpy(pixels)
    return tensor.permute(0, 3, 1, 2) if channels_last else tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crops:
    """B stored pictures and what to do with each.

    Attributes
    ----------
    sources : B data sets
    rows : (B,) int64, rows of their indexes
    params : of the recipe
    """

    sources: tuple[DataSet, ...]
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


class Backend(Protocol):
    """Decodes and augments batches, in the order in which they are given."""

    def start(self, work: Work) -> Any:
        """Begin a batch and return a handle at once."""

    def finish(self, handle: Any, timeout_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Wait for a batch: template and search pixels, (B, 3, S, S) uint8 RGB."""

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Give back threads and memory; waits so long at most for what is under way."""


def _boxes(sources: tuple[DataSet, ...], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    out = np.empty((len(rows), 4), np.float32)
    for source in set(sources):
        at = np.array([one is source for one in sources])
        out[at] = source.index.target_boxes(rows[at])
    return out


def _other_boxes(
    sources: tuple[DataSet, ...], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    runs = []
    for source, row in zip(sources, rows, strict=True):
        start, stop = source.index.box_start[row : row + 2]
        runs.append(source.index.boxes[start + 1 : stop])
    most = max((len(run) for run in runs), default=0)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    mask = np.zeros((len(rows), most), np.bool_)
    for i, run in enumerate(runs):
        boxes[i, : len(run)], mask[i, : len(run)] = run, True
    return boxes, mask


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
    u_z = uniforms(config.seed, STREAM_TEMPLATE, epoch, start, count, DRAW_WIDTH, step)
    u_x = uniforms(config.seed, STREAM_SEARCH, epoch, start, count, DRAW_WIDTH, step)

    def more(name: Step, half: Half, at: npt.NDArray[np.int64], width: int) -> Float:
        stream = STREAM_STEPS[name, half]
        rows = [uniforms(config.seed, stream, epoch, i, 1, width) for i in plan.sample[at].tolist()]
        return np.concatenate(rows) if rows else np.empty((0, width))

    sources = tuple(sets.sets[number] for number in plan.dataset)
    template_boxes, search_boxes = (
        _boxes(sources, plan.template_row),
        _boxes(sources, plan.search_row),
    )
    z, x = draw(
        config.recipe,
        plan.is_image,
        u_z,
        u_x,
        template_boxes,
        search_boxes,
        more,
        template_px=config.template_px,
        search_px=config.search_px,
        frame_px=sets.crop_size,
        grid=sets.grid,
    )
    others, mask = _other_boxes(sources, plan.search_row)
    mapped: Float = x.boxes(others)
    return Work(
        epoch=epoch,
        plan=plan,
        template=Crops(sources=sources, rows=plan.template_row, params=z),
        search=Crops(sources=sources, rows=plan.search_row, params=x),
        template_box=z.boxes(template_boxes),
        search_box=x.boxes(search_boxes),
        other_boxes=np.where(mask[..., None], mapped, 0).astype(np.float32),
        other_mask=mask,
    )
