"""Quick ratios beside committed ones: which have fallen, and what can be believed of it.

A ratio has *fallen* if its median is more than `FALL` below the committed one. Where the committed
repeats themselves spread wider than that (quartiles, as a share of the median), a fall within their
spread is *unsure*: it says nothing, so such ratios of a baseline are warned of. A committed ratio
that was not measured is *missing*. What `zip-tuned` shares with ours, the kernel, is guarded by the
ratios of the costs and of `zip-published`, which does not use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import result
from shards.errors import FormatError

__all__ = [
    "FALL",
    "QUICK_HEADER",
    "Verdict",
    "check",
    "quick_lines",
    "quick_rows",
    "read_committed",
    "warnings",
    "wide",
]

FALL = 0.2
QUICK_HEADER = ("ratio", "committed (quartiles)", "now (quartiles)", "change", "verdict")
State = Literal["holds", "fell", "unsure", "missing", "new"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What has become of a ratio.

    Attributes
    ----------
    key, what : of the ratio
    state : ``new`` is one that is not among the committed ones
    then, now : summaries, None where there is none
    again : command of the full benchmark, empty if it is unknown
    reason : why one is missing
    """

    key: str
    what: str
    state: State
    then: Mapping[str, float] | None = None
    now: Mapping[str, float] | None = None
    again: str = ""
    reason: str = ""

    @property
    def change(self) -> float | None:
        """Change of the median, as a share of the committed one."""
        if self.then is None or self.now is None:
            return None
        return self.now["median"] / self.then["median"] - 1


def read_committed(path: Path) -> dict[str, Any]:
    """Read a result and check what is compared.

    Raises
    ------
    FormatError : if it is absent, damaged or of another kind, or a ratio in it is no number
    """
    again = f"make it with 'python -m benchmarks quick --no-compare --json {path}'"
    if not path.exists():
        raise FormatError(f"{path}: there is nothing to compare with; {again}")
    run = result.read(path, "quick")
    try:
        for one in run["ratios"]:
            numbers = [one["summary"][name] for name in ("q1", "median", "q3")]
            sound = all(math.isfinite(number) and number > 0 for number in numbers)
            if not (sound and numbers == sorted(numbers) and one["key"] and one["what"]):
                raise ValueError(f"ratio {one['key']}: {numbers}")
        keys = [one["key"] for one in run["ratios"]]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError("no ratios, or two of one key")
        for name in ("architecture", "cores_usable", "simd"):
            run["machine"][name]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: damaged ({error!r}); restore it, or {again}") from error
    return run


def spread(summary: Mapping[str, float]) -> float:
    """Distance of the quartiles, as a share of the median."""
    return (summary["q3"] - summary["q1"]) / summary["median"]


def wide(run: Mapping[str, Any]) -> list[str]:
    """A line if ratios of a baseline spread so wide that a fall of theirs may go unseen."""
    found = [f"{one['key']} ({spread(one['summary']):.0%})" for one in run["ratios"]
             if spread(one["summary"]) > FALL]  # fmt: skip
    if not found:
        return []
    return [
        f"Warning: a baseline with quartiles more than {FALL:.0%} apart does not guard these: "
        f"{', '.join(found)}. Make it again on a quiet machine, or with more --repeats."
    ]


def check(run: Mapping[str, Any], committed: Mapping[str, Any]) -> list[Verdict]:
    """Judge every ratio of a run and of the committed one.

    Parameters
    ----------
    run : of `benchmarks.quick.measure_quick`
    committed : of `read_committed`
    """
    now = {one["key"]: one for one in run["ratios"]}
    then = {one["key"]: one for one in committed["ratios"]}
    reasons = {one["key"]: one["reason"] for one in run["absent"]}
    found = []
    for key, one in then.items():
        facts = {"key": key, "what": one["what"], "then": one["summary"]}
        if key not in now:
            reason = reasons.get(key, "no ratio of this key is measured any more; was it renamed?")
            found.append(Verdict(**facts, state="missing", reason=reason))
            continue
        fall = 1 - now[key]["summary"]["median"] / one["summary"]["median"]
        state: State = "holds"
        if fall > FALL:
            state = "fell" if fall > spread(one["summary"]) else "unsure"
        found.append(
            Verdict(**facts, state=state, now=now[key]["summary"], again=now[key]["again"])
        )
    found += [
        Verdict(key=key, what=one["what"], state="new", now=one["summary"], again=one["again"])
        for key, one in now.items()
        if key not in then
    ]
    return found


