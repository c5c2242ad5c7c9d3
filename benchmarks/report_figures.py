"""Small shared pieces of plots that are made from results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report_words import number
from benchmarks.runner import summary
from benchmarks.svg_bars import Bar, BarChart, Mark, spread

__all__ = ["bars"]


def bars(
    name: str,
    title: str,
    axis: str,
    rows: Sequence[tuple[str, Sequence[float], int]],
    mark: Mark | None = None,
    **options: Any,
) -> BarChart:
    """Bars of some figures, in the order given.

    Parameters
    ----------
    name : unique in the page
    title : of the drawing
    axis : what the values are
    rows : label, repeats and colour of each
    mark : a value that they are seen against
    options : more of `BarChart`
    """
    middles = [summary(values)["median"] for _, values, _ in rows]
    said = "; ".join(
        f"{label}: {number(middle)}" for (label, _, _), middle in zip(rows, middles, strict=True)
    )
    return BarChart(
        name=name,
        title=title,
        description=f"{axis}. Medians: {said}.",
        axis=axis,
        bars=tuple(
            Bar(label=label, figure=spread(values), shown=number(middle), colour=colour)
            for (label, values, colour), middle in zip(rows, middles, strict=True)
        ),
        mark=mark,
        bold=len({colour for _, _, colour in rows}) > 1,
        **options,
    )
