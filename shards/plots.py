"""Plots of packed data sets: categories, box sizes, gaps between frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.draw import write_picture
from shards.index import Index

__all__ = ["Statistics", "plot", "statistics"]

SHOWN_CATEGORIES = 20
_LARGEST_GAPS = 0.995  # share of the gaps that the plot shows
_SIZES_PX = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))
_INK, _DOTS_PER_INCH = "#2f6db3", 110


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Statistics:
    """What is drawn of a data set of N crops.

    Attributes
    ----------
    name, frames, tracks : of the data set
    categories : names and numbers of frames, most frames first
    in_source : the source frames of the crops are known
    width_px, height_px : (N,) float32, target boxes in pixels of the source frame, or else of the
        crop
    gaps : (N - tracks,) int64, frame numbers between a frame and the next of its track
    """

    name: str
    frames: int
    tracks: int
    categories: tuple[tuple[str, int], ...]
    in_source: bool
    width_px: npt.NDArray[np.float32]
    height_px: npt.NDArray[np.float32]
    gaps: npt.NDArray[np.int64]


def statistics(index: Index, crop_px: int) -> Statistics:
    """Collect what `plot` draws.

    Parameters
    ----------
    index : of the data set
    crop_px : side of its crops
    """
    counts = np.bincount(index.category_code, minlength=len(index.categories))
    order = np.argsort(-counts, kind="stable")
    rows = np.arange(len(index))
    boxes = index.target_boxes(rows)
    regions = index.regions()
    if regions is not None:
        boxes = boxes * ((regions[:, 2] - regions[:, 0]) / np.float32(crop_px))[:, None]
    inside = index.track_first[1:] == index.track_first[:-1]
    gaps = np.diff(index.frame.astype(np.int64))[inside]
    return Statistics(
        name=index.name,
        frames=len(index),
        tracks=int(np.count_nonzero(index.track_first == rows)),
        categories=tuple((index.categories[i], int(counts[i])) for i in order),
        in_source=regions is not None,
        width_px=boxes[:, 2] - boxes[:, 0],
        height_px=boxes[:, 3] - boxes[:, 1],
        gaps=gaps,
    )


def plot(sets: Sequence[Statistics], path: Path) -> None:
    """Draw one row for each data set.

    Parameters
    ----------
    sets : one or more
    path : of the picture; its ending chooses the format

    Raises
    ------
    StorageError : if it cannot be written
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.6 * len(sets)), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sets), 3, squeeze=False)
    for one, (left, middle, right) in zip(sets, axes, strict=True):
        _categories(left, one)
        _boxes(middle, one)
        _gaps(right, one)
    write_picture(figure.savefig, path, ".png or .svg")


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _categories(axes: Any, one: Statistics) -> None:
    shown = one.categories[:SHOWN_CATEGORIES]
    names = [_plain(name) for name, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_INK)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("frames")
    more = len(one.categories) - len(shown)
    rest = f", {more} more not shown" if more else ""
    axes.set_title(
        f"{_plain(one.name)}: {one.frames:,} frames, {one.tracks:,} tracks\n"
        f"{len(one.categories)} categories{rest}",
        fontsize=10,
    )


def _boxes(axes: Any, one: Statistics) -> None:
    sides = np.maximum(np.stack([one.width_px, one.height_px]), 0.5)
    bins = np.geomspace(sides.min() / 1.2, sides.max() * 1.2, 60)
    counts, _, _ = np.histogram2d(sides[0], sides[1], bins=[bins, bins])
    # Colours of the logarithm: few boxes are as visible as many.
    axes.pcolormesh(bins, bins, np.log1p(counts.T), cmap="Blues")
    axes.plot(bins[[0, -1]], bins[[0, -1]], color="0.6", linewidth=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_aspect("equal")
    ticks = [tick for tick in _SIZES_PX if bins[0] <= tick <= bins[-1]]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    where = "source frame" if one.in_source else "crop"
    axes.set_xlabel(f"width, px of the {where}")
    axes.set_ylabel(f"height, px of the {where}")
    middle = np.median(np.sqrt(sides[0] * sides[1]))
    axes.set_title(f"target boxes, median size {middle:.0f} px", fontsize=10)


def _gaps(axes: Any, one: Statistics) -> None:
    if not len(one.gaps):
        axes.set_title("no track has a second frame", fontsize=10)
        axes.set_axis_off()
        return
    axes.set_xlabel("frame numbers to the next frame of the track")
    axes.set_ylabel("frames")
    most = int(np.quantile(one.gaps, _LARGEST_GAPS, method="higher"))
    axes.hist(one.gaps, bins=np.arange(0.5, max(most, 2) + 1.5), color=_INK)
    axes.set_yscale("log")
    beyond = int(np.count_nonzero(one.gaps > most))
    rest = f", {beyond:,} larger ones not shown" if beyond else ""
    title = f"gaps: median {np.median(one.gaps):.0f}, largest {one.gaps.max():,}{rest}"
    axes.set_title(title, fontsize=10)
