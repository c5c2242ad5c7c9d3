"""What a comparison of loaders says: table, plots, and sentences that its figures make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import table
from benchmarks.contestants import BASELINES
from benchmarks.report_blocks import Block, Plot, Table, Text, bullets, made, told
from benchmarks.report_words import (
    Verdict,
    names,
    number,
    paired,
    quartiles,
    short,
    verdict,
)
from benchmarks.runner import ratio_key, summary
from benchmarks.svg_bars import BAR_LOOK, Bar, BarChart, spread

__all__ = [
    "COMPARED",
    "LOOKS",
    "ahead",
    "best_of_ours",
    "loaders_blocks",
    "loaders_chart",
    "loaders_words",
    "rivals",
    "work_of",
]

# Colour, pale, and words of every group, in the order of keys.
LOOKS = {
    "ours": (0, False, "ours"),
    "baseline": (5, False, "baselines"),
    "peer": (1, False, "other libraries"),
    "limit": (3, True, "limits: less than a pair is made"),
}
_WORK = {
    "plain": "decode, crop, resize and normalise to float32",
    "recipe": "the full recipe to uint8",
}
# Figures that are drawn, with words for what they are and for their axis.
_PLOTS = {
    "pairs_per_s": ("Speed", "pairs/s, more is better"),
    "decode_units_per_pair": ("Cost", "decode units a pair, less is better"),
    "memory_peak_beyond_imports_mb": ("Memory", "MB beyond the imports, less is better"),
    "first_batch_s": ("Start", "seconds to the first batch, less is better"),
}
# What a contestant may be better at, its figure, and the side of 1 on which that is.
COMPARED: tuple[tuple[str, str, Verdict], ...] = (
    ("faster", "pairs_per_s", "above"),
    ("less CPU time a pair", "cpu_ms_per_pair", "below"),
    ("less memory", "memory_peak_beyond_imports_mb", "below"),
    ("an earlier first batch", "first_batch_s", "below"),
)
_MOST = 2.5  # a limit beyond so many times the best contestant is told, not drawn


def work_of(run: Mapping[str, Any]) -> str:
    """Class of work of a comparison."""
    return str(run["config"].get("work", "recipe"))


def ordered(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Contestants in the order of the table's rows."""
    groups = list(LOOKS)

    def order(one: Mapping[str, Any]) -> tuple[int, float]:
        return groups.index(one["group"]), -one["summary"]["pairs_per_s"]["median"]

    return sorted(run["contestants"], key=order)


