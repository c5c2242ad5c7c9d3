"""Two results of the same kind beside each other: what differs, and what only looks different.

Figures are compared by their medians; where the quartiles overlap, no difference is shown. What
makes rates incomparable (another machine, other data, other work) is said first; ratios that were
taken within a run can be compared all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.runner import summary
from benchmarks.table import spread
from shards.errors import FormatError

__all__ = ["DIFF_HEADER", "Conditions", "condition_lines", "conditions", "diff_rows", "read_two"]

Run = Mapping[str, Any]
DIFF_HEADER = ("of", "figure", "A", "B", "B / A", "quartiles")

# Figures of a contestant that are compared, beside its ratios.
FIGURES = (
    "pairs_per_s",
    "cpu_ms_per_pair",
    "memory_peak_beyond_imports_mb",
    "first_batch_s",
    "asked_kb_per_pair",
    "fetched_mb",
)
RATIOS = ("decode_units_per_pair", "share_of_limit")  # beside those with _x_ in their name
_RATIO_UNITS = ("", "x", "%", "units")  # of claims

_LOUD_ENVIRONMENT = ("cpu", "cores_usable", "gpus")
# What may differ without making the figures incomparable; data are compared by their hashes.
_QUIET_CONFIG = (
    "data", "derived", "url", "pairs", "repeats", "limit_s", "seconds", "warmup_batches",
    "contestants", "axes", "works", "batches",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of a result; `ratio`: taken within the run."""

    of: str
    name: str
    summary: Mapping[str, float]
    ratio: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Differences between two runs in words.

    Attributes
    ----------
    loud : those that make rates, times and memory incomparable
    quiet : the others
    """

    loud: tuple[str, ...]
    quiet: tuple[str, ...]


def read_two(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read two results of the same kind.

    Raises
    ------
    FormatError : if one cannot be read, they are of different kinds, or nothing in them was
        repeated
    """
    a, b = (result.read(path) for path in paths)
    if a["kind"] != b["kind"]:
        raise FormatError(
            f"{paths[0]} is of kind '{a['kind']}', {paths[1]} of '{b['kind']}'; only results of "
            "one kind can be compared"
        )
    for path, run in zip(paths, (a, b), strict=True):
        if not list(_figures(run)):
            raise FormatError(
                f"{path}: a result of kind '{run['kind']}' without repeated figures to compare"
            )
    return a, b


def conditions(a: Run, b: Run) -> Conditions:
    """How the conditions of two runs differ."""
    loud, quiet = [], []
    for key, left, right in _differing(*({**_environment(run)} for run in (a, b))):
        (loud if key in _LOUD_ENVIRONMENT else quiet).append(f"{key}: {left}, {right}")
    for key, left, right in _differing(*(_config(run) for run in (a, b))):
        (quiet if key in _QUIET_CONFIG else loud).append(f"{key}: {left}, {right}")
    datasets = [_datasets(run) for run in (a, b)]
    if datasets[0] != datasets[1]:
        loud.append("data: " + ", ".join(" + ".join(names) or "unnamed" for names in datasets))
    return Conditions(loud=tuple(loud), quiet=tuple(quiet))


def _differing(a: Run, b: Run) -> Iterator[tuple[str, Any, Any]]:
    for key in {**a, **b}:
        if a.get(key) != b.get(key):
            yield key, a.get(key), b.get(key)


def _environment(run: Run) -> dict[str, Any]:
    facts = dict(run["environment"])
    return facts | facts.pop("versions")


def _config(run: Run) -> Run:
    config = run.get("config")
    return config if isinstance(config, Mapping) else {"config": config}


def _datasets(run: Run) -> list[str]:
    """Names and hashes of the data sets of a run, those of all axes."""
    found = set()
    for place in [run, *run.get("axes", [])]:
        data = place.get("data")
        for one in data.get("datasets", []) if isinstance(data, Mapping) else []:
            found.add(f"{one['name']} {one['index_sha256'][:8]}")
    return sorted(found)


def condition_lines(found: Conditions) -> list[str]:
    """What is said before the figures; A first, B second."""
    lines = []
    if found.loud:
        lines.append("NOT COMPARABLE: A and B differ in what decides rates, times and memory:")
        lines += [f"  {one}" for one in found.loud]
        lines.append("Only ratios taken within a run say something about the two.")
    if found.quiet:
        lines += ["A and B differ in:", *(f"  {one}" for one in found.quiet)]
    return lines


def _figures(run: Run) -> Iterator[Figure]:
    """All figures of a result that are compared."""
    for one in run.get("contestants", []):
        yield from _of_contestant(one["name"], one["summary"])
    for axis in run.get("axes", []):
        for one in axis["contestants"]:
            for point in one["points"]:
                at = f"{axis['axis']} {axis['work']}, {point['point']}: {one['name']}"
                yield from _of_contestant(at, point["summary"])
    for claim in run.get("claims", []):
        ratio = claim["unit"] in _RATIO_UNITS
        yield Figure(of=claim["what"], name=claim["unit"], summary=claim["summary"], ratio=ratio)
    if run["kind"] == "costs":
        for step in run["steps"]:
            yield Figure(of=step["name"], name="us", summary=summary(step["us"]), ratio=False)
            yield Figure(of=step["name"], name="units", summary=summary(step["units"]), ratio=True)


def _of_contestant(of: str, figures: Mapping[str, Mapping[str, float]]) -> Iterator[Figure]:
    for name, values in figures.items():
        ratio = name in RATIOS or "_x_" in name
        if ratio or name in FIGURES:
            yield Figure(of=of, name=name, summary=values, ratio=ratio)


def diff_rows(a: Run, b: Run, comparable: bool) -> tuple[list[tuple[str, ...]], list[str]]:
    """Compare the figures of two results of one kind.

    Parameters
    ----------
    a, b : the results
    comparable : whether rates, times and memory of the two can be compared at all

    Returns
    -------
    cells under `DIFF_HEADER` of all figures that both have, and lines about what only one has
    """
    left, right = ({(one.of, one.name): one for one in _figures(run)} for run in (a, b))
    rows = []
    for key, one in left.items():
        if key in right:
            two = right[key]
            middle = one.summary["median"], two.summary["median"]
            ratio = f"{middle[1] / middle[0]:.2f}" if middle[0] else "-"
            said = _verdict(one, two) if comparable or one.ratio else "not comparable"
            rows.append((*key, spread(one.summary), spread(two.summary), ratio, said))
    lines = []
    for side, own, other in (("A", left, right), ("B", right, left)):
        there = {of for of, _ in other}
        alone = dict.fromkeys(of for of, _ in own if of not in there)
        if alone:
            lines.append(f"Only in {side}: {'; '.join(alone)}.")
    return rows, lines


def _verdict(one: Figure, two: Figure) -> str:
    a, b = one.summary, two.summary
    if a["q1"] <= b["q3"] and b["q1"] <= a["q3"]:
        return "overlap: no difference shown"
    return "B higher" if b["median"] > a["median"] else "B lower"
