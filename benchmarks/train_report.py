"""What `benchmarks.train` found, for readers: tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.compare import sets_text
from benchmarks.train_claims import QUIET_CORES

__all__ = [
    "FEEDS_HEADER",
    "SETTINGS_HEADER",
    "feeds_rows",
    "settings_lines",
    "settings_rows",
    "train_lines",
]

FEEDS_HEADER = (
    "width", "fed by", "steps/s", "pairs/s", "of the limit", "ms a step: wait", "forward",
    "backward", "optimiser", "rest", "waiting", "CPU ms a pair",
)  # fmt: skip
SETTINGS_HEADER = ("width", "setting", "x steps/s", "quartiles", "first step s")
NAMES = {"ready": "ready-made batches: the limit", "loader": "our loader"}


def feeds_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Medians by width and feed, under `FEEDS_HEADER`."""
    rows = []
    for one in run["widths"]:
        for name, feed in one["feeds"].items():
            figures = {key: value["median"] for key, value in feed["summary"].items()}
            share = one["share"].get(name)
            phases = ("wait_ms", "forward_ms", "backward_ms", "optimizer_ms", "rest_ms")
            rows.append(
                (
                    f"{one['width']:g}",
                    NAMES.get(name, name),
                    _number(figures["steps_per_s"]),
                    _number(figures["pairs_per_s"]),
                    "1" if share is None else _share(share["summary"]),
                    *(_number(max(figures[key], 0)) for key in phases),
                    f"{figures['wait_share']:.1%}",
                    _number(figures["cpu_ms_per_pair"]),
                )
            )
    return rows


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(summary: Mapping[str, float]) -> str:
    return f"{summary['median']:.3f} ({summary['q1']:.3f} to {summary['q3']:.3f})"


def settings_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Medians by setting, under `SETTINGS_HEADER`."""
    rows = []
    for one in run["widths"]:
        for setting in one["settings"]:
            start = (f"{one['width']:g}", setting["name"])
            if "absent" in setting:
                rows.append((*start, "absent", "-", "-"))
                continue
            ratio = setting["ratio"]["summary"]
            quartiles = f"{ratio['q1']:.3f} to {ratio['q3']:.3f}"
            first = f"{setting['first_step_s']:.1f}"
            rows.append((*start, f"{ratio['median']:.3f}", quartiles, first))
    return rows


def settings_lines(run: Mapping[str, Any]) -> list[str]:
    """What the settings' figures do not tell."""
    widths = [one["width"] for one in run["widths"] if one["settings"]]
    others = ["width 1"] if widths and 1 not in widths else []
    others += ["a GPU"] if widths and run["device"] == "cpu" else []
    if not others:
        return []
    where = "a CPU" if run["device"] == "cpu" else "a GPU"
    width = " and ".join(f"{one:g}" for one in widths)
    return [
        f"Settings were measured on {where} at width {width}: "
        f"that tells nothing of {' or of '.join(others)}."
    ]


def train_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers."""
    alone = {key: value["median"] for key, value in run["loader_alone"]["summary"].items()}
    everything = [
        repeat["others_cores_busy"]
        for one in run["widths"]
        for feed in one["feeds"].values()
        for repeat in feed["repeats"]
    ]
    repeats = ", ".join(
        f"{len(one['feeds']['ready']['repeats'])} at width {one['width']:g}"
        for one in run["widths"]
    )
    gpus = run["environment"]["gpus"]
    where = " ".join(gpus[:1]) or "a GPU" if run["device"] == "cuda" else "the CPU"
    lines = [
        f"SPM-AlexNet in float32 on {where}, batches of {run['batch_size']}, "
        f"{run['threads']} threads of torch and of the loader, or "
        f"as many workers; {sets_text(run['data']['datasets'])}; medians of "
        f"repeats ({repeats}), ratios within a repeat, their quartiles in brackets.",
        "`rest` is what is in no phase: pixels to floats, reading metrics. CPU time includes that "
        "of threads that wait for each other.",
        f"The loader alone gives {alone['pairs_per_s']:,.0f} pairs/s at "
        f"{alone['cpu_ms_per_pair']:.2f} CPU ms a pair; decode can keep up where that is at least "
        f"{run['keeps_up']:g} times the limit's pairs/s.",
    ]
    for one in run["widths"]:
        text = f"Width {one['width']:g}: {one['headroom']:.1f} times"
        text += "" if one["keeps_up"] else ", so the bar does not apply"
        if run["device"] == "cpu":
            text += f"; decode on the same cores leaves {one['cores_leave']:.3f} to the step"
        lines.append(f"{text}.")
    if run["device"] == "cpu":
        lines.append("Where the same cores decode and train, no figure tells whether both overlap.")
    lines += [
        f"Absent: {setting['name']} ({setting['absent']})."
        for one in run["widths"]
        for setting in one["settings"]
        if "absent" in setting
    ]
    if not run["claims"]:
        lines.append("No width where decode can keep up: nothing is judged.")
    elif any(claim["holds"] is None for claim in run["claims"]):
        lines.append(
            "Not judged are figures of a busy machine, and those with the bar between their "
            "quartiles."
        )
    busy = median(everything)
    lines.append(f"Other programs kept {busy:.1f} cores busy meanwhile.")
    if busy > QUIET_CORES:
        lines.append("That is too busy a machine for such figures: make them again on a quiet one.")
    return lines
