"""What a sweep says: how figures move along each axis, and who is ahead at its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report_blocks import Block, Plot, Table, bullets, made, told
from benchmarks.report_figures import bars
from benchmarks.report_words import names, number, paired, quartiles, short, verdict
from benchmarks.runner import summary
from benchmarks.svg_bars import BAR_LOOK, spread
from benchmarks.svg_lines import Line, LineChart
from benchmarks.sweep_table import cold_lines

__all__ = ["sweep_blocks"]

# Figure, its words, the key of its ratio to the first point, and on which axes it is shown.
_FIGURES = (
    ("pairs_per_s", "pairs/s", "pairs_per_s_x_first", True,
     ("workers", "batch", "size", "cache", "storage")),
    ("cpu_ms_per_pair", "CPU ms a pair", "cpu_ms_per_pair_x_first", False, ("workers",)),
    ("memory_peak_beyond_imports_mb", "MB beyond the imports", "memory_x_first", False,
     ("workers", "batch", "size")),
    ("first_batch_s", "seconds to the first batch", "first_batch_s_x_first", False,
     ("size", "cache", "storage")),
)  # fmt: skip


def sweep_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Every axis with its table, sentences and plots."""
    found: list[Block] = []
    for axis in run["axes"]:
        found += _axis_blocks(axis)
    if not run["complete"]:
        found += bullets(["The run was not finished: axes that were asked for are absent."])
    return [*found, made(run)]


def _axis_blocks(axis: Mapping[str, Any]) -> list[Block]:
    figures = [one for one in _FIGURES if axis["axis"] in one[4]]
    whole = [one for one in axis["contestants"] if one["points"]]
    found: list[Block] = [_table(axis, whole, figures)]
    found += bullets([*_words(axis, whole, figures), *cold_lines(axis)])
    found += [
        Plot(chart=chart, caption=caption)
        for figure in figures
        for chart, caption in _charts(axis, whole, figure)
    ]
    return [*found, *told([*axis.get("notes", []), *_absent(axis)])]


def _title(axis: Mapping[str, Any]) -> str:
    return f"{axis['title']} ({axis['work']})"


def _point_name(axis: Mapping[str, Any], name: str) -> str:
    unit = axis["unit"]
    return name if not unit or name.endswith(unit) else f"{name} {unit}"


def _summary(one: Mapping[str, Any], point: str, key: str) -> Mapping[str, float] | None:
    for found in one["points"]:
        if found["point"] == point:
            figures: Mapping[str, Mapping[str, float]] = found["summary"]
            return figures.get(key)
    return None


def _table(
    axis: Mapping[str, Any], contestants: Sequence[Mapping[str, Any]], figures: Sequence[Any]
) -> Table:
    points = [point["name"] for point in axis["points"]]
    rows, ours = [], set()
    for key, words, ratio_key, _, _ in figures:
        for one in contestants:
            cells = [_summary(one, point, key) for point in points]
            if (one["group"] == "limit" and key != "pairs_per_s") or not any(cells):
                continue
            if one["group"] == "ours":
                ours.add(len(rows))
            ratio = _summary(one, points[-1], ratio_key)
            rows.append(
                (
                    words,
                    one["label"],
                    *("-" if cell is None else number(cell["median"]) for cell in cells),
                    "-" if ratio is None else quartiles(ratio),
                )
            )
    openings = {one["point"]: one["summary"]["open_ms"] for one in axis.get("openings", [])}
    if openings:
        cells = [openings.get(point) for point in points]
        rows.append(
            (
                "ms to open index and manifest",
                "siamstream",
                *("-" if cell is None else number(cell["median"]) for cell in cells),
                "-",
            )
        )
        ours.add(len(rows) - 1)
    return Table(
        caption=f"By {_title(axis)}: medians; last over first within a repeat, median (quartiles)",
        header=("figure", "contestant", *(_point_name(axis, one) for one in points),
                "last over first"),
        rows=tuple(rows),
        ours=frozenset(ours),
        words=2,
        brief=False,
    )  # fmt: skip