def _cell(summary: Mapping[str, float] | None) -> str:
    if summary is None:
        return "-"
    return f"{summary['median']:.3g} ({summary['q1']:.3g} to {summary['q3']:.3g})"


def quick_rows(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """Cells under `QUICK_HEADER`."""
    return [
        (
            one.what,
            _cell(one.then),
            _cell(one.now),
            "-" if one.change is None else f"{one.change:+.0%}",
            one.state.upper() if one.state in ("fell", "missing") else one.state,
        )
        for one in verdicts
    ]


def warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for every ratio that does not simply hold."""
    lines = []
    for one in verdicts:
        if one.state == "missing":
            lines.append(f"Warning: {one.what} ({one.key}): not measured: {one.reason}")
        elif one.state == "new":
            lines.append(f"Note: {one.what} ({one.key}): there is no committed figure of it yet")
        elif one.state != "holds":
            assert one.change is not None
            assert one.then is not None
            fall = f"{one.what} ({one.key}): fell by {-one.change:.0%}, from {_cell(one.then)} to "
            fall += _cell(one.now)
            if one.state == "fell":
                lines.append(f"Warning: {fall}. Measure it at length: {one.again}")
            else:
                lines.append(
                    f"Note: {fall}. The committed quartiles lie {spread(one.then):.0%} apart, so "
                    f"this alone says nothing; measure it at length: {one.again}"
                )
    return lines


def quick_lines(
    run: Mapping[str, Any], committed: Mapping[str, Any] | None, named: str
) -> list[str]:
    """What a reader must know to believe the comparison.

    Parameters
    ----------
    run : of now
    committed : that it is compared with
    named : where that is from
    """
    busy = max((v for values in _facts(run, "others_cores_busy") for v in values), default=0.0)
    lines = [
        f"Median of {run['repeats']} repeats, ratios within a repeat, all larger if better; "
        f"{run['seconds']:.0f} s; other programs kept at most {busy:.1f} cores busy."
    ]
    if busy > 0.5:
        lines.append("Warning: the machine was not quiet, and two cores shared are not two cores.")
    if committed is None:
        return lines
    commit = committed["environment"].get("commit") or "unknown"
    lines.append(f"Compared with {named}: commit {commit[:10]}, {committed['made_utc']}.")
    words = {"architecture": "architecture", "cores_usable": "usable cores", "simd": "vectors"}
    other = [
        f"{word} {committed['machine'][key]} then, {run['machine'][key]} now"
        for key, word in words.items()
        if committed["machine"][key] != run["machine"][key]
    ]
    if other:
        lines.append(
            f"Warning: a machine of another class ({'; '.join(other)}): ratios may differ with no "
            "change of the code; for a baseline of this machine run an older commit here with "
            "--no-compare --json FILE, then this one with --against FILE."
        )
    if committed["repeats"] < 5 or run["repeats"] < 5:
        lines.append("Warning: fewer than five repeats: medians are not stable.")
    sets = [_indexes(one) for one in (committed, run)]
    if sets[0] != sets[1]:
        lines.append("Warning: other pictures than those of the committed figures.")
    return lines


def _facts(run: Mapping[str, Any], name: str) -> list[Any]:
    return [value for key, value in run["facts"].items() if key.endswith(name)]


def _indexes(run: Mapping[str, Any]) -> set[str]:
    return {one["index_sha256"] for sets in _facts(run, "datasets") for one in sets}
