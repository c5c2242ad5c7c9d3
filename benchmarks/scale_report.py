"""Text and table of `scale`: every figure from the result, every sentence by rule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from benchmarks.scale_case import MODES

__all__ = [
    "ADVICE_HEADER",
    "CHECK_HEADER",
    "SCALE_HEADER",
    "advice",
    "advice_rows",
    "check_rows",
    "demand_header",
    "demand_rows",
    "scale_lines",
    "scale_rows",
]

SCALE_HEADER = (
    "storage", "mode", "nodes", "start s", "GB in epoch 1", "GB in the last", "hits in the last",
    "waits in epoch 1", "waits in the last", "feeds pairs/s a GPU in the last", "hours in all",
    "requests USD",
)  # fmt: skip
CHECK_HEADER = ("case", "figure", "kind", "predicted", "measured", "off by")
ADVICE_HEADER = ("storage", "nodes", "mode", "hours", "next best", "GPUs wait")
SHOWN_NODES = (1, 8, 64)
_TIE = 1.02  # two times that differ by less are the same
_BOUND = 0.05  # share of the time that GPUs may wait where a storage is called fast enough


def scale_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `SCALE_HEADER`, for some numbers of nodes; the JSON has all."""
    nodes = _shown_nodes(run)
    rows: list[tuple[str, ...]] = []
    for storage in run["storages"]:
        for row in _of(run, storage["name"]):
            if row["nodes"] not in nodes:
                continue
            if not row["fits"]:
                empty = ("",) * (len(SCALE_HEADER) - 4)
                cells = (storage["name"], row["mode"], f"{row['nodes']}", _no_room(run, row))
                rows.append((*cells, *empty))
                continue
            first, last = row["epochs"][0], row["epochs"][-1]
            usd, feeds = row["total"]["usd"], row["sustained_pairs_per_s_gpu"]
            rows.append(
                (
                    storage["name"],
                    row["mode"],
                    f"{row['nodes']}",
                    f"{row['startup']['seconds']:,.1f}",
                    f"{first['bytes_fetched'] / 1e9:,.1f}",
                    f"{last['bytes_fetched'] / 1e9:,.1f}",
                    f"{100 * last['hit_share']:.0f} %",
                    f"{100 * first['wait_share']:.0f} %",
                    f"{100 * last['wait_share']:.0f} %",
                    _feeds(row) if feeds is not None or row["mode"] == "indexed" else "",
                    f"{row['total']['hours']:,.2f}",
                    "" if usd is None else f"{usd:,.2f}",
                )
            )
    return rows


def _shown_nodes(run: Mapping[str, Any]) -> list[int]:
    return [n for n in run["config"]["nodes"] if n in SHOWN_NODES] or run["config"]["nodes"]


