"""What a sweep found, in words: warnings, advice, a table, one JSON object. Pure."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from tracker.grid import Axis, Figure, Ranked
from tracker.onepass import KEEP_FIRST_BOX
from tracker.scores import Score
from tracker.sequences import Convention, Dataset

__all__ = ["LABELS", "Sweep", "advice", "best_options", "facts", "table", "warnings_of"]

LABELS: dict[Figure, str] = {"auc": "AUC", "ao": "AO"}

PUBLISHED = (
    "the published figures of these models are the best of such grids on the test sets themselves, "
    "so a figure tuned on a validation set is lower and honest. Choose settings here, then "
    "evaluate once on the test set."
)
ON_TEST_SET = (
    "{what} IS A TEST SET: figures of settings chosen on it are too good, and do not compare with "
    "honest ones. Use GOT-10k val (--dataset got10k --split val), or LaSOT train (--dataset lasot "
    "--split train) with sequences that the model was not trained on."
)
ON_TRAINING_SET = (
    "{what} is a training set: only sequences that the model was not trained on tell anything. "
    "Hold some out, and give a folder of those alone."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What a sweep found.

    Parameters
    ----------
    dataset, split, convention : of the evaluation
    figure : that decides
    axes : of the grid
    order : settings, the best first
    floor : figures of keeping the first box
    warnings, notes : what a reader must know
    """

    dataset: Dataset
    split: str
    convention: Convention
    figure: Figure
    axes: tuple[Axis, ...]
    order: tuple[Ranked, ...]
    floor: Score
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def warnings_of(dataset: Dataset, split: str) -> tuple[str, ...]:
    """Warnings about tuning on a split; one is always there."""
    what = f"{dataset} {split}"
    # Of the others' test sets the ground truth is not public, so "all" does not score them.
    if dataset == "otb" or split == "test" or (split == "all" and dataset == "lasot"):
        return ON_TEST_SET.format(what=what), PUBLISHED
    if split != "val":
        return ON_TRAINING_SET.format(what=what), PUBLISHED
    return (PUBLISHED,)


def advice(found: Sweep) -> list[str]:
    """What the table says: the spread, what cannot be told apart, values at the grid's end."""
    values = [float(getattr(one.total, found.figure)) for one in found.order]
    label, best = LABELS[found.figure], found.order[0]
    lines = [
        f"{label} from {min(values):.3f} to {max(values):.3f} over {len(values)} settings, spread "
        f"{max(values) - min(values):.3f}"
    ]
    close = sum(one.behind <= 2 * one.error for one in found.order[1:])
    if close:
        lines.append(
            f"within two standard errors of the best, of the {len(values) - 1} others: {close}; "
            "these sequences do not tell them apart"
        )
    for axis in found.axes:
        value = dict(best.setting.values)[axis.key]
        ends = {min(axis.values): "smallest", max(axis.values): "largest"}
        if len(axis.values) > 1 and value in ends:
            lines.append(f"the best {axis.key}, {value:g}, is the {ends[value]} tried")
    return lines


def best_options(found: Sweep) -> str:
    """Options of ``track`` and ``eval`` that choose the best setting."""
    return " ".join(f"--set {text}" for text in found.order[0].setting.overrides)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(score: Score) -> dict[str, Any]:
    named = dataclasses.asdict(score)
    return {
        k: v if isinstance(v, int) else _number(v) for k, v in named.items() if "_curve" not in k
    }


def facts(found: Sweep) -> dict[str, Any]:
    """Sweep as one JSON object."""
    return {
        "dataset": found.dataset,
        "split": found.split,
        "convention": found.convention,
        "figure": found.figure,
        "warnings": list(found.warnings),
        "best": best_options(found),
        "advice": advice(found),
        "settings": [
            {
                "values": dict(one.setting.values),
                **_figures(one.total),
                "behind": _number(one.behind),
                "behind_standard_error": _number(one.error),
            }
            for one in found.order
        ],
        "keep_first_box": _figures(found.floor),
        "notes": list(found.notes),
    }


def table(found: Sweep) -> Table:
    """Table for a terminal: settings, the best first, and the floor."""
    title = f"{found.dataset} {found.split}, rules of {found.convention}"
    made = Table(title=title, box=box.SIMPLE_HEAD)
    for position, axis in enumerate(found.axes):
        made.add_column(axis.name, min_width=0 if position else len(KEEP_FIRST_BOX))
    label = LABELS[found.figure]
    columns = {label: found.figure, "AUC": "auc", "AO": "ao", "precision": "precision",
               "SR .5": "sr50"}  # fmt: skip
    for name in [*columns, "behind the best"]:
        made.add_column(name, justify="right")
    for one in found.order:
        cells = [f"{value:g}" for _, value in one.setting.values]
        cells += [f"{getattr(one.total, key):.3f}" for key in columns.values()]
        spread = "" if math.isnan(one.error) else f" ± {one.error:.3f}"
        made.add_row(*cells, "best" if one is found.order[0] else f"{one.behind:.3f}{spread}")
    made.add_section()
    floor = [f"{getattr(found.floor, key):.3f}" for key in columns.values()]
    made.add_row(KEEP_FIRST_BOX, *[""] * (len(found.axes) - 1), *floor, "")
    return made
