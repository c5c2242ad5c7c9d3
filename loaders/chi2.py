"""Counts against what was expected of them: Pearson's chi-square test.

A test is judged only by cells that expect `MIN_EXPECTED` counts or more, smaller ones being put
together, because far out in the tail the chi-square law holds for large counts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["MIN_EXPECTED", "P_WRONG", "Check", "Verdict", "gate", "p_value", "shares", "uniform"]

MIN_EXPECTED = 25.0
P_WRONG = 1e-6  # a smaller p-value is no accident

GATE = ("done", "not done")

Floats = npt.NDArray[np.float64]


def p_value(chi2: float, dof: int) -> float:
    """Upper tail of the chi-square law: the regularised incomplete gamma function Q(dof/2, x/2)."""
    half = torch.tensor([dof / 2, chi2 / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Statistic, degrees of freedom and p-value; p is None where there is too little to judge."""

    chi2: float
    dof: int
    p: float | None

    @property
    def wrong(self) -> bool:
        """The counts do not come from these expectations."""
        return self.p is not None and self.p < P_WRONG


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Check:
    """Counts of some cells, and their expectations.

    Attributes
    ----------
    subject, what : of what, as in ``lasot`` and ``pairs``
    labels : (K,) of the cells
    observed : (K,) counts
    expected : (K,) counts, in real numbers; 0: must not happen
    ordered : the cells are the bins of a quantity
    spread : standard deviation of the first expectation, where it was found by trial
    """

    subject: str
    what: str
    labels: tuple[str, ...]
    observed: npt.NDArray[np.int64]
    expected: Floats
    ordered: bool = False
    spread: float = 0.0

    def __post_init__(self) -> None:
        lengths = {len(self.labels), len(self.observed), len(self.expected)}
        if len(lengths) != 1 or abs(self.observed.sum() - self.expected.sum()) > 1e-3:
            raise ValueError(
                f"{self.name}: {len(self.labels)} labels, {self.observed.sum()} counts in "
                f"{len(self.observed)} cells, {self.expected.sum():g} expected in "
                f"{len(self.expected)}: cells and sums must agree"
            )

    @property
    def is_gate(self) -> bool:
        """Two cells: done or not."""
        return self.labels == GATE

    @property
    def name(self) -> str:
        """Subject and quantity."""
        return f"{self.subject}: {self.what}"

    def verdict(self) -> Verdict:
        """Test the counts. What must not happen and did has p = 0."""
        observed, expected = self.observed.astype(np.float64), self.expected
        if observed[expected == 0].any():
            return Verdict(chi2=float("inf"), dof=0, p=0.0)
        observed, expected = _pooled(observed[expected > 0], expected[expected > 0])
        if len(expected) < 2:
            # Nothing can vary where one cell alone is possible; else there are too few counts.
            certain = int(np.count_nonzero(self.expected)) == 1
            return Verdict(chi2=0.0, dof=0, p=1.0 if certain else self._far_too_many())
        chi2 = float(((observed - expected) ** 2 / expected).sum())
        if self.spread:
            variance = float(np.prod(expected) / expected.sum())  # of the counts of two cells
            chi2 *= variance / (variance + self.spread**2)
        return Verdict(chi2=chi2, dof=len(expected) - 1, p=p_value(chi2, len(expected) - 1))

    def _far_too_many(self) -> float | None:
        """Poisson's chance of so many where next to none are expected; None unless it is tiny."""
        rare = int(self.expected.argmin())
        mean = float(self.expected[rare]) + 5 * self.spread
        counts = torch.tensor([float(self.observed[rare]), mean], dtype=torch.float64)
        if len(self.expected) != 2 or counts[0] <= counts[1]:
            return None
        p = float(torch.special.gammainc(counts[0], counts[1]))
        return p if p < P_WRONG else None

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        verdict = self.verdict()
        return {
            "subject": self.subject,
            "what": self.what,
            "labels": list(self.labels),
            "observed": self.observed.tolist(),
            "expected": np.round(self.expected, 3).tolist(),
            "chi2": round(verdict.chi2, 4) if np.isfinite(verdict.chi2) else None,
            "dof": verdict.dof,
            "p": verdict.p,
            "wrong": verdict.wrong,
        }


def _pooled(observed: Floats, expected: Floats) -> tuple[Floats, Floats]:
    """Put cells of small expectation together, smallest first, until none is left."""
    order = np.argsort(expected, kind="stable")
    observed, expected = observed[order], expected[order]
    few = int(np.count_nonzero(expected < MIN_EXPECTED))
    # The pool takes further cells while it is too small itself.
    while 0 < few < len(expected) and expected[:few].sum() < MIN_EXPECTED:
        few += 1
    if few <= 1:
        return observed, expected
    return (
        np.concatenate([[observed[:few].sum()], observed[few:]]),
        np.concatenate([[expected[:few].sum()], expected[few:]]),
    )


def shares(
    subject: str,
    what: str,
    labels: Sequence[str],
    codes: npt.NDArray[np.integer[Any]],
    weights: Floats | Sequence[float],
    ordered: bool = False,
) -> Check:
    """Check of categories: `codes` number the labels, `weights` are their shares in any unit."""
    share = np.asarray(weights, np.float64)
    observed = np.bincount(codes, minlength=len(share)).astype(np.int64)
    return Check(
        subject=subject,
        what=what,
        labels=tuple(labels),
        observed=observed,
        expected=len(codes) * share / share.sum(),
        ordered=ordered,
    )


def gate(
    subject: str, what: str, p: float, done: npt.NDArray[np.bool_], p_spread: float = 0.0
) -> Check:
    """Check of what is done to every sample with probability `p`, known up to `p_spread`."""
    count = int(done.sum())
    p = 1.0 if p > 1 - 1e-12 else p  # a sum of probabilities
    return Check(
        subject=subject,
        what=what,
        labels=GATE,
        observed=np.array([count, len(done) - count]),
        expected=len(done) * np.array([p, 1 - p]),
        spread=len(done) * p_spread,
    )


def uniform(subject: str, what: str, values: Floats, bins: int = 20) -> Check:
    """Check of numbers that are uniform in [-1, 1]."""
    edges = np.linspace(-1, 1, bins + 1)
    slack = 1e-9  # numbers that were computed back from a matrix
    at = np.searchsorted(edges[1:-1], values, side="right") + 1
    at = np.where(values < -1 - slack, 0, np.where(values > 1 + slack, bins + 1, at))
    return Check(
        subject=subject,
        what=what,
        labels=("below", *(f"{low:+.2g}" for low in edges[:-1]), "above"),
        observed=np.bincount(at, minlength=bins + 2).astype(np.int64),
        expected=np.concatenate([[0], np.full(bins, len(values) / bins), [0]]),
        ordered=True,
    )
