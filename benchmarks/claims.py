"""Promises in numbers: what was measured beside its bar, and whether the bar is kept."""

from __future__ import annotations

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.runner import summary

__all__ = ["CLAIMS_HEADER", "Claim", "claim_facts", "claim_rows", "claims_of"]

CLAIMS_HEADER = ("promise", "measured", "bar", "holds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A promise: what is measured, its unit, and the value that it must not pass.

    Attributes
    ----------
    key, what, unit : of the figure
    bar : limit of the median
    least : the median must reach the bar; else it must stay below it
    """

    key: str
    what: str
    unit: str
    bar: float
    least: bool = False

    def holds(self, median: float) -> bool:
        """Whether a median keeps the promise."""
        return median >= self.bar if self.least else median < self.bar


def claim_facts(claim: Claim, values: Sequence[float], unsure: bool = False) -> dict[str, Any]:
    """One claim of a result, with every repeat; ``holds`` is None if the values cannot tell."""
    return {
        "key": claim.key,
        "what": claim.what,
        "unit": claim.unit,
        "bar": claim.bar,
        "least": claim.least,
        "repeats": list(values),
        "summary": summary(values),
        "holds": None if unsure else claim.holds(statistics.median(values)),
    }


def claims_of(
    claims: Iterable[Claim],
    values: Mapping[str, Sequence[float]],
    unsure: Container[str] = (),
) -> list[dict[str, Any]]:
    """Every claim of which there are values; those with a key in `unsure` are not judged."""
    return [
        claim_facts(claim, values[claim.key], claim.key in unsure)
        for claim in claims
        if values.get(claim.key)
    ]


def claim_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `CLAIMS_HEADER`."""
    rows = []
    for claim in run["claims"]:
        side = "at least" if claim.get("least") else "under"
        rows.append(
            (
                claim["what"],
                f"{claim['summary']['median']:.3g} {claim['unit']}".rstrip(),
                f"{side} {claim['bar']:g} {claim['unit']}".rstrip(),
                {True: "yes", False: "NO", None: "not judged"}[claim["holds"]],
            )
        )
    return rows
