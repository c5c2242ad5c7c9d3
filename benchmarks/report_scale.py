"""What the simulation of a cluster says: which mode feeds the GPUs from which storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import svg
from benchmarks.report_blocks import Block, Plot, Table, Text, made, told
from benchmarks.report_words import number
from benchmarks.scale_case import MODES
from benchmarks.scale_report import (
    ADVICE_HEADER,
    CHECK_HEADER,
    SCALE_HEADER,
    advice,
    advice_rows,
    check_rows,
    demand_header,
    demand_rows,
    scale_lines,
    scale_rows,
)
from benchmarks.svg_bars import spread
from benchmarks.svg_lines import Line, LineChart

__all__ = ["SCALE_PLOT", "scale_blocks", "scale_plot"]

SCALE_PLOT = "docs/scale.svg"
_PANEL = 370.0


def scale_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Advice, each mode at some numbers of nodes, and the check of the simulator."""
    storages = run["storages"]
    simulated, *others = scale_lines(run)
    found: list[Block] = [
        *told([f"A simulation, not a measurement. {simulated}"]),
        Table(
            caption="Which mode where: the least time for all epochs, the start included",
            header=ADVICE_HEADER,
            rows=tuple(advice_rows(run)),
            words=3,
        ),
        *(
            Text(text=f"{_text(storages, one['storage'])}: {one['text']}", item=True)
            for one in advice(run)
        ),
        *told(others),
        Table(
            caption=f"Simulated, {run['config']['epochs']} epochs",
            header=SCALE_HEADER,
            rows=tuple(scale_rows(run)),
            words=2,
        ),
        Table(
            caption="The same for slower and faster GPUs: share of the whole time that they wait",
            header=demand_header(run),
            rows=tuple(demand_rows(run)),
            words=2,
        ),
    ]
    found += [
        plot for storage in storages for plot in _plots(run, storage["name"], storage["text"])
    ]
    return [*found, *_checks(run), made(run)]


def scale_plot(run: Mapping[str, Any] | None) -> str:
    """The picture of docs/SCALE.md: how long GPUs wait, a panel for each storage, two a row."""
    panels, words, x, y, row = [], [], 0.0, 0.0, 0.0
    storages = run["storages"] if run is not None else ()
    for plot in (
        plot
        for one in storages
        if run is not None
        for plot in _plots(run, one["name"], one["text"])
    ):
        drawn = plot.chart.svg(_PANEL)
        height = float(drawn.partition(' height="')[2].partition('"')[0])
        label = svg.Canvas(_PANEL, 0.0)
        lines = svg.wrap(plot.chart.title, _PANEL - 12, bold=True)
        for number_, line in enumerate(lines):
            label.text(x + 6, y + 16 * (number_ + 1), line, "bold")
        top = y + 16 * len(lines) + 8
        panels += [*label.parts]
        panels.append(drawn.replace("<svg ", f'<svg x="{svg.num(x)}" y="{svg.num(top)}" ', 1))
        words.append(plot.chart.description)
        row = max(row, top + height + 18 - y)
        x += _PANEL + 20
        if x > _PANEL + 20:
            x, y, row = 0.0, y + row, 0.0
    canvas = svg.Canvas(2 * _PANEL + 20, max(y + row, 40.0), panels)
    if not panels:
        canvas.text(6, 24, "Nothing has been simulated yet.")
    return svg.alone(canvas.finish("scale", "Time that GPUs wait for data", " ".join(words)))


def _text(storages: Any, name: str) -> str:
    return next((one["text"] for one in storages if one["name"] == name), name)


def _rows(run: Mapping[str, Any], storage: str, mode: str) -> list[Mapping[str, Any]]:
    found = [
        one
        for one in run["rows"]
        if one["storage"] == storage and one["mode"] == mode and one["fits"]
    ]
    return sorted(found, key=lambda one: one["nodes"])


def _plots(run: Mapping[str, Any], storage: str, text: str) -> list[Plot]:
    lines = tuple(
        Line(
            label=mode,
            points=tuple(
                (one["nodes"], spread([100 * one["total"]["wait_share"]]))
                for one in _rows(run, storage, mode)
            ),
            colour=i,
            shape=i,
        )
        for i, mode in enumerate(MODES)
        if _rows(run, storage, mode)
    )
    if not lines:
        return []
    said = "; ".join(
        f"{line.label}: " + ", ".join(f"{number(one.median)} % at {x:g}" for x, one in line.points)
        for line in lines
    )
    chart = LineChart(
        name=f"scale-{storage}",
        title=f"Time that GPUs wait: {text}",
        description=f"{said}.",
        x_axis="nodes, logarithmic",
        y_axis="% of the time that GPUs wait for data, less is better",
        lines=lines,
        log_x=True,
    )
    return [Plot(chart=chart, caption=f"{text}. Simulated.")]


def _checks(run: Mapping[str, Any]) -> list[Block]:
    rows = tuple(check_rows(run))
    if not rows:
        return told(["The simulator was not checked against measured cases in this run."])
    return [
        Table(
            caption="The simulator against measured small cases; calibration: a figure measured on "
            "the same files is part of what is predicted",
            header=CHECK_HEADER,
            rows=rows,
            words=3,
        )
    ]
