"""All promises of all results in one form, and how far each is from its bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report_blocks import Block, Plot, Table, Text
from benchmarks.report_words import names, number, quartiles
from benchmarks.runner import summary
from benchmarks.svg_bars import Bar, BarChart, Mark, spread

__all__ = ["Promise", "claims_blocks", "promises_of"]

_MOST = 100.0  # times the bar; what is further away is drawn there


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """One promise of one result.

    Attributes
    ----------
    kind : of the result
    what, unit : of the figure
    bar, least : its limit; `least`: the median must reach it, else stay below
    values : of all repeats
    holds : None where it is not judged
    """

    kind: str
    what: str
    unit: str
    bar: float
    least: bool
    values: tuple[float, ...]
    holds: bool | None

    @property
    def margins(self) -> list[float]:
        """How many times better than the bar each repeat is; below 1: worse."""
        return [
            min(max(value / self.bar if self.least else _inverse(value, self.bar), 1e-3), _MOST)
            for value in self.values
        ]


def _inverse(value: float, bar: float) -> float:
    """Bar over value, for figures that must stay below; of none or less, as far as it goes."""
    return bar / value if value > 0 else _MOST


def promises_of(kind: str, run: Mapping[str, Any]) -> list[Promise]:
    """Promises of a result, from its claims or from cases with a bar."""
    found = [
        Promise(
            kind=kind,
            what=claim["what"],
            unit=claim["unit"],
            bar=claim["bar"],
            least=bool(claim.get("least")),
            values=tuple(claim["repeats"]),
            holds=claim["holds"],
        )
        for claim in run.get("claims", [])
    ]
    for case in run.get("cases", []) if kind in ("pack", "step") else []:
        if case["bar"] is None:
            continue
        pack = kind == "pack"
        found.append(
            Promise(
                kind=kind,
                what=f"{case['name']}: CPU of the obvious loop over ours"
                if pack
                else f"{case['model']}, {case['timed']}, {case['threads']} thread(s): "
                "time of the loop over ours",
                unit="x",
                bar=case["bar"],
                least=True,
                values=tuple(case["ratio_repeats"]["cpu"] if pack else case["ratio_repeats"]),
                holds=case["holds"],
            )
        )
    return found


def claims_blocks(promises: Sequence[Promise]) -> list[Block]:
    """Sentences, plot and table."""
    if not promises:
        return [Text(text="No result with promises is there.")]
    broken = [one for one in promises if one.holds is False]
    unsure = [one for one in promises if one.holds is None]
    kept = len(promises) - len(broken) - len(unsure)
    lines = [f"{kept} of {len(promises)} promises hold."]
    if broken:
        lines.append(f"Broken: {names(_said(broken))}.")
    if unsure:
        lines.append(
            f"Not judged, because the machine was busy or the bar lies between the quartiles: "
            f"{names(_said(unsure))}."
        )
    return [
        Text(text=" ".join(lines)),
        Plot(
            chart=_chart(promises),
            caption="How many times better than its bar each promise is: right of the line it "
            "holds. Points: medians; whiskers: quartiles; dots: every repeat. What is more than "
            f"{_MOST:g} times better is drawn at {_MOST:g}.",
        ),
        Table(
            caption="Every promise: median (quartiles), bar, and whether it holds",
            header=("promise", "result", "measured", "repeats", "bar", "holds"),
            rows=tuple(_row(one) for one in promises),
            words=2,
        ),
    ]


def _said(promises: Iterable[Promise]) -> list[str]:
    return [
        f"{one.what} (`{one.kind}`: {number(summary(one.values)['median'])} {one.unit}".rstrip()
        + f", bar {_bar(one)})"
        for one in promises
    ]


def _bar(one: Promise) -> str:
    return f"{'at least' if one.least else 'under'} {one.bar:g} {one.unit}".rstrip()


def _row(one: Promise) -> tuple[str, ...]:
    return (
        one.what,
        one.kind,
        quartiles(summary(one.values), one.unit),
        f"{len(one.values)}",
        _bar(one),
        {True: "yes", False: "NO", None: "not judged"}[one.holds],
    )


def _chart(promises: Sequence[Promise]) -> BarChart:
    colours = {True: 0, False: 1, None: 5}
    words = {0: "holds", 1: "broken", 5: "not judged"}
    margins = [one.margins for one in promises]
    least = min(0.5, *(0.8 * min(found) for found in margins))
    return BarChart(
        name="promises",
        title="Promises against their bars",
        description="; ".join(
            f"{one.what}: {number(summary(one.values)['median'])} {one.unit}, {_bar(one)}, "
            + {True: "holds", False: "broken", None: "not judged"}[one.holds]
            for one in promises
        ),
        axis="times better than the bar, logarithmic",
        bars=tuple(
            Bar(
                label=f"{one.what} ({one.kind})",
                figure=spread(found),
                shown=_times(summary(found)["median"]),
                colour=colours[one.holds],
            )
            for one, found in zip(promises, margins, strict=True)
        ),
        key=tuple(
            (colour, False, text)
            for colour, text in words.items()
            if any(colours[one.holds] == colour for one in promises)
        ),
        mark=Mark(value=1.0, label="the bar"),
        log=True,
        bold=False,
        ends=(least, 1.02 * _MOST),
    )


def _times(margin: float) -> str:
    return f"{_MOST:g} x or more" if margin >= _MOST else f"{number(margin)} x"
