"""Figures in words: numbers with their quartiles, and who is ahead of whom within a repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from benchmarks.runner import summary

__all__ = ["Verdict", "names", "number", "paired", "quartiles", "short", "verdict"]

# Ahead or behind by more than half of the repeats vary; else not told apart.
Verdict = Literal["above", "below", "like"]


def number(value: float) -> str:
    """About three digits, with no exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    for least, digits in ((10, 1), (1, 2), (0.1, 3), (0.01, 4)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.2g}"


def quartiles(found: Mapping[str, float], unit: str = "") -> str:
    """Median and quartiles, as in ``1.46 (1.40 to 1.52)``."""
    middle, low, high = (number(found[key]) for key in ("median", "q1", "q3"))
    shown = f"{middle}{f' {unit}' if unit else ''}"
    return shown if low == high else f"{shown} ({low} to {high})"


def short(contestant: Mapping[str, Any]) -> str:
    """Name of a contestant as code."""
    return f"`{contestant['name']}`"


def names(words: Iterable[str]) -> str:
    """A list in words."""
    found = list(words)
    return " and ".join([*([", ".join(found[:-1])] if found[1:] else []), *found[-1:]])


def paired(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> list[float]:
    """Ratios of a figure of one contestant to another's, of every repeat that both have."""
    beside = {repeat["repeat"]: repeat.get(key) for repeat in other["repeats"]}
    return [
        repeat[key] / beside[repeat["repeat"]]
        for repeat in one["repeats"]
        if repeat.get(key) is not None and beside.get(repeat["repeat"])
    ]


def verdict(ratios: Sequence[float]) -> Verdict:
    """Whether ratios lie above or below 1: their quartiles decide."""
    found = summary(ratios)
    if found["q1"] > 1:
        return "above"
    return "below" if found["q3"] < 1 else "like"
