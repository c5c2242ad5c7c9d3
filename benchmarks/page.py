"""The page: everything that was measured, in one file that needs no network and no script.

A template that escapes every value puts blocks into HTML; each plot is there twice, wide and
narrow, and the style shows the one that fits. The same results make the same bytes anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from benchmarks import svg
from benchmarks.page_about import Shown, machine_blocks, method_blocks, reproduce_blocks
from benchmarks.page_summary import TITLE, missing, numbers, summary
from benchmarks.report_blocks import Block, Plot, Table, Text, code
from benchmarks.report_claims import claims_blocks, promises_of
from benchmarks.report_loaders import loaders_chart

__all__ = ["PAGE", "PLOT", "Shown", "page", "readme_plot"]

PAGE = "docs/benchmarks.html"
PLOT = "docs/benchmarks.svg"
_WIDE, _NARROW = 760.0, 358.0
_SPREAD = re.compile(r"([\d,.]+(?: [\w%]+)?) (\([\d,.]+ to [\d,.]+\))")


def page(sections: Sequence[Shown]) -> str:
    """Text of the page.

    Parameters
    ----------
    sections : in order, with the results that are there
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template = resources.files("benchmarks").joinpath("page.html").read_text("utf-8")
    promises = [
        promise
        for one in sections
        for _, run in one.runs
        for promise in promises_of(one.section.kind, run)
    ]
    parts = [
        _part("machine", "Machine, versions, data", machine_blocks(sections)),
        _part("method", "Method: what is equal and what is not", method_blocks(sections)),
        {**_part("results", "Results", []), "pieces": [_piece(one) for one in sections]},
        _part("promises", "Promises and their bars", claims_blocks(promises)),
        _part("reproduce", "How to repeat it", reproduce_blocks(sections)),
    ]
    return environment.from_string(template).render(
        title=TITLE,
        light=Markup(svg.variables("light") + ";"),
        dark=Markup(svg.variables("dark") + ";"),
        style=Markup(svg.STYLE),
        summary=[code(text) for text in summary(sections)],
        numbers=[{key: code(text) for key, text in number.items()} for number in numbers(sections)],
        plots=[_plot(found, f"-top{number}") for number, found in enumerate(_speeds(sections))],
        missing=[code(text) for text in missing(sections)],
        parts=parts,
    )


def readme_plot(sections: Sequence[Shown]) -> str:
    """The README's picture: speed of the loaders, a panel for each class of work."""
    panels, height, words = [], 0.0, []
    for found in _speeds(sections):
        drawn = found.chart.svg(_WIDE)
        box = float(drawn.partition(' height="')[2].partition('"')[0])
        panels.append(drawn.replace("<svg ", f'<svg y="{svg.num(height)}" ', 1))
        words.append(found.chart.description)
        height += box + 12
    canvas = svg.Canvas(_WIDE, max(height, 40.0), panels)
    if not panels:
        canvas.text(6, 24, "No comparison of loaders has been measured yet.")
    return svg.alone(canvas.finish("benchmarks", "Speed of the loaders", " ".join(words)))


def _speeds(sections: Sequence[Shown]) -> list[Plot]:
    """Pairs/s of every comparison of loaders."""
    found = (
        loaders_chart(run, "pairs_per_s", heading=one.section.title)
        for one in sections
        if one.section.kind == "loaders"
        for _, run in one.runs
    )
    return [plot for plot in found if plot is not None]


def _plot(plot: Plot, suffix: str = "") -> dict[str, Markup]:
    wide, narrow = (
        Markup(plot.chart.svg(width, suffix=f"{suffix}{end}"))
        for width, end in ((_WIDE, "-w"), (_NARROW, "-n"))
    )
    return {"wide": wide, "narrow": narrow, "caption": code(plot.caption)}


def _part(name: str, title: str, blocks: Sequence[Block]) -> dict[str, Any]:
    return {"id": name, "title": title, "blocks": _groups(blocks), "pieces": []}


def _piece(one: Shown) -> dict[str, Any]:
    section = one.section
    piece: dict[str, Any] = {"id": section.name, "title": section.title, "absent": "", "blocks": []}
    if not one.runs:
        piece["absent"] = code(one.absence)
    for number, (_, run) in enumerate(one.runs):
        piece["blocks"] += _groups(section.blocks(run), f"-{number}" if number else "")
    return piece


def _cell(text: str) -> Markup:
    """A table's cell; the quartiles of a figure stand below it."""
    found = _SPREAD.fullmatch(text)
    if found is None:
        return code(text)
    return Markup('{} <span class="spread">{}</span>').format(*found.groups())


def _groups(blocks: Sequence[Block], suffix: str = "") -> list[dict[str, Any]]:
    """Blocks as the template takes them; items that follow each other are one list.

    `suffix` tells plots of several results of one kind apart.
    """
    found: list[dict[str, Any]] = []
    for block in blocks:
        group: dict[str, Any] = {"list": None, "table": None, "wide": None, "text": "", "rows": ()}
        if isinstance(block, Text) and block.item:
            if not found or not found[-1]["list"]:
                found.append({**group, "list": []})
            found[-1]["list"].append(code(block.text))
            continue
        if isinstance(block, Table):
            rows = [[_cell(cell) for cell in row] for row in block.rows]
            found.append({**group, "table": block, "caption": code(block.caption), "rows": rows})
        elif isinstance(block, Plot):
            found.append({**group, **_plot(block, suffix)})
        else:
            found.append({**group, "text": code(block.text)})
    return found
