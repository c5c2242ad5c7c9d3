"""A few ratios that a slower loader, packer or step would lower, measured in under three minutes.

Question: has a change made something slower? Method: every ratio is of two things measured in turn,
within one repeat of one run, so that most of the machine falls out of it; a larger one is better.
Each part is a benchmark of this package on a small case. `benchmarks.quick_check` compares the
medians with committed ones.

Not here: training beside ready-made batches (`python -m benchmarks train`). On two cores its step
takes twenty times what a loader needs for the same pairs, so its ratio stays at 1 until the loader
is as slow; and it takes longer than all the rest.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.case import Case, WorkName
from benchmarks.compare import compare
from benchmarks.contestants import BASELINES, Entry, named
from benchmarks.costs import measure_costs
from benchmarks.environment import machine_class
from benchmarks.limits import index_and_plan, synthetic_index
from benchmarks.pack import measure_pack
from benchmarks.raw import CASES
from benchmarks.runner import Outcome, run_once, summary
from benchmarks.step import make_batch, make_work, measure_work

__all__ = ["PARTS", "Measured", "Part", "Ratio", "Setup", "measure_quick"]

Told = Callable[[str], None]
INDEX_ROWS = 200_000
PACK_CASE, PACK_CROPS = "lasot", 40
COST_PAIRS = 32
STEP_MODEL, STEP_CUT, STEP_PAIRS, STEPS = "spm_alexnet", "targets and losses", 8, 4
RECIPE = ("cpu", "zip-tuned", "zip-published")
PLAIN = ("cpu", "decode-only")
# Batches that are counted: about half a second of a quiet core or two.
COUNTED = {"zip-published": 8}
COUNTED_OF_OTHERS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is measured on.

    Attributes
    ----------
    case : data and threads; the class of work and the number of pairs are set by each part
    out : folder for an index and raw pictures that are made at need
    repeats : of every ratio
    warm_limit_bytes : data larger than this are not read into the page cache beforehand
    """

    case: Case
    out: Path
    repeats: int
    warm_limit_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A figure that falls when something gets slower: its key, and what it is in words."""

    key: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Repeats of each ratio by key, reasons of those that cannot be measured, facts to keep."""

    repeats: Mapping[str, Sequence[float]]
    absent: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Ratios that one benchmark gives.

    Attributes
    ----------
    name : of the part
    ratios : that it gives
    again : command of the full benchmark, which says more
    measure : runs it
    """

    name: str
    ratios: tuple[Ratio, ...]
    again: str
    measure: Callable[[Setup, Told], Measured]


def _loader_ratios(work: WorkName, ours: str, other: str) -> tuple[Ratio, Ratio]:
    """How a loader of ours compares: its pairs/s, and the other's CPU time a pair to its own."""
    start, end = f"{work}_{ours}".replace("-", "_"), f"x_{other}".replace("-", "_")
    return (
        Ratio(key=f"{start}_pairs_{end}", what=f"{work}: pairs/s, {ours} / {other}"),
        Ratio(key=f"{start}_cpu_{end}", what=f"{work}: CPU time a pair, {other} / {ours}"),
    )


