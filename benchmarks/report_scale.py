"""What the simulation of a cluster says: which mode feeds the GPUs from which storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report_blocks import Block, Plot, Table, bullets, made, told
from benchmarks.report_words import number
from benchmarks.svg_bars import spread
from benchmarks.svg_lines import Line, LineChart

__all__ = ["scale_blocks"]

_MODES = ("indexed", "sequential", "zip-memory")


def scale_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Advice, each mode at the fewest and most nodes, and the check of the simulator."""
    config, storages = run["config"], run["storages"]
    gigabytes = sum(one["jpeg_gb"] for one in run["data"])
    frames = sum(one["frames"] for one in run["data"])
    found: list[Block] = [
        *told(
            [
                f"A simulation, not a measurement: {frames:,} frames, {gigabytes:,.0f} GB of JPEG, "
                f"real plans on a synthetic index; {config['gpus_per_node']} GPUs a node that ask "
                f"for {number(config['demand_pairs_per_s_gpu'])} pairs/s each."
            ]
        ),
        _table(run),
        *bullets(f"{_text(storages, one['storage'])}: {one['text']}" for one in run["advice"]),
    ]
    found += [
        plot for storage in storages for plot in _plots(run, storage["name"], storage["text"])
    ]
    return [*found, *_checks(run), made(run)]


def _text(storages: Any, name: str) -> str:
    return next((one["text"] for one in storages if one["name"] == name), name)


def _rows(run: Mapping[str, Any], storage: str, mode: str) -> list[Mapping[str, Any]]:
    found = [one for one in run["rows"] if one["storage"] == storage and one["mode"] == mode]
    return sorted(found, key=lambda one: one["nodes"])


def _table(run: Mapping[str, Any]) -> Table:
    rows = []
    for storage in run["storages"]:
        for mode in _MODES:
            found = _rows(run, storage["name"], mode)
            for one in found[:1] + found[1:][-1:]:
                total = one["total"]
                rows.append(
                    (
                        storage["name"],
                        mode,
                        f"{one['nodes']:,}",
                        f"{total['bytes_fetched'] / 1e9:,.0f}",
                        f"{total['requests']:,.0f}",
                        f"{100 * total['wait_share']:.1f} %",
                        number(one["sustained_pairs_per_s_gpu"]),
                        number(one["startup"]["seconds"]),
                        number(one["startup"]["memory_gb"]),
                        "-" if total["usd"] is None else f"{total['usd']:,.2f}",
                    )
                )
    return Table(
        caption=f"Simulated, over {run['config']['epochs']} epochs, fewest and most nodes",
        header=("storage", "mode", "nodes", "GB fetched", "requests", "GPUs wait",
                "pairs/s a GPU it could feed", "start s", "memory GB a node", "requests USD"),
        rows=tuple(rows),
        words=2,
        brief=False,
    )  # fmt: skip


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
        for i, mode in enumerate(_MODES)
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
    rows = tuple(
        (
            one["text"],
            one["quantity"],
            f"{number(one['predicted'])} {one['unit']}".rstrip(),
            f"{number(one['measured'])} {one['unit']}".rstrip(),
            f"{len(one['repeats'])}",
            f"{100 * one['error']:+.1f} {'points' if one['absolute'] else '%'}",
        )
        for one in run["checks"]
    )
    if not rows:
        return told(["The simulator was not checked against measured cases in this run."])
    return [
        Table(
            caption="The simulator against measured small cases",
            header=("case", "quantity", "predicted", "measured", "repeats", "error"),
            rows=rows,
            words=2,
            brief=False,
        )
    ]
