"""Curves of `benchmarks.learn`: ranking and following by number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from shards.storage import FolderSink

__all__ = ["plot_learning"]


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
