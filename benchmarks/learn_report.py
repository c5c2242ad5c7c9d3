"""What `benchmarks.learn` found, for readers: a table, sentences, curves by number of steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from shards.storage import FolderSink

__all__ = ["CURVE_HEADER", "curve_rows", "learn_lines", "plot_learning"]

CURVE_HEADER = (
    "steps", "AUC", "AUC, template of another object", "AO, unseen sequences", "lowest", "highest",
)  # fmt: skip


def curve_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Medians over the seeds by number of steps, under `CURVE_HEADER`."""
    rows = []
    for points in zip(*(one["curve"] for one in run["seeds"]), strict=True):
        aos = [point["ao"] for point in points]
        middle = [
            statistics.median(point[key] for point in points)
            for key in ("auc", "auc_other_template", "ao")
        ]
        figures = [*middle, min(aos), max(aos)]
        rows.append((f"{points[0]['step']:,}", *(f"{value:.3f}" for value in figures)))
    return rows


def learn_lines(run: Mapping[str, Any]) -> list[str]:
    """What the figures were measured on, in sentences."""
    seeds = [one["seed"] for one in run["seeds"]]
    last = [one["curve"][-1]["ao_by_sequence"] for one in run["seeds"]]
    names = "; ".join(
        f"{name} {', '.join(f'{ao[name]:.3f}' for ao in last)} (keep-first-box {floor:.3f})"
        for name, floor in run["unseen_floor_by_sequence"].items()
    )
    pairs = run["schedules"]["pairs"]
    return [
        f"Data: {run['data']}.",
        f"Median of the seeds {', '.join(map(str, seeds))}; {run['config']} with "
        f"{', '.join(f'`{text}`' for text in run['overrides'])}; "
        f"{pairs['epochs'] * pairs['steps']:,} steps.",
        f"AO by unseen sequence, seed by seed: {names}.",
        f"AO of the single sequence {run['single']}: "
        f"{statistics.median(one['single_ao'] for one in run['seeds']):.3f} (keep-first-box "
        f"{run['single_floor_ao']:.3f}).",
    ]


def plot_learning(run: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of the curves of all seeds, beside the floor and the bar.

    Parameters
    ----------
    run : result of the benchmark
    path : of the PNG; it appears complete
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    ranked, followed = figure.subplots(1, 2)
    for number, one in enumerate(run["seeds"]):
        steps = [point["step"] for point in one["curve"]]
        colour, label = f"C{number}", f"seed {one['seed']}"
        ranked.plot(steps, [p["auc"] for p in one["curve"]], colour, marker="o", label=label)
        ranked.plot(steps, [p["auc_other_template"] for p in one["curve"]], colour, ls=":")
        followed.plot(steps, [p["ao"] for p in one["curve"]], colour, marker="o", label=label)
    bar = next(claim["bar"] for claim in run["claims"] if claim["key"] == "auc")
    ranked.axhline(bar, color="grey", lw=1, ls="--", label="bar")
    ranked.plot([], [], "grey", ls=":", label="template of another object")
    ranked.set(title="Unseen pairs", xlabel="steps", ylabel="AUC of the target's anchors")
    followed.axhline(run["unseen_floor_ao"], color="grey", lw=1, ls="--", label="keep-first-box")
    followed.set(title="Unseen sequences", xlabel="steps", ylabel="average overlap", ylim=(0, 1))
    for axes in (ranked, followed):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    data = BytesIO()
    figure.savefig(data, format="png", dpi=120)
    FolderSink(path.parent).write(path.name, data.getvalue())
