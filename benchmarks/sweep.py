"""The same contestants over workers, batch size, size of the data, page cache and storage.

Question: does what holds at one setting hold at others, and what grows? Method: along each axis all
contestants run at all points once a repeat, in an order that is shuffled over all of them, so that
a drift of the machine meets all points alike; each run is a fresh process. Ratios are taken within
a repeat: to the contestant's own first point, and to the baselines at the same point. A run's clock
takes a fixed time, for a fixed number of pairs would be too few for the fast or too many for the
slow ones.

The axes ``size``, ``cache`` and ``storage`` make data of their own: few distinct pictures under
many names, so many that a run hardly reads one twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.case import Case
from benchmarks.compare import data_facts, pair_kb
from benchmarks.contestants import SERVER, Entry
from benchmarks.derived import ensure, warm
from benchmarks.faulty_server import FaultyServer
from benchmarks.memory import repeated_pictures
from benchmarks.opening import open_once
from benchmarks.own_folder import check_own, check_room, mark, remove
from benchmarks.page_cache import evict, resident_bytes
from benchmarks.pairs import pair_config
from benchmarks.runner import Outcome, attempt, relate, run_once, shuffled, summaries
from benchmarks.sweep_axes import Axis, Point, Sweep, axis_of, size_folder
from loaders.sets import open_sets
from shards.format import MANIFEST_NAME
from shards.free_memory import available_bytes

__all__ = ["MARKER", "Tools", "measure_axis", "measure_sweep"]

MARKER = "made-by-benchmarks-sweep"  # a file in the folder of the data: they may be removed
# Figures whose ratio to the contestant's first point is taken, by the ratio's key.
FIRST = {
    "pairs_per_s_x_first": "pairs_per_s",
    "cpu_ms_per_pair_x_first": "cpu_ms_per_pair",
    "memory_x_first": "memory_peak_beyond_imports_mb",
    "first_batch_s_x_first": "first_batch_s",
}
_ALL_GONE = 0.999  # share of the bytes; what is left is a page that somebody just read

Runs = dict[tuple[str, str], list[dict[str, Any]]]  # by contestant and point


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What runs a contestant, and what opens data; tests put their own in place."""

    once: Callable[..., Outcome] = run_once
    opened: Callable[..., dict[str, Any]] = open_once


def measure_sweep(
    sweep: Sweep,
    entries: Sequence[Entry],
    keep: bool,
    command: str,
    told: Callable[[str], None],
    save: Callable[[Mapping[str, Any]], None],
    tools: Tools | None = None,
) -> dict[str, Any]:
    """Run a sweep.

    Parameters
    ----------
    sweep, entries : what is varied, and who takes part
    keep : leave the data that are made
    command : that repeats it, for the result
    told : called with lines of progress
    save : called with the result after each axis, so that a stop loses one axis at most
    tools : of tests

    Returns
    -------
    the result, as its JSON has it
    """
    run: dict[str, Any] = {
        **result.start("sweep", command),
        "config": {
            "data": str(sweep.data),
            "axes": list(sweep.axes),
            "works": list(sweep.works),
            "contestants": [entry.name for entry in entries],
            "repeats": sweep.repeats,
            "seconds": sweep.seconds,
            "size_gb": sweep.size_gb,
            "delay_ms": sweep.delay_ms,
        },
        "complete": False,
        "axes": [],
    }
    sizes = {gb for axis in sweep.axes for gb in sweep.sizes_gb.get(axis, ())}
    made: list[Path] = []
    if sizes:
        check_own(sweep.out, MARKER)
        forms = 2 + ("files" in {form for entry in entries for form in entry.needs})
        check_room(sweep.out, 1.1e9 * forms * sum(sizes), "--size-gb")
        mark(sweep.out, MARKER)
    try:
        for name in sweep.axes:
            for gb in sweep.sizes_gb.get(name, ()):
                folder = size_folder(sweep.out, gb)
                if not folder.exists():
                    made.append(folder)
                    told(f"{folder}: making {gb:g} GB of shards")
                repeated_pictures(folder / "data", gb)
            for work in sweep.works:
                axis = axis_of(sweep, name, work)
                run["axes"].append(measure_axis(axis, entries, sweep, told, tools or Tools()))
                run["complete"] = len(run["axes"]) == len(sweep.axes) * len(sweep.works)
                save(run)
    finally:
        if sizes and not keep:
            remove(sweep.out, MARKER, made)
    return run