def _no_room(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    needed = row["startup"]["memory_gb"]
    return f"does not fit: {needed:,.0f} of {run['config']['memory_gb']:,g} GB"


def _feeds(row: Mapping[str, Any]) -> str:
    feeds = row["sustained_pairs_per_s_gpu"]
    return "no limit seen" if feeds is None else f"{feeds:,.0f}"


def demand_header(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Header of `demand_rows`."""
    demands = run["config"]["demands_pairs_per_s_gpu"]
    return ("storage", "mode", "nodes", *(f"waits at {one:,g} pairs/s" for one in demands))


def demand_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `demand_header`: how long GPUs of other speeds wait, where a mode fits."""
    nodes = _shown_nodes(run)
    return [
        (
            storage["name"],
            row["mode"],
            f"{row['nodes']}",
            *(f"{100 * one['wait_share']:.0f} %" for one in row["by_demand"]),
        )
        for storage in run["storages"]
        for row in _of(run, storage["name"])
        if row["nodes"] in nodes and row["fits"]
    ]


def _of(run: Mapping[str, Any], storage: str) -> list[Mapping[str, Any]]:
    return [row for row in run["rows"] if row["storage"] == storage]


def _best(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Modes of one storage and number of nodes that fit, the fastest first; ties to the plan's.

    `indexed` alone draws exactly the plan's pairs and needs no memory for the data, so it wins a
    tie.
    """
    rows = [row for row in rows if row["fits"]]
    fastest = min(row["total"]["hours"] for row in rows)
    order = {mode: at for at, mode in enumerate(MODES)}

    def key(row: Mapping[str, Any]) -> tuple[float, int]:
        tied = row["total"]["hours"] <= _TIE * fastest
        return (0.0 if tied else row["total"]["hours"], order[row["mode"]])

    return sorted(rows, key=key)


def _choices(run: Mapping[str, Any], storage: str) -> list[list[Mapping[str, Any]]]:
    """For each number of nodes the modes, the fastest first."""
    rows = _of(run, storage)
    return [
        _best([row for row in rows if row["nodes"] == nodes]) for nodes in run["config"]["nodes"]
    ]


def _span(nodes: list[int], every: list[int]) -> str:
    """Numbers of nodes, "1 to 8" where none of those simulated between them is left out."""
    first, last = every.index(nodes[0]), every.index(nodes[-1])
    if len(nodes) == 1 or last - first + 1 != len(nodes):
        return ", ".join(map(str, nodes))
    return f"{nodes[0]} to {nodes[-1]}"


def advice_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `ADVICE_HEADER`: which mode where, neighbours of one choice together."""
    rows: list[tuple[str, ...]] = []
    for storage in run["storages"]:
        for mode, group in groupby(
            _choices(run, storage["name"]), lambda ordered: ordered[0]["mode"]
        ):
            found = list(group)
            best = [one[0] for one in found]
            pairs = [(one[0], one[1]) for one in found if len(one) > 1]
            waits = [one["total"]["wait_share"] for one in best]
            rows.append(
                (
                    storage["text"],
                    _span([one["nodes"] for one in best], run["config"]["nodes"]),
                    mode,
                    _between([one["total"]["hours"] for one in best], "{:.2f}"),
                    _next_best(pairs),
                    _between([100 * one for one in waits], "{:.0f}") + " %",
                )
            )
    return rows


def _next_best(pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    if not pairs:
        return "none fits"
    modes = " or ".join(dict.fromkeys(second["mode"] for _, second in pairs))
    times = [second["total"]["hours"] / best["total"]["hours"] for best, second in pairs]
    return f"{modes}, {_between(times, '{:.1f}')} x"


def _between(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def scale_lines(run: Mapping[str, Any]) -> list[str]:
    """What the figures say, a paragraph each."""
    config = run["config"]
    frames = sum(one["frames"] for one in run["data"])
    jpeg = sum(one["jpeg_gb"] for one in run["data"])
    lines = [
        f"{frames:,} pictures, {jpeg:,.1f} GB at quality 90 "
        f"({', '.join(_data(one) for one in run['data'])}); {config['epochs']} epochs of "
        f"{config['pairs_per_epoch']:,} pairs, {config['gpus_per_node']} GPUs a node, "
        f"{config['batch_per_gpu']} pairs a GPU, each GPU takes "
        f"{config['demand_pairs_per_s_gpu']:,.0f} pairs/s, which is an assumption. A node has "
        f"{config['memory_gb']:g} GB of memory for data in every mode."
    ]
    lines.append(_thread_line(run))
    lines.append(_memory_line(run))
    lines.append(_request_line(run))
    return lines


def _data(one: Mapping[str, Any]) -> str:
    return f"{one['name']} {one['frames']:,} of {one['mean_jpeg_kb']:.1f} KB"


def advice(run: Mapping[str, Any]) -> list[dict[str, str]]:
    """Which mode where, a sentence for each storage."""
    return [
        {"storage": one["name"], "text": _storage_line(run, one["name"])} for one in run["storages"]
    ]


def _storage_line(run: Mapping[str, Any], storage: str) -> str:
    """Say which mode is the fastest, where it is fast enough, and what it feeds."""
    choices = _choices(run, storage)
    fast = [ordered[0] for ordered in choices if ordered[0]["total"]["wait_share"] <= _BOUND]
    indexed = [row for row in _of(run, storage) if row["mode"] == "indexed"]
    most, least = indexed[0], indexed[-1]
    rates = (
        f"with its caches as in the last epoch, indexed reading feeds each GPU of {most['nodes']} "
        f"node(s) {_feeds(most)} pairs/s and each of {least['nodes']} {_feeds(least)}"
    )
    every = run["config"]["nodes"]
    fastest = ", ".join(
        f"{mode} on {_span([one[0]['nodes'] for one in group], every)} node(s)"
        for mode, group in (
            (mode, list(found)) for mode, found in groupby(choices, lambda one: one[0]["mode"])
        )
    )
    enough = (
        f"GPUs wait at most {100 * _BOUND:.0f} % of the whole time on "
        f"{_span([row['nodes'] for row in fast], every)} node(s)"
        if fast
        else f"GPUs wait more than {100 * _BOUND:.0f} % of the time in every case"
    )
    return f"fastest is {fastest}; {enough}; {rates}."


def _thread_line(run: Mapping[str, Any]) -> str:
    node = run["calibration"]
    return (
        f"A thread of a process plans, reads and checks a pair in {node['pair_us']:,.0f} µs of CPU "
        f"time and makes a request to a server in {node['request_us']:,.0f} µs more; a stream "
        f"gives {node['stream_frames_per_s']:,.0f} frames/s (all measured on one core)."
    )


def _memory_line(run: Mapping[str, Any]) -> str:
    needed = {row["mode"]: row for row in run["rows"] if row["mode"].startswith("zip-")}
    parts = [
        f"{row['startup']['memory_gb']:,.0f} GB {how}"
        + ("" if row["fits"] else ", which does not fit")
        for row, how in (
            (needed["zip-shared"], "in one copy that processes share by fork, as published"),
            (needed["zip-memory"], "with a copy in each process, as data.storage=zip-memory has"),
        )
    ]
    sizes = run["zips_gb"]
    return (
        f"Zips in memory take of every node {'; '.join(parts)}. One copy at quality 95, as the "
        f"published zips are, is {sizes['quality_95']:,.0f} GB. All of it is read before the "
        "first batch."
    )


def _request_line(run: Mapping[str, Any]) -> str:
    config = run["config"]
    paid = [row for row in run["rows"] if row["fits"] and row["total"]["usd"] is not None]
    parts = []
    for mode in dict.fromkeys(row["mode"] for row in paid):
        costs = [row["total"]["usd"] for row in paid if row["mode"] == mode]
        parts.append(f"{mode} {_between(costs, '{:,.2f}')} USD")
    return (
        f"Requests to S3 of all epochs, at {config['usd_per_1000_get']:g} USD per 1,000 GET "
        f"({config['usd_source']}): {', '.join(parts)}."
    )


def check_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `CHECK_HEADER`."""
    rows: list[tuple[str, ...]] = []
    for one in run["checks"]:
        if one["absolute"]:
            cells = (
                f"{100 * one['predicted']:.1f} %",
                f"{100 * one['measured']:.1f} %",
                f"{100 * one['error']:+.1f} points",
            )
        else:
            unit = f" {one['unit']}" if one["unit"] else ""
            cells = (
                f"{one['predicted']:,.4g}{unit}",
                f"{one['measured']:,.4g}{unit}",
                "undefined" if one["error"] is None else f"{100 * one['error']:+.1f} %",
            )
        text = f"{one['text']} ({one['note']})" if one["note"] else one["text"]
        rows.append((text, one["quantity"], one["kind"], *cells))
    return rows
