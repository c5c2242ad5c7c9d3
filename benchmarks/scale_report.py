"""Text and table of `scale`: every figure from the result, every sentence by rule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

__all__ = [
    "ADVICE_HEADER",
    "CHECK_HEADER",
    "SCALE_HEADER",
    "advice",
    "advice_rows",
    "check_rows",
    "scale_lines",
    "scale_rows",
]

SCALE_HEADER = (
    "storage", "mode", "nodes", "start s", "GB in epoch 1", "GB in the last", "hits in the last",
    "waits in epoch 1", "waits in the last", "feeds pairs/s a GPU", "hours in all", "requests USD",
)  # fmt: skip
CHECK_HEADER = ("case", "figure", "predicted", "measured", "off by")
ADVICE_HEADER = ("storage", "nodes", "mode", "hours", "next best", "GPUs wait")
SHOWN_NODES = (1, 8, 64)
_TIE = 1.02  # two times that differ by less are the same
_BOUND = 0.05  # share of the time that GPUs may wait where a storage is called fast enough


def scale_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `SCALE_HEADER`, for some numbers of nodes; the JSON has all."""
    nodes = [n for n in run["config"]["nodes"] if n in SHOWN_NODES] or run["config"]["nodes"]
    rows: list[tuple[str, ...]] = []
    for storage in run["storages"]:
        for row in _of(run, storage["name"]):
            if row["nodes"] not in nodes:
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
                    "" if feeds is None else f"{feeds:,.0f}",
                    f"{row['total']['hours']:,.2f}",
                    "" if usd is None else f"{usd:,.2f}",
                )
            )
    return rows


def _of(run: Mapping[str, Any], storage: str) -> list[Mapping[str, Any]]:
    return [row for row in run["rows"] if row["storage"] == storage]


def _best(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Modes of one storage and number of nodes, the fastest first; ties to the plan's own pairs.

    `indexed` alone draws exactly the plan's pairs and needs no memory for the data, so it wins a
    tie.
    """
    fastest = min(row["total"]["hours"] for row in rows)
    order = {"indexed": 0, "sequential": 1, "zip-memory": 2}

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


def _span(nodes: list[int]) -> str:
    return f"{nodes[0]}" if len(nodes) == 1 else f"{nodes[0]} to {nodes[-1]}"


def advice_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `ADVICE_HEADER`: which mode where, neighbours of one choice together."""
    rows: list[tuple[str, ...]] = []
    for storage in run["storages"]:
        for mode, group in groupby(
            _choices(run, storage["name"]), lambda ordered: ordered[0]["mode"]
        ):
            found = list(group)
            best, second = [one[0] for one in found], [one[1] for one in found]
            waits = [one["total"]["wait_share"] for one in best]
            rows.append(
                (
                    storage["text"],
                    _span([one["nodes"] for one in best]),
                    mode,
                    _between([one["total"]["hours"] for one in best], "{:.2f}"),
                    " or ".join(dict.fromkeys(one["mode"] for one in second))
                    + ", "
                    + _between(
                        [
                            b["total"]["hours"] / a["total"]["hours"]
                            for a, b in zip(best, second, strict=True)
                        ],
                        "{:.1f}",
                    )
                    + " x",
                    _between([100 * one for one in waits], "{:.0f}") + " %",
                )
            )
    return rows


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
        f"{config['demand_pairs_per_s_gpu']:,.0f} pairs/s. A node keeps "
        f"{config['page_cache_gb']:g} GB of files in its page cache."
    ]
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
        f"indexed reading feeds {most['sustained_pairs_per_s_gpu']:,.0f} pairs/s to each GPU of "
        f"{most['nodes']} node(s) and {least['sustained_pairs_per_s_gpu']:,.0f} to each of "
        f"{least['nodes']}"
    )
    fastest = ", ".join(
        f"{mode} on {_span([one[0]['nodes'] for one in group])} node(s)"
        for mode, group in (
            (mode, list(found)) for mode, found in groupby(choices, lambda one: one[0]["mode"])
        )
    )
    enough = (
        f"GPUs wait at most {100 * _BOUND:.0f} % of the whole time on "
        f"{_span([row['nodes'] for row in fast])} node(s)"
        if fast
        else f"GPUs wait more than {100 * _BOUND:.0f} % of the time in every case"
    )
    return f"fastest is {fastest}; {enough}; {rates}."


def _memory_line(run: Mapping[str, Any]) -> str:
    row = next(row for row in run["rows"] if row["mode"] == "zip-memory")
    start = row["startup"]
    return (
        f"Zips in memory take {start['memory_gb']:,.0f} GB of every node in one copy "
        f"({start['memory_gb_quality_95']:,.0f} GB at quality 95), "
        f"{start['memory_gb_per_process_copies']:,.0f} GB with a copy for each process; all of it "
        "is read before the first batch."
    )


def _request_line(run: Mapping[str, Any]) -> str:
    config = run["config"]
    paid = [row for row in run["rows"] if row["total"]["usd"] is not None]
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
                f"{100 * one['error']:+.1f} %",
            )
        rows.append((one["text"], one["quantity"], *cells))
    return rows