def loaders(
    setup: Setup,
    told: Told,
    work: WorkName,
    names: Sequence[str],
    once: Callable[[Entry, Case], Outcome] = run_once,
) -> Measured:
    """Compare loaders, with fewer pairs for the slow ones.

    Parameters
    ----------
    setup : what is measured on
    told : called with lines of progress
    work : class of work
    names : contestants
    once : runs one
    """

    def sized(entry: Entry, case: Case) -> Outcome:
        counted = COUNTED.get(entry.name, COUNTED_OF_OTHERS) * case.batch_size
        return once(entry, replace(case, pairs=counted))

    case = replace(setup.case, work=work, pairs=COUNTED_OF_OTHERS * setup.case.batch_size)
    run = compare(
        named(list(names)), case, setup.repeats, "", setup.warm_limit_bytes, told, once=sized
    )
    found = {one["name"]: one["repeats"] for one in run["contestants"]}
    reasons = {one["name"]: f"{one['name']}: {one['reason']}" for one in run["absent"]}
    repeats: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for ours, other in _compared(names):
        keys = [ratio.key for ratio in _loader_ratios(work, ours, other)]
        gone = [reasons[name] for name in (ours, other) if name in reasons]
        if gone:
            absent |= dict.fromkeys(keys, "; ".join(gone))
            continue
        both = list(zip(found[ours], found[other], strict=True))
        repeats[keys[0]] = [one["pairs_per_s"] / two["pairs_per_s"] for one, two in both]
        repeats[keys[1]] = [two["cpu_ms_per_pair"] / one["cpu_ms_per_pair"] for one, two in both]
    busy = [run["others_cores_busy"] for one in run["contestants"] for run in one["repeats"]]
    return Measured(
        repeats=repeats,
        absent=absent,
        facts={"datasets": run["data"]["datasets"], "others_cores_busy": busy},
    )


def _compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which contestants are compared: each of ours with its limit, ``cpu`` with the baselines."""
    baselines = [("cpu", name) for name in names if name in BASELINES]
    limits = [(one.name, one.limit) for one in named(list(names)) if one.group == "ours"]
    return baselines + [(name, limit) for name, limit in limits if limit in names]


def recipe(setup: Setup, told: Told) -> Measured:
    """The full recipe."""
    return loaders(setup, told, "recipe", RECIPE)


def plain(setup: Setup, told: Told) -> Measured:
    """Decode, crop, resize, normalise to float32."""
    return loaders(setup, told, "plain", PLAIN)


_COSTS = {
    "decode_unit_x_plan": "plan and draw a pair",
    "decode_unit_x_region": "region decode, 263 of",
    "decode_unit_x_warp": "warp to 255 px, through 4 channels",
    "decode_unit_x_read": "read and check a picture",
}


def costs(setup: Setup, told: Told) -> Measured:
    """Steps of a pair on one thread, in whole decodes of the same crops."""
    run = measure_costs(replace(setup.case, pairs=COST_PAIRS), setup.repeats, "", told)
    repeats: dict[str, list[float]] = {}
    absent = {}
    for key, begins in _COSTS.items():
        units = [one["units"] for one in run["steps"] if one["name"].startswith(begins)]
        if len(units) == 1:
            repeats[key] = [1 / value for value in units[0]]
        else:
            absent[key] = f"benchmarks.costs has {len(units)} steps named '{begins} ...'"
    return Measured(repeats=repeats, absent=absent)


def index(setup: Setup, told: Told) -> Measured:
    """Opening an index, against reading and hashing its bytes."""
    folder = setup.out / f"index-{INDEX_ROWS}"
    manifest = synthetic_index(folder, INDEX_ROWS)
    path = folder / str(manifest.index["name"])
    repeats: dict[str, list[float]] = {"hash_x_index_open": [], "hash_x_sets_open": []}
    for number in range(setup.repeats):
        seconds = []
        for _ in range(9):
            started = time.perf_counter()
            hashlib.sha256(path.read_bytes()).digest()
            seconds.append(time.perf_counter() - started)
        found = index_and_plan(folder, 1, INDEX_ROWS)
        for what in ("index_open", "sets_open"):
            repeats[f"hash_x_{what}"].append(statistics.median(seconds) / found[f"{what}_s"][0])
        told(f"repeat {number + 1}/{setup.repeats}, index of {INDEX_ROWS:,} rows")
    return Measured(repeats=repeats)


def packing(setup: Setup, told: Told) -> Measured:
    """Our packer against the obvious loop and the tuned one, one case."""
    cases = [case for case in CASES if case.name == PACK_CASE]
    run = measure_pack(setup.out / "pack", PACK_CROPS, setup.repeats, None, "", told, cases)
    ratios = run["cases"][0]["ratio_repeats"]
    return Measured(
        repeats={"pack_cpu_x_obvious": ratios["cpu"], "pack_cpu_x_tuned": ratios["cpu_tuned"]}
    )


def training_step(setup: Setup, told: Told) -> Measured:
    """The training step but for its backbone against a loop over samples, one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = make_work(STEP_MODEL, STEP_CUT, make_batch(STEP_PAIRS))
        found = measure_work(work, setup.repeats, STEPS)
    finally:
        torch.set_num_threads(threads)
    told(f"{STEP_MODEL}, {STEP_CUT}: x {found['ratio']:.2f}")
    return Measured(repeats={"step_x_loop": found["ratio_repeats"]})


