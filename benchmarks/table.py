"""Results of ``loaders`` as a table: the same rows for a terminal, the page and the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.contestants import BASELINES, cannot
from benchmarks.runner import EPOCH_PAIRS, ratio_key

__all__ = [
    "HEADER",
    "PAGE_ONLY",
    "absent_lines",
    "cell",
    "column_lines",
    "header_lines",
    "markdown",
    "rows",
    "spread",
    "text",
]

HEADER = (
    "contestant",
    "pairs/s",
    *(f"x {name}" for name in BASELINES),
    "CPU ms a pair",
    "decode units a pair",
    "memory MB",
    "first batch s",
    "KB read a pair",
    "epoch min",
    "share of the limit",
)
PAGE_ONLY = frozenset({"KB read a pair", "epoch min"})  # columns that a document has no room for
_GROUPS = {"ours": 0, "baseline": 1, "peer": 2, "limit": 3}


def _number(value: float) -> str:
    """About three digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(summary: Mapping[str, float] | None) -> str:
    """Median and quartiles; the median alone where they look the same."""
    if summary is None:
        return "-"
    middle = _number(summary["median"])
    low, high = _number(summary["q1"]), _number(summary["q3"])
    return middle if low == high else f"{middle} ({low} to {high})"


def cell(summary: Mapping[str, float] | None) -> str:
    """Median alone."""
    return "-" if summary is None else _number(summary["median"])


def rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `HEADER`, sorted by group and then by speed; limits are told by their labels."""

    def order(one: Mapping[str, Any]) -> tuple[int, float]:
        return _GROUPS.get(one["group"], 9), -one["summary"]["pairs_per_s"]["median"]

    table: list[tuple[str, ...]] = []
    for one in sorted(run["contestants"], key=order):
        figures = one["summary"]
        # a limit that was handed its batches or bytes beforehand has no honest start or memory
        whole = one["group"] != "limit"
        table.append(
            (
                one["label"] + (", own pairs" if one.get("pairs") == "own" else ""),
                spread(figures["pairs_per_s"]),
                *(spread(figures.get(ratio_key(name))) for name in BASELINES),
                cell(figures["cpu_ms_per_pair"]),
                spread(figures.get("decode_units_per_pair")),
                cell(figures["memory_peak_beyond_imports_mb"]) if whole else "-",
                cell(figures["first_batch_s"]) if whole else "-",
                cell(figures.get("asked_kb_per_pair")),
                cell(figures.get("epoch_min")) if whole else "-",
                cell(figures.get("share_of_limit")),
            )
        )
    return table


def header_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers: machine, data, method."""
    machine, config, data = run["environment"], run["config"], run["data"]
    sets = ", ".join(
        f"{one['name']}: {one['frames']:,} crops of {one['crop_px']}x{one['crop_px']}, quality "
        f"{one['quality']}, {one['mean_jpeg_kb']:.1f} KB on average"
        + (" (synthetic)" if one["synthetic"] else "")
        for one in data["datasets"]
    )
    gpus = "".join(f", {name}" for name in machine["gpus"])
    unit = run["decode_unit_ms"]
    lines = [
        f"{machine['cpu']}, {config['threads']} threads or workers on {machine['cores_usable']} "
        f"usable cores{gpus}; Python {machine['python']}, torch {machine['versions']['torch']}.",
        f"{sets}.",
        f"Template {config['template_px']} px, search {config['search_px']} px, batches of "
        f"{config['batch_size']}; {config['pairs']:,} pairs after {config['warmup_batches']} "
        f"batches of warm-up, median (quartiles) of {run['repeats']} repeat(s), each in "
        f"a fresh process, in shuffled order, page cache {data['page_cache']}.",
    ]
    if unit is not None:
        lines.append(
            f"One decode unit is the CPU time of one whole simplejpeg decode of the same crops in "
            f"the same repeat, {unit['median']:.2f} ms here. Memory is the peak of private and "
            "shared memory of the process tree beyond the imports (MB = 10^6 bytes)."
        )
    if any("epoch_min" in one["summary"] for one in run["contestants"]):
        lines.append(
            "Share of the limit: pairs/s beside reading and decoding alone in the same repeat."
        )
    others = [one["summary"]["others_cores_busy"]["median"] for one in run["contestants"]]
    if others:
        lines.append(f"Other programs kept {median(others):.1f} cores busy meanwhile.")
    if any(one.get("pairs") == "own" for one in run["contestants"]):
        lines.append("Own pairs: as many of the same data, drawn in the order that it reads them.")
    if run.get("server"):
        server = run["server"]
        lines.append(
            f"Remote: {'nginx' if server['name'] == 'nginx' else 'a server in Python'} on the same "
            "machine, behind a server of ours that answers "
            f"{server['delay_ms']:g} ms late; every run begins with an empty cache."
        )
    lines += absent_lines(run)
    return lines


def column_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the columns `PAGE_ONLY`, and of what went before."""
    lines = []
    if any("epoch_min" in one["summary"] for one in run["contestants"]):
        lines.append(
            "KB read: what its read calls asked for, from the page cache too, but not through "
            f"mapped files; the pairs' own JPEG bytes are {run['data']['encoded_kb_per_pair']:.1f} "
            f"KB. Epoch: minutes that {EPOCH_PAIRS:,} pairs take at that rate, derived."
        )
    made = [
        f"{name} in {one['seconds']:,.0f} s, {one['bytes'] / 1e6:,.0f} MB in {one['files']:,} files"
        for name, one in (run.get("conversions") or {}).items()
    ]
    if made:
        lines.append(f"Written beforehand, by each library in its own form: {'; '.join(made)}.")
    return lines


def absent_lines(run: Mapping[str, Any]) -> list[str]:
    """Who cannot do the class of work at all, and who is not here, with the reason."""
    reason = cannot(run["config"].get("work", "recipe"))
    unable = sorted(one["name"] for one in run["absent"] if one["reason"] == reason)
    lines = [f"{reason.capitalize()}: {', '.join(unable)}."] if unable else []
    return lines + [
        f"Absent: {one['name']} ({one['reason']})."
        for one in run["absent"]
        if one["reason"] != reason
    ]


def text(cells: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """Plain columns."""
    table = [tuple(header), *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = []
    for row in table:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def markdown(cells: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """A table for the README."""
    lines = [
        "| " + " | ".join(header) + " |",
        "| --- |" + " ---: |" * (len(header) - 1),
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines)