def best_of_ours(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The fastest of ours; None if none took part."""
    return next((one for one in ordered(run) if one["group"] == "ours"), None)


def rivals(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Contestants that are not ours and make whole pairs, the fastest first."""
    found = [one for one in run["contestants"] if one["group"] in ("baseline", "peer")]
    return sorted(found, key=lambda one: -one["summary"]["pairs_per_s"]["median"])


def loaders_blocks(run: Mapping[str, Any]) -> list[Block]:
    """All of it; the table and its explanation are for documents too."""
    in_order = ordered(run)
    found: list[Block] = [
        Table(
            caption=f"Loaders at {_WORK[work_of(run)]}: median (spread of the repeats)",
            header=table.HEADER,
            rows=tuple(table.rows(run)),
            ours=frozenset(i for i, one in enumerate(in_order) if one["group"] == "ours"),
            page_only=table.PAGE_ONLY,
        )
    ]
    found += bullets(loaders_words(run))
    for key in _PLOTS:
        shown = loaders_chart(run, key)
        if shown is not None:
            found.append(shown)
    columns = " ".join(table.column_lines(run))
    found += told(table.header_lines(run))
    return [*found, *([Text(text=columns, brief=False)] if columns else []), made(run)]


def loaders_chart(run: Mapping[str, Any], key: str, heading: str = "") -> Plot | None:
    """One figure of all contestants, the best on top; None if nobody has it.

    Limits are drawn for speed only, and only where they do not dwarf the contestants.

    Parameters
    ----------
    run : result
    key : figure, of `_PLOTS`
    heading : within the drawing
    """
    what, axis = _PLOTS[key]
    having = [one for one in run["contestants"] if key in one["summary"]]
    shown = [one for one in having if one["group"] != "limit"]
    if not shown:
        return None
    beyond = []
    if key == "pairs_per_s":
        most = _MOST * max(one["summary"][key]["median"] for one in shown)
        limits = [one for one in having if one["group"] == "limit"]
        shown += [one for one in limits if one["summary"][key]["median"] <= most]
        beyond = [one for one in limits if one["summary"][key]["median"] > most]
    sign = -1 if key == "pairs_per_s" else 1
    shown.sort(key=lambda one: sign * one["summary"][key]["median"])
    work = work_of(run)
    words = ", ".join(f"{one['label']} {number(one['summary'][key]['median'])}" for one in shown)
    caption = f"{what}, {_WORK[work]}. {BAR_LOOK}"
    if beyond:
        told_of = names(
            f"{one['label'].removeprefix('limit: ')} "
            f"({number(one['summary'][key]['median'])} pairs/s)"
            for one in sorted(beyond, key=lambda one: one["summary"][key]["median"])
        )
        caption += f" Too long to be drawn: {told_of}."
    chart = BarChart(
        name=f"loaders-{work}-{key.replace('_', '-')}",
        title=f"{what} of the loaders: {axis}",
        description=f"{_WORK[work]}; medians: {words}.",
        axis=axis,
        bars=tuple(
            Bar(
                label=one["label"],
                figure=spread([repeat[key] for repeat in one["repeats"]], one["summary"][key]),
                shown=number(one["summary"][key]["median"]),
                colour=LOOKS[one["group"]][0],
                open=LOOKS[one["group"]][1],
            )
            for one in shown
        ),
        key=tuple(
            look for group, look in LOOKS.items() if any(one["group"] == group for one in shown)
        ),
        heading=heading,
    )
    return Plot(chart=chart, caption=caption)


def loaders_words(run: Mapping[str, Any]) -> list[str]:
    """What the figures say, where ours loses too."""
    ours = best_of_ours(run)
    if ours is None:
        return ["No loader of ours took part."]
    others = rivals(run)
    lines = [_ahead(ours, others)]
    for words, key, better in COMPARED:
        lines += _beside(ours, others, words, key, better)
    slower = [
        f"{short(one)} ({quartiles(one['summary'][key])} times its pairs/s)"
        for key in (ratio_key(BASELINES[0]),)
        for one in run["contestants"]
        if one["group"] == "ours" and key in one["summary"] and one["summary"][key]["q3"] < 1
    ]
    if slower:
        lines.append(f"Of ours, slower than `{BASELINES[0]}`: {names(slower)}.")
    limit = next((one for one in run["contestants"] if one["name"] == "decode-only"), None)
    if limit is not None:
        share = summary(paired(ours, limit, "pairs_per_s"))
        lines.append(
            f"Reading and decoding the same regions, and nothing else, reaches "
            f"{number(limit['summary']['pairs_per_s']['median'])} pairs/s with the same threads; "
            f"{short(ours)} makes {quartiles(share)} of that."
        )
    lines += _own_pairs(run)
    return lines


def _ahead(ours: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    text = f"{short(ours)} makes {quartiles(ours['summary']['pairs_per_s'], 'pairs/s')}"
    ratios = [
        f"{quartiles(ours['summary'][ratio_key(name)])} times `{name}`"
        for name in BASELINES
        if ratio_key(name) in ours["summary"]
    ]
    text += f": {names(ratios)}" if ratios else ""
    if others:
        first = others[0]
        ratio = summary(paired(ours, first, "pairs_per_s"))
        text += (
            f". The fastest that is not ours is {short(first)} with "
            f"{number(first['summary']['pairs_per_s']['median'])} pairs/s: ours makes "
            f"{quartiles(ratio)} times as many"
        )
    return text + "."


def ahead(run: Mapping[str, Any], key: str, better: Verdict) -> list[str]:
    """Who is better than the fastest of ours at one figure, and not ours."""
    ours = best_of_ours(run)
    ratios = {short(one): paired(one, ours, key) for one in rivals(run)} if ours else {}
    return [name for name, found in ratios.items() if found and verdict(found) == better]


def _beside(
    ours: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    words: str,
    key: str,
    better: Verdict,
) -> list[str]:
    """Who is better than ours at one figure, and who cannot be told apart from it."""
    said: dict[Verdict, list[str]] = {"above": [], "like": [], "below": []}
    for one in others:
        ratios = paired(one, ours, key)
        if ratios:
            said[verdict(ratios)].append(f"{short(one)} ({quartiles(summary(ratios))} times)")
    text = f"Compared with {short(ours)}, {words}: {names(said[better]) or 'none'}"
    if said["like"]:
        text += f"; not told apart, for the quartiles of the ratio include 1: {names(said['like'])}"
    return [f"{text}."]


def _own_pairs(run: Mapping[str, Any]) -> list[str]:
    own = [short(one) for one in run["contestants"] if one.get("pairs") == "own"]
    if not own:
        return []
    return [
        f"Not the planned pairs but as many of their own, because they read in order: {names(own)}."
    ]
