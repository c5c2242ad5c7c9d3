"""Plots of evaluations as PNG bytes: curves, overlap over time, a map of two settings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tracker.scores import Evaluation, Score

__all__ = ["CURVES", "Curve", "curve_plot", "grid_plot", "overlap_plot"]

_DOTS_PER_INCH = 160
# Okabe and Ito's colours without their yellow, which is faint on paper; dashes tell lines apart
# where colours do not (print, colour blindness).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_FLOOR: dict[str, Any] = {"color": "0.45", "linestyle": (0, (1, 1))}
_LAST_LATIN = 0x24F  # what the font of the plots certainly has


class Curve(NamedTuple):
    """One of the plots: name of its figure in `Score`, texts, and the last threshold."""

    figure: str
    title: str
    across: str
    up: str
    last: float


CURVES = {
    "success": Curve("auc", "Success", "overlap threshold", "share of frames above", 1.0),
    "precision": Curve(
        "precision", "Precision", "centre error threshold, px", "share of frames within", 50.0
    ),
    "norm_precision": Curve(
        "norm_precision",
        "Normalised precision",
        "centre error threshold, sides of the box",
        "share of frames within",
        0.5,
    ),
}


def curve_plot(evaluation: Evaluation, name: str) -> bytes:
    """Draw a curve of each tracker, its figure in the legend, the floor last and grey.

    Parameters
    ----------
    evaluation : one tracker or more
    name : a key of `CURVES`

    Returns
    -------
    PNG
    """
    curve = CURVES[name]
    figure, axes = _axes(4.4, 3.7)
    last = len(evaluation.trackers) - 1
    for number, tracker in enumerate(evaluation.trackers):
        values: Sequence[float] = getattr(tracker.total, f"{name}_curve")
        style = _FLOOR if 0 < number == last else _style(number)
        label = f"[{_figure(tracker.total, curve.figure)}] {_drawable(tracker.tracker)}"
        across = np.linspace(0, curve.last, len(values))
        axes.plot(across, values, label=label, linewidth=1.8, **style)
    axes.set(xlim=(0, curve.last), ylim=(0, 1), xlabel=curve.across, ylabel=curve.up)
    axes.set_title(curve.title, fontsize=11)
    axes.legend(loc="best", fontsize=8)
    return _png(figure)


def overlap_plot(
    overlaps: Sequence[tuple[str, Sequence[float | None]]],
    *,
    lost: int | None,
    shown: Sequence[int] = (),
) -> bytes:
    """Draw the overlap of each frame; frames without an object are shaded.

    Parameters
    ----------
    overlaps : name of a tracker and its overlaps, None where the object is absent; the floor last
    lost : frame, from 0, at which the first one loses the object; None if it does not
    shown : frames, from 0, of which there are pictures: marked below

    Returns
    -------
    PNG
    """
    figure, axes = _axes(7.2, 2.5)
    first = overlaps[0][1]
    line = np.arange(1, len(first) + 1)  # frames are counted from 1 for people
    for number, (name, values) in reversed(list(enumerate(overlaps))):
        up = np.array([np.nan if value is None else value for value in values], np.float64)
        style = _FLOOR if 0 < number == len(overlaps) - 1 else _style(number)
        dots = {"marker": "."} if np.isfinite(up).sum() < 3 else {}
        # matplotlib leaves out labels that begin with an underscore, hence the space.
        label = f" {_drawable(name)}"
        axes.plot(np.arange(1, len(up) + 1), up, label=label, linewidth=1.2, **style, **dots)
    label = "absent"
    for start, stop in _runs([value is None for value in first]):
        axes.axvspan(start + 0.5, stop + 0.5, color="0.85", linewidth=0, label=label)
        label = "_"  # one entry in the legend is enough
    if lost is not None:
        axes.axvline(lost + 1, color="black", linewidth=1.0, label="lost")
    if shown:
        axes.plot(line[list(shown)], np.full(len(shown), -0.04), "k^", markersize=4, label="shown")
    axes.set(xlim=(0.5, len(first) + 0.5), ylim=(-0.08, 1.02), xlabel="frame", ylabel="overlap")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=6, fontsize=8, frameon=False)
    return _png(figure)


def grid_plot(
    values: Sequence[Sequence[float]],
    *,
    across: tuple[str, Sequence[float]],
    down: tuple[str, Sequence[float]],
    figure_name: str,
) -> bytes:
    """Draw a figure as a map of two settings, each cell with its number, the best one framed.

    Parameters
    ----------
    values : (R,C) shares 0..1, by rows of `down` and columns of `across`
    across, down : name of a setting and its C or R values
    figure_name : what the numbers are

    Returns
    -------
    PNG
    """
    from matplotlib.patches import Rectangle

    cells = np.asarray(values, np.float64)
    rows, columns = cells.shape
    figure, axes = _axes(1.9 + 0.75 * columns, 1.5 + 0.5 * rows)
    axes.grid(visible=False)
    low, high = float(cells.min()), float(cells.max())
    axes.imshow(cells, cmap="cividis", aspect="auto", vmin=low, vmax=max(high, low + 1e-9))
    for row, column in np.ndindex(rows, columns):
        dark = cells[row, column] < (low + high) / 2
        axes.text(
            column, row, f"{cells[row, column]:.3f}", ha="center", va="center", fontsize=9,
            color="white" if dark else "black",
        )  # fmt: skip
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    place = (float(column) - 0.48, float(row) - 0.46)
    axes.add_patch(Rectangle(place, 0.96, 0.92, fill=False, edgecolor="#D55E00", linewidth=2.5))
    axes.set_xticks(range(columns), [f"{value:g}" for value in across[1]])
    axes.set_yticks(range(rows), [f"{value:g}" for value in down[1]])
    axes.set(xlabel=across[0], ylabel=down[0])
    axes.set_title(figure_name, fontsize=10)
    return _png(figure)


def _axes(width_in: float, height_in: float) -> tuple[Any, Any]:
    """Figure and axes of their own, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _DASHES[number % len(_DASHES)],
    }


def _figure(score: Score, name: str) -> str:
    value: float = getattr(score, name)
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _drawable(text: str) -> str:
    """Text in which matplotlib finds no formula and no character that its font lacks."""
    known = (c if c.isprintable() and ord(c) <= _LAST_LATIN else "?" for c in text)
    return "".join(known).replace("$", r"\$")


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Starts and stops of the runs of True."""
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
