"""The doctor's findings for people: lines for a terminal, bars in a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.draw import write_picture

__all__ = ["lines", "plot"]

_INK, _PALE, _MARKED = "#2f6db3", "#a9c4e0", "#c8553d"
_NO_LIMIT = 1_000_000
_POOLED = ("storage", "decode", "augment")


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Name, pairs a second with one thread and with all, of all that was measured."""
    found = [
        (one["stage"], one["pairs_per_s_one_thread"], one["pairs_per_s"]) for one in facts["stages"]
    ]
    for name, key in (("whole decode", "whole_decode"), ("whole loader", "loader")):
        one, every = facts[f"{key}_pairs_per_s_one_thread"], facts[f"{key}_pairs_per_s"]
        found.append((name, one, every))
    return found


def _rate(pairs_per_s: float) -> str:
    """Pairs a second; a stage with nothing to do has no rate."""
    return f"{pairs_per_s:,.0f}" if pairs_per_s < _NO_LIMIT else f"over {_NO_LIMIT:,}"


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Table, bottleneck, advice and notes, line by line.

    Parameters
    ----------
    facts : of `loaders.doctor.Examination`
    """
    setting, storage = facts["setting"], facts["storage"]
    threads = setting["threads"]
    yield (
        f"backend {setting['backend']}, {threads} thread(s) of {setting['cores']} usable core(s), "
        f"pixels {setting['pixels']}, batches of {facts['batch_size']}; "
        f"{setting['pictures']:,} pictures, {setting['data_bytes'] / 1e6:,.1f} MB"
    )
    header = ("stage", "1 thread, pairs/s", f"{threads} thread(s), pairs/s", "ms a pair")
    rows = [
        (name, _rate(one), _rate(every), f"{1e3 / every:.3f}") for name, one, every in _rows(facts)
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(4)]
    for row in (header, *rows):
        name, *numbers = row
        cells = [name.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        mark = "  <- bottleneck" if row[0] == facts["bottleneck"] else ""
        yield "  ".join(cells) + mark
    found = {True: "from disk (cold)", False: "from memory (warm)", None: "not known from where"}
    if setting["connections"]:
        found = {True: "over the network (cold)", False: "from the disk cache (warm)"}
    yield (
        f"storage: {storage['mb_per_s']:,.0f} MB/s and {storage['us_per_picture']:,.0f} us a "
        f"picture of {storage['mean_picture_kb']:,.1f} KB, CRC included, {found[storage['cold']]}; "
        f"again {storage['us_per_picture_warm']:,.0f} us"
    )
    yield f"bottleneck: {facts['bottleneck']}"
    for told in facts["advice"]:
        yield f"  change: {told}"
    for told in facts["notes"]:
        yield f"  note: {told}"


def plot(facts: Mapping[str, Any], path: Path) -> None:
    """Draw milliseconds a pair by stage, the bottleneck marked, and pairs a second of the loader.

    Parameters
    ----------
    facts : of `loaders.doctor.Examination`
    path : of the picture; its ending chooses the format

    Raises
    ------
    StorageError : if it cannot be written
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    stages = facts["stages"]
    names = [one["stage"] for one in stages]
    colors = [
        _MARKED if name == facts["bottleneck"] else _INK if name in _POOLED else _PALE
        for name in names
    ]
    bars = left.barh(names, [one["ms_per_pair"] for one in stages], color=colors)
    left.bar_label(bars, [f" {one['ms_per_pair']:.3f}" for one in stages])
    left.invert_yaxis()
    left.margins(x=0.12)
    setting = facts["setting"]
    left.set_xlabel(f"ms a pair, {setting['threads']} thread(s)")
    left.set_title(
        f"{setting['backend']}: the bottleneck is {facts['bottleneck']} (red)\n"
        "pale: in a thread beside the pool",
        fontsize=10,
    )
    rates = {"1 thread": facts["loader_pairs_per_s_one_thread"]}
    if setting["threads"] > 1:
        rates[f"{setting['threads']} threads"] = facts["loader_pairs_per_s"]
    shown = right.bar(list(rates), list(rates.values()), color=[_PALE, _INK][: len(rates)])
    right.bar_label(shown, [f"{rate:,.0f}" for rate in rates.values()])
    right.margins(y=0.1)
    right.set_ylabel("pairs/s")
    right.set_title("the whole loader", fontsize=10)
    write_picture(figure.savefig, path, ".png or .svg")
