"""Statistics of the pairs that a configuration draws, against its own probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from loaders.chi2 import P_WRONG, Check, Verdict
from loaders.config import PairConfig
from loaders.crop_stats import crop_checks
from loaders.draws import PairDraws
from loaders.pair_stats import pair_checks
from loaders.sets import DataSets

__all__ = ["checks", "judged", "lines"]

SHOWN_CELLS = 8


def checks(sets: DataSets, drawn: PairDraws, config: PairConfig, epoch: int) -> list[Check]:
    """Compare what was drawn with what the configuration says.

    Parameters
    ----------
    sets : of the run
    drawn : by `loaders.draws.draw_pairs`
    config : whose probabilities are expected
    epoch : that was drawn
    """
    return [
        *pair_checks(sets, drawn, config, epoch),
        *crop_checks(sets, drawn, config, "z"),
        *crop_checks(sets, drawn, config, "x"),
    ]


def judged(verdict: Verdict) -> str:
    """Words for a verdict."""
    if verdict.p is None:
        return "too few to judge"
    return f"p {verdict.p:.2g}{' WRONG' if verdict.wrong else ''}"


def _row(name: str, observed: str, expected: str, rest: str) -> str:
    return f"{name:<42.42} {observed:>12} {expected:>12}  {rest}".rstrip()


def _lines_of(check: Check) -> Iterator[str]:
    """One line of a check, or one more for each of its main cells."""
    verdict = check.verdict()
    observed, expected, total = check.observed, check.expected, max(1, check.observed.sum())
    if check.is_gate:
        if expected[0] or verdict.wrong:
            done, wanted = observed[0] / total, expected[0] / total
            yield _row(check.name, f"{done:.2%}", f"{wanted:.2%}", judged(verdict))
        return
    yield _row(check.name, "", "", f"{judged(verdict)}, chi2 {verdict.chi2:.1f} of {verdict.dof}")
    if check.ordered:
        far = (observed - expected) ** 2 / np.where(expected > 0, expected, 1e-9)
        worst = int(np.argmax(far))
        inner = [label for label in check.labels if label not in ("below", "above")]
        name = f"  {len(inner)} bins, {inner[0]} to {inner[-1]}; farthest: {check.labels[worst]}"
        yield _row(name, f"{observed[worst]:,}", f"{expected[worst]:,.1f}", "")
        return
    order = np.argsort(-expected, kind="stable")[:SHOWN_CELLS]
    for i in order:
        yield _row(f"  {check.labels[i]}", f"{observed[i]:,}", f"{expected[i]:,.1f}", "")
    if len(order) < len(expected):
        yield f"  and {len(expected) - len(order)} more"


def lines(found: Sequence[Check]) -> Iterator[str]:
    """Every check with its counts and its p-value.

    Steps that are never done are left out, unless one was.
    """
    yield _row("", "observed", "expected", f"wrong below p {P_WRONG:g}")
    for check in found:
        yield from _lines_of(check)
