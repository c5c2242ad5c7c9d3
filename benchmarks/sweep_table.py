"""Results of ``sweep`` as tables, one an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.contestants import IN_MEMORY
from benchmarks.runner import ratio_key
from benchmarks.table import cell, spread

__all__ = ["axis_header", "axis_lines", "axis_rows", "cold_lines", "opening_lines"]

_TUNED = ratio_key("zip-tuned")
# Figures that only some axes have, with the head of their column.
_OWN = {"cache": ("disk_read_mb", "MB from disk"), "storage": ("fetched_mb", "MB fetched")}


def axis_header(axis: Mapping[str, Any]) -> tuple[str, ...]:
    """Column heads of an axis."""
    return (
        "contestant",
        axis["title"],
        "pairs/s",
        f"x {axis['points'][0]['name']}",
        "x zip-tuned",
        "CPU ms a pair",
        "memory MB",
        "first batch s",
        *([_OWN[axis["axis"]][1]] if axis["axis"] in _OWN else []),
    )


def axis_rows(axis: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `axis_header`, in order of the contestants and of the points."""
    rows = []
    for one in axis["contestants"]:
        for point in one["points"]:
            figures = point["summary"]
            own = [cell(figures.get(_OWN[axis["axis"]][0]))] if axis["axis"] in _OWN else []
            rows.append(
                (
                    one["name"],
                    point["point"],
                    spread(figures["pairs_per_s"]),
                    spread(figures.get("pairs_per_s_x_first")),
                    spread(figures.get(_TUNED)),
                    cell(figures["cpu_ms_per_pair"]),
                    cell(figures["memory_peak_beyond_imports_mb"]),
                    cell(figures["first_batch_s"]),
                    *own,
                )
            )
    return rows


def axis_lines(axis: Mapping[str, Any], repeats: int) -> list[str]:
    """What a reader must know of an axis."""
    case = axis["case"]
    kept = {
        "threads": "threads or workers",
        "batch_size": "pairs a batch",
        "template_px": "px template",
        "search_px": "px search",
    }
    common = ", ".join(f"{case[key]} {what}" for key, what in kept.items() if key in case)
    lines = [
        f"{axis['title']}; work: {axis['work']}; {common}; median (quartiles) of {repeats} "
        "repeat(s) in shuffled order, ratios within a repeat."
    ]
    lines += [f"Absent: {one['name']} ({one['reason']})." for one in axis["absent"]]
    return lines + opening_lines(axis) + cold_lines(axis) + list(axis["notes"])


def cold_lines(axis: Mapping[str, Any]) -> list[str]:
    """Whose cold pairs/s are not those of cold data."""
    there = [one["name"] for one in axis["contestants"] if one["name"] in IN_MEMORY]
    if axis["axis"] != "cache" or not there:
        return []
    return [
        f"{', '.join(there)}: the whole zip is read into memory before the first batch, so the "
        "seconds to the first batch hold the cold disk, and the pairs/s are those of warm data."
    ]


def opening_lines(axis: Mapping[str, Any]) -> list[str]:
    """How long the data of each point took to open."""
    return [
        f"Opening {one['point']} ({one['summary']['rows']['median']:,.0f} crops): "
        f"{spread(one['summary']['open_ms'])} ms, {cell(one['summary']['memory_mb'])} MB held."
        for one in axis.get("openings", [])
    ]
