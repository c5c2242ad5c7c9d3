"""Statistics of drawn pairs as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loaders.chi2 import Check
from loaders.stats import judged
from shards.draw import write_picture

__all__ = ["plot"]

SHOWN_BARS = 15
_COLUMNS, _DOTS_PER_INCH = 6, 80
_INK, _EXPECTED, _WRONG = "#2f6db3", "#d9822b", "#c22f2f"


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _panels(found: Sequence[Check]) -> list[list[Check]]:
    """Checks by panel: all gates of a subject share one."""
    panels: dict[tuple[str, str], list[Check]] = {}
    for check in found:
        if check.is_gate and not check.expected[0] and not check.verdict().wrong:
            continue
        key = (check.subject, "steps" if check.is_gate else check.what)
        panels.setdefault(key, []).append(check)
    return list(panels.values())


def _steps(axes: Any, gates: Sequence[Check]) -> None:
    """Shares of pairs or crops to which something was done."""
    totals = np.array([max(1, gate.observed.sum()) for gate in gates])
    observed = np.array([gate.observed[0] for gate in gates]) / totals
    expected = np.array([gate.expected[0] for gate in gates]) / totals
    places = np.arange(len(gates))
    colors = [_WRONG if gate.verdict().wrong else _INK for gate in gates]
    axes.barh(places, observed, color=colors)
    _marks(axes, expected, [gate.what for gate in gates])
    axes.set_xlim(0, 1.15 * max(observed.max(), expected.max()))


def _marks(axes: Any, expected: Any, names: Sequence[str]) -> None:
    """Expectations over horizontal bars, and the bars' names; few bars stay thin."""
    places = np.arange(len(names))
    axes.plot(expected, places, "|", color=_EXPECTED, markersize=11, markeredgewidth=2)
    axes.set_yticks(places, [_plain(name) for name in names], fontsize=7)
    axes.set_ylim(max(3.5, len(names) - 0.5), -0.5)


def _bars(axes: Any, check: Check) -> None:
    """Counts of categories, the most expected first."""
    order = np.argsort(-check.expected, kind="stable")[:SHOWN_BARS]
    places = np.arange(len(order))
    axes.barh(places, check.observed[order], color=_INK)
    _marks(axes, check.expected[order], [check.labels[i] for i in order])


def _histogram(axes: Any, check: Check) -> None:
    """Counts of a quantity's bins."""
    # What lies outside the possible range is shown only where there is some.
    possible = (check.expected > 0) | (check.observed > 0)
    places = np.arange(len(possible))[possible.argmax() : len(possible) - possible[::-1].argmax()]
    axes.bar(places, check.observed[places], width=1, color=_INK)
    axes.step(places, check.expected[places], where="mid", color=_EXPECTED, linewidth=1.2)
    ticks = places[:: max(1, len(places) // 5)]
    axes.set_xticks(ticks, [check.labels[i] for i in ticks], fontsize=7)
    axes.set_ylim(0)


def plot(found: Sequence[Check], path: Path, title: str) -> None:
    """Draw all checks, observed as bars and expected as marks, on one page.

    Parameters
    ----------
    found : the checks
    path : of the picture; its ending chooses the format
    title : of the page

    Raises
    ------
    StorageError : if it cannot be written
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(found)
    rows = -(-len(panels) // _COLUMNS)
    height = 2.7 * rows + 0.6
    figure = Figure(figsize=(4 * _COLUMNS, height), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.06, right=0.99, bottom=0.35 / height, top=1 - 0.8 / height, wspace=0.45, hspace=0.4
    )
    figure.suptitle(
        _plain(f"{title}: observed (bars) and expected (orange)"), fontsize=12, y=1 - 0.2 / height
    )
    for axes, panel in zip(
        figure.subplots(rows, _COLUMNS, squeeze=False).flat, panels, strict=False
    ):
        check = panel[0]
        if check.is_gate:
            _steps(axes, panel)
            heading = f"{check.subject}: shares"
        else:
            _histogram(axes, check) if check.ordered else _bars(axes, check)
            heading = f"{check.name}, {judged(check.verdict())}"
        wrong = any(one.verdict().wrong for one in panel)
        axes.set_title(_plain(heading), fontsize=9, color=_WRONG if wrong else "black")
        axes.tick_params(labelsize=7)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    write_picture(figure.savefig, path, ".png or .svg")
