"""The first screen of the page: what was measured, what came out, what is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page_about import Shown
from benchmarks.report_claims import promises_of
from benchmarks.report_loaders import COMPARED, ahead, best_of_ours, loaders_words, rivals, work_of
from benchmarks.report_words import names, number, paired, short
from benchmarks.runner import ratio_key
from benchmarks.runner import summary as summarised

__all__ = ["TITLE", "missing", "numbers", "summary"]

TITLE = "siamstream: benchmarks"
_WORK = {"plain": "decode, crop, resize, normalise", "recipe": "the full recipe"}


def _loaders(sections: Sequence[Shown]) -> list[Mapping[str, Any]]:
    return [run for one in sections if one.section.kind == "loaders" for _, run in one.runs]


def _of(sections: Sequence[Shown], kind: str) -> Mapping[str, Any] | None:
    return next((run for one in sections if one.section.kind == kind for _, run in one.runs), None)


def summary(sections: Sequence[Shown]) -> list[str]:
    """One paragraph: the question, the measurement, the outcome."""
    runs = _loaders(sections)
    question = (
        "How fast, at what cost and in how much memory does a data loader make the training pairs "
        "of a Siamese tracker? Two crops of a video are read at random, decoded, augmented and "
        "put into a batch."
    )
    if not runs:
        return [f"{question} No comparison of loaders has been measured yet."]
    run = runs[-1]
    machine = run["environment"]
    count = len({one["name"] for found in runs for one in found["contestants"]})
    text = (
        f"{question} {count} contestants did so on {machine['cpu']} with "
        f"{machine['cores_usable']} usable cores, from the same JPEG bytes, each in a fresh "
        f"process, {run['repeats']} times in shuffled order."
    )
    for found in reversed(runs):
        text += f" At {_WORK[work_of(found)]}: {loaders_words(found)[0]}"
    return [text, *_losses(sections, runs)]


def _losses(sections: Sequence[Shown], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where ours loses, and how many promises hold."""
    lost = [
        f"{name} ({words}, {_WORK[work_of(run)]})"
        for run in runs
        for words, key, sign in COMPARED
        for name in ahead(run, key, sign)
    ]
    text = f"Not ours, and better at something than the fastest of ours: {names(lost) or 'none'}."
    promises = [
        one
        for shown in sections
        for _, run in shown.runs
        for one in promises_of(shown.section.kind, run)
    ]
    if promises:
        kept = sum(one.holds is True for one in promises)
        broken = names(f"{one.what} (`{one.kind}`)" for one in promises if one.holds is False)
        text += f" Of {len(promises)} promises {kept} hold; broken: {broken or 'none'}."
    return [text]


def numbers(sections: Sequence[Shown]) -> list[dict[str, str]]:
    """Three numbers at most, each with its spread and what it is of."""
    found: list[dict[str, str]] = []
    runs = _loaders(sections)
    for run in reversed(runs):
        ours, others = best_of_ours(run), rivals(run)
        if ours is None or not others:
            continue
        ratio = summarised(paired(ours, others[0], "pairs_per_s"))
        found.append(
            {
                "value": f"{number(ratio['median'])} ×",
                "what": f"the pairs/s of {short(others[0])}, the fastest that is not ours, at "
                f"{_WORK[work_of(run)]}",
                "spread": _spread(ratio, len(ours["repeats"])),
            }
        )
    recipe = next((run for run in runs if work_of(run) == "recipe"), None)
    ours = best_of_ours(recipe) if recipe else None
    key = ratio_key("zip-published")
    if ours is not None and key in ours["summary"]:
        found.append(
            {
                "value": f"{number(ours['summary'][key]['median'])} ×",
                "what": "the pairs/s of `zip-published`, the recipe as it was published",
                "spread": _spread(ours["summary"][key], len(ours["repeats"])),
            }
        )
    memory = _of(sections, "memory")
    claim = next(
        (one for one in (memory or {}).get("claims", []) if one["key"] == "x_of_zip_tuned"), None
    )
    if claim is not None:
        found = found[:2]
        found.append(
            {
                "value": f"{100 * claim['summary']['median']:.1f} %",
                "what": claim["what"].replace("zip-tuned's", "that of `zip-tuned`"),
                "spread": _spread(
                    {key: 100 * value for key, value in claim["summary"].items()},
                    len(claim["repeats"]),
                ),
            }
        )
    return found[:3]


def _spread(found: Mapping[str, float], repeats: int) -> str:
    if repeats == 1:
        return "one run"
    return f"median of {repeats} repeats; quartiles {number(found['q1'])} to {number(found['q3'])}"


def missing(sections: Sequence[Shown]) -> list[str]:
    """What a reader might take for granted and is not there."""
    lines = [one.absence for one in sections if not one.runs and one.section.absent]
    titles = [one.section.title for one in sections if not one.runs and not one.section.absent]
    if titles:
        lines.append(
            f"Not measured yet: {'; '.join(titles)}. The commands are at the end of this page."
        )
    for run in _loaders(sections):
        lines += [
            f"`{one['name']}` at {_WORK[work_of(run)]}: {one['reason']}." for one in run["absent"]
        ]
    machines = {
        (run["environment"]["cpu"], run["environment"]["cores_usable"])
        for one in sections
        for _, run in one.runs
    }
    if machines:
        told = ", ".join(f"{cpu} with {cores} usable cores" for cpu, cores in sorted(machines))
        lines.append(f"Any other machine than {told}.")
    synthetic = [
        one.section.title
        for one in sections
        for _, run in one.runs
        if one.section.kind == "loaders" and all(d["synthetic"] for d in run["data"]["datasets"])
    ]
    if synthetic:
        lines.append(f"Real photographs in: {'; '.join(synthetic)}. Those pictures are made.")
    return lines