def measure_axis(
    axis: Axis, entries: Sequence[Entry], sweep: Sweep, told: Callable[[str], None], tools: Tools
) -> dict[str, Any]:
    """Run all contestants at all points of an axis; see the module for the order.

    Returns
    -------
    the element of ``axes`` of the result
    """
    absent = _unable(axis, entries)
    able = [entry for entry in entries if entry.name not in absent]
    files = {
        (entry.name, point.name): ensure(
            Path(point.case.data), point.case.derived_folder, entry.needs
        )
        for entry in able
        for point in axis.points
    }
    cached = warm(sorted({path for own in files.values() for path in own}), available_bytes() // 2)
    items: list[tuple[Entry | None, Point]] = [(e, point) for e in able for point in axis.points]
    if axis.name == "size":
        items += [(None, point) for point in axis.points]
    runs: Runs = {}
    labels: dict[str, str] = {}
    seed, kept, missing = axis.points[0].case.seed, 0.0, 0.0
    with ExitStack() as stack:
        server = None
        if axis.name == "storage" and able:
            origin = Path(axis.points[0].case.data).resolve()
            server = stack.enter_context(FaultyServer(origin, delay_s=sweep.delay_ms / 1e3))
        for repeat in range(sweep.repeats):
            for place, (entry, point) in enumerate(shuffled(items, seed, repeat)):
                where = {"repeat": repeat, "place": place}
                if entry is None:
                    found = tools.opened(point.case)
                    runs.setdefault(("", point.name), []).append({**where, **found})
                    continue
                if entry.name in absent:
                    continue
                own = files[entry.name, point.name]
                outcome, extra = _run(axis, entry, point, own, server, tools)
                kept = max(kept, 1 - extra.get("evicted_share", 1.0))
                missing = max(missing, 1 - extra.get("resident_share", 1.0))
                if outcome.absent is not None:
                    absent[entry.name] = outcome.absent
                    told(f"{entry.name}: absent, {outcome.absent}")
                    continue
                labels[entry.name] = outcome.label
                figures = {**where, **outcome.figures, **extra}
                runs.setdefault((entry.name, point.name), []).append(figures)
                told(
                    f"{axis.name}, {axis.points[0].case.work}, repeat {repeat + 1}/{sweep.repeats}"
                    f", {place + 1}/{len(items)}, {entry.name} at {point.name}: "
                    f"{figures['pairs_per_s']:,.1f} pairs/s"
                )
    here = [entry for entry in able if entry.name not in absent]
    _relate(axis, here, runs)
    sets = open_sets(pair_config(axis.points[-1].case))
    facts: dict[str, Any] = {
        "axis": axis.name,
        "title": axis.title,
        "unit": axis.unit,
        "scale": axis.scale,
        "work": axis.points[0].case.work,
        "case": axis.case_facts(),
        "data": {
            "datasets": data_facts(sets),  # of the last point
            "page_cache": "not warmed" if cached is None else "warm",
            "encoded_kb_per_pair": pair_kb(sets, axis.points[-1].case),
        },
        "points": [{"name": point.name, "value": point.value} for point in axis.points],
        "contestants": [
            {
                "name": entry.name,
                "label": labels[entry.name],
                "group": entry.group,
                "pairs": entry.pairs,
                "points": _points(axis, runs, entry.name),
            }
            for entry in here
        ],
        "absent": [
            {"name": name, "point": None, "reason": reason} for name, reason in absent.items()
        ],
        "notes": _notes(axis, kept, missing, cached is None),
    }
    if axis.name == "size":
        facts["openings"] = _points(axis, runs, "")
    return facts


def _unable(axis: Axis, entries: Sequence[Entry]) -> dict[str, str]:
    """Contestants that an axis is not for, with the reason."""
    unable = {}
    for entry in entries:
        if SERVER in entry.needs:
            unable[entry.name] = "always remote; the axis storage reads remotely with the others"
        elif axis.name == "storage" and entry.group != "ours":
            unable[entry.name] = "not set up to read remotely here"
    return unable


def _run(
    axis: Axis,
    entry: Entry,
    point: Point,
    files: Sequence[Path],
    server: FaultyServer | None,
    tools: Tools,
) -> tuple[Outcome, dict[str, float]]:
    """One run at a point, and the figures that only its axis has."""

    def once(case: Case, **more: Any) -> Outcome:
        return attempt(partial(tools.once, entry, case, **more), entry.name)

    extra: dict[str, float] = {}
    if point.cold:
        gone = evict([*files, *Path(point.case.data).rglob(MANIFEST_NAME)])
        return once(point.case), {"evicted_share": gone.share}
    if axis.name == "cache":
        read = warm(list(files), available_bytes() // 2)  # a cold run may have gone before
        if read is None:
            return Outcome(absent="its files do not fit in half the free memory: never warm"), {}
        extra = {"resident_share": resident_bytes(files) / read}
    if not point.remote:
        return once(point.case), extra
    assert server is not None
    with tempfile.TemporaryDirectory(prefix="siamstream-cache-") as cache:
        sent = server.sent
        case = replace(point.case, data=server.url, url=server.url)
        outcome = once(case, env={"XDG_CACHE_HOME": cache})
        return outcome, {"fetched_mb": (server.sent - sent) / 1e6}


def _relate(axis: Axis, entries: Sequence[Entry], runs: Runs) -> None:
    """Add ratios within a repeat: to the baselines at the same point, to the own first point."""
    for point in axis.points:
        at = {entry.name: runs[entry.name, point.name] for entry in entries}
        relate(at, entries)
    for entry in entries:
        firsts = {one["repeat"]: one for one in runs[entry.name, axis.points[0].name]}
        for point in axis.points:
            for one in runs[entry.name, point.name]:
                first = firsts[one["repeat"]]
                one.update(
                    {key: one[what] / first[what] for key, what in FIRST.items() if first[what] > 0}
                )


def _points(axis: Axis, runs: Runs, name: str) -> list[dict[str, Any]]:
    return [
        {
            "point": point.name,
            "repeats": runs[name, point.name],
            "summary": summaries(runs[name, point.name]),
        }
        for point in axis.points
    ]


def _notes(axis: Axis, kept: float, missing: float, not_warmed: bool) -> list[str]:
    """What a reader must know of how an axis went."""
    notes = []
    if not_warmed:
        notes.append("The data are larger than half the free memory and were not read beforehand.")
    if axis.name == "cache":
        notes.append(
            "Cold: every file of the data was put out of the page cache before the run; names and "
            "sizes of files stay known to the kernel, and a disk may have a cache of its own."
        )
        if kept > 1 - _ALL_GONE:
            notes.append(
                f"The kernel kept up to {100 * kept:.1f} % of the bytes in memory: the cold runs "
                "are not quite cold."
            )
        if missing > 1 - _ALL_GONE:
            notes.append(
                f"Up to {100 * missing:.1f} % of the bytes were not in memory: the warm runs are "
                "not quite warm."
            )
    if axis.name == "storage":
        notes.append(
            "The server runs on the same machine, in the process that measures, and takes CPU "
            "from the contestants; each run over it starts with an empty cache on disk."
        )
    return notes