def _words(
    axis: Mapping[str, Any], contestants: Sequence[Mapping[str, Any]], figures: Sequence[Any]
) -> list[str]:
    points = [point["name"] for point in axis["points"]]
    if len(points) < 2:
        return []
    lines = []
    span = f"From {_point_name(axis, points[0])} to {_point_name(axis, points[-1])}"
    makers = [one for one in contestants if one["group"] != "limit"]
    for _, words, ratio_key, more, _ in figures:
        moved = [(one, _summary(one, points[-1], ratio_key)) for one in makers]
        having = [(one, ratio) for one, ratio in moved if ratio is not None]
        having.sort(key=lambda pair: pair[1]["median"], reverse=more)
        if having:
            said = names(f"{short(one)} times {quartiles(ratio)}" for one, ratio in having)
            lines.append(f"{span}, {words} (best first): {said}.")
    for point in (points[0], points[-1]):
        lines += _ahead(axis, makers, point)
    return lines


def _ahead(axis: Mapping[str, Any], makers: Sequence[Mapping[str, Any]], point: str) -> list[str]:
    """Who is faster than the fastest of ours at one point."""
    there = [
        {**one, "repeats": found["repeats"], "found": found["summary"]}
        for one in makers
        for found in one["points"]
        if found["point"] == point
    ]
    there.sort(key=lambda one: -one["found"]["pairs_per_s"]["median"])
    ours = next((one for one in there if one["group"] == "ours"), None)
    if ours is None or len(there) < 2:
        return []
    said = {"above": [], "like": [], "below": []}  # type: dict[str, list[str]]
    for one in there:
        ratios = paired(one, ours, "pairs_per_s") if one["group"] != "ours" else []
        if ratios:
            said[verdict(ratios)].append(f"{short(one)} ({quartiles(summary(ratios))} times)")
    text = f"At {_point_name(axis, point)}, faster than {short(ours)}: "
    text += names(said["above"]) or "none"
    if said["like"]:
        text += f"; not told apart from it: {names(said['like'])}"
    return [f"{text}."]


def _charts(
    axis: Mapping[str, Any], contestants: Sequence[Mapping[str, Any]], figure: Any
) -> list[tuple[Any, str]]:
    key, words, _, more, _ = figure
    drawn = [one for one in contestants if one["group"] != "limit" and _repeats(one, key)]
    if not drawn:
        return []
    name = f"sweep-{axis['axis']}-{axis['work']}-{key.replace('_', '-')}"
    title = f"{words} by {_title(axis)}"
    better = "more is better" if more else "less is better"
    if axis["scale"] == "names":
        rows = [
            (f"{one['label']}: {point}", [repeat[key] for repeat in repeats],
             0 if one["group"] == "ours" else 1 if one["group"] == "peer" else 5)
            for one in drawn
            for point, repeats in _repeats(one, key)
        ]  # fmt: skip
        caption = f"{title}. {BAR_LOOK}"
        return [(bars(name, title, f"{words}, {better}", rows), caption)]
    values = {point["name"]: float(point["value"]) for point in axis["points"]}
    ours = [one for one in drawn if one["group"] == "ours"]
    others = [one for one in drawn if one["group"] != "ours"]
    looks = {one["name"]: (0, i) for i, one in enumerate(ours)}
    looks |= {one["name"]: (1 + i % 5, i) for i, one in enumerate(others)}
    lines = tuple(
        Line(
            label=one["label"],
            points=tuple(
                (values[point], spread([repeat[key] for repeat in repeats]))
                for point, repeats in _repeats(one, key)
            ),
            colour=looks[one["name"]][0],
            shape=looks[one["name"]][1] % 6,
        )
        for one in drawn
    )
    said = "; ".join(
        f"{line.label}: "
        + ", ".join(f"{number(figure.median)} at {x:g}" for x, figure in line.points)
        for line in lines
    )
    chart = LineChart(
        name=name,
        title=title,
        description=f"Medians. {said}.",
        x_axis=f"{axis['title']}, logarithmic",
        y_axis=f"{words}, {better}",
        lines=lines,
        log_x=True,
    )
    return [(chart, f"{title}. Lines: medians; bands: quartiles; dots: every repeat.")]


def _repeats(one: Mapping[str, Any], key: str) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Points of a contestant where all repeats have a figure."""
    return [
        (point["point"], point["repeats"])
        for point in one["points"]
        if all(repeat.get(key) is not None for repeat in point["repeats"])
    ]


def _absent(axis: Mapping[str, Any]) -> list[str]:
    return [
        f"Absent: {one['name']}"
        + (f" at {_point_name(axis, one['point'])}" if one["point"] else "")
        + f" ({one['reason']})."
        for one in axis["absent"]
    ]