_AGAIN = "python -m benchmarks"
PARTS = (
    Part(
        name="recipe",
        ratios=tuple(
            ratio for pair in _compared(RECIPE) for ratio in _loader_ratios("recipe", *pair)
        ),
        again=f"{_AGAIN} loaders --only {','.join(RECIPE)} --repeats 5",
        measure=recipe,
    ),
    Part(
        name="plain",
        ratios=tuple(
            ratio for pair in _compared(PLAIN) for ratio in _loader_ratios("plain", *pair)
        ),
        again=f"{_AGAIN} loaders --work plain --only {','.join(PLAIN)} --repeats 5",
        measure=plain,
    ),
    Part(
        name="costs",
        ratios=tuple(
            Ratio(key=key, what=f"CPU time, whole decode / {begins.removesuffix(' of')}")
            for key, begins in _COSTS.items()
        ),
        again=f"{_AGAIN} costs",
        measure=costs,
    ),
    Part(
        name="index",
        ratios=(
            Ratio(key="hash_x_index_open", what="time, SHA-256 of an index / opening it"),
            Ratio(key="hash_x_sets_open", what="time, SHA-256 of an index / opening it to load"),
        ),
        again=f"{_AGAIN} limits",
        measure=index,
    ),
    Part(
        name="pack",
        ratios=(
            Ratio(key="pack_cpu_x_obvious", what="CPU time, obvious loop / packing"),
            Ratio(key="pack_cpu_x_tuned", what="CPU time, tuned loop / packing"),
        ),
        again=f"{_AGAIN} pack",
        measure=packing,
    ),
    Part(
        name="step",
        ratios=(Ratio(key="step_x_loop", what="time, loop over samples / training step"),),
        again=f"{_AGAIN} step",
        measure=training_step,
    ),
)


def measure_quick(
    setup: Setup, command: str, told: Told, parts: Sequence[Part] = PARTS
) -> dict[str, Any]:
    """Measure every ratio.

    Parameters
    ----------
    setup : what is measured on
    command : that repeats it, for the result
    told : called with lines of progress
    parts : that are run

    Returns
    -------
    the result, as its JSON has it: ``ratios`` with ``key``, ``what``, ``again``, ``repeats`` and
    ``summary``; ``absent`` with ``key`` and ``reason``
    """
    run = result.start("quick", command)
    started = time.perf_counter()
    ratios: list[dict[str, Any]] = []
    absent: list[dict[str, str]] = []
    facts: dict[str, Any] = {}
    for part in parts:
        before = time.perf_counter()
        found = part.measure(setup, told)
        told(f"{part.name}: {time.perf_counter() - before:.0f} s")
        facts |= {f"{part.name}_{key}": value for key, value in found.facts.items()}
        for ratio in part.ratios:
            one = {"key": ratio.key, "what": ratio.what}
            if ratio.key in found.absent:
                absent.append({**one, "reason": found.absent[ratio.key]})
                continue
            values = list(found.repeats[ratio.key])
            ratios.append(
                {**one, "again": part.again, "repeats": values, "summary": summary(values)}
            )
    return {
        **run,
        "machine": machine_class(),
        "config": setup.case.facts(),
        "repeats": setup.repeats,
        "seconds": time.perf_counter() - started,
        "facts": facts,
        "ratios": ratios,
        "absent": absent,
    }
