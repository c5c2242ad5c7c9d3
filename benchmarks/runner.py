"""Run contestants side by side and put their figures together.

Method: one fresh process for every contestant and repeat; in every repeat all contestants run
once, in an order shuffled by counter-based numbers; warm-up batches are dropped; ratios are taken
within a repeat, where the machine's state is most alike, and then summarised. All figures are of
the whole process tree, so workers count.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from benchmarks.case import Case
from benchmarks.child_process import ContestantError, child_env, last_words
from benchmarks.contestants import BASELINES, UNIT, Entry, cannot
from benchmarks.environment import WAIT_POLICY
from benchmarks.peers import interpreter
from benchmarks.proc import Memory, PeakMemory
from shards.rng import uniforms

__all__ = [
    "EPOCH_PAIRS",
    "FAILED",
    "ContestantError",
    "Outcome",
    "attempt",
    "ratio_key",
    "refuse_failed",
    "relate",
    "run_once",
    "run_rounds",
    "shuffled",
    "summaries",
    "summary",
]

T = TypeVar("T")
_STREAM_ORDER = 1010
_LIMIT_S = 1800
EPOCH_PAIRS = 320_000  # of the epoch whose time is derived from a rate
FAILED = "failed: "  # begins the reason of a contestant that is absent because it failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One run of one contestant; `figures` is empty where it is `absent`, with the reason.

    `memory` holds seconds since the imports and bytes of private and shared memory then.
    """

    label: str = ""
    absent: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    memory: tuple[tuple[float, int], ...] = ()


def own_case(entry: Entry, case: Case) -> Case:
    """Case of one contestant: fewer pairs and a short warm-up for the very slow ones."""
    if entry.share == 1:
        return case
    batches = max(1, round(case.batches * entry.share))
    return replace(case, pairs=batches * case.batch_size, warmup_batches=1)


def expected_samples(case: Case) -> str:
    """SHA-256 that a contestant reports if it handed over the planned samples, in order."""
    digest = hashlib.sha256()
    for _, start in zip(range(case.warmup_batches + case.batches), case.starts(), strict=False):
        digest.update(json.dumps(list(range(start, start + case.batch_size))).encode())
    return digest.hexdigest()


def run_once(
    entry: Entry, case: Case, watch_every_s: float = 0.5, env: Mapping[str, str] | None = None
) -> Outcome:
    """Run a contestant in a process of its own.

    Parameters
    ----------
    entry, case : who, and what
    watch_every_s : between two looks at its memory
    env : variables of its environment beside ours

    Raises
    ------
    ContestantError : if it fails, takes longer than half an hour, or serves other samples
    """
    if case.work not in entry.works:
        return Outcome(absent=cannot(case.work))
    case = own_case(entry, case)
    python = interpreter(entry.env)
    if python is None:
        return Outcome(
            absent=f"no environment; make it with 'python -m benchmarks peers {entry.env}'"
        )
    command = [str(python), "-m", "benchmarks.child", entry.name]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**WAIT_POLICY, **child_env(), **(env or {})},
        )
        assert child.stdout is not None
        timer = threading.Timer(_LIMIT_S, child.kill)
        timer.start()
        try:
            events = _listen(child, case, watch_every_s)
        finally:
            timer.cancel()
            child.kill()
            child.wait()
            child.stdout.close()
        if "absent" in events:
            return Outcome(absent=events["absent"]["reason"])
        if "result" not in events or "imported" not in events:
            errors.seek(0)
            last = last_words(errors.read())
            reason = events.get("failed", {}).get("reason") or last or "ended without a word"
            raise ContestantError(f"contestant {entry.name} failed: {reason}")
    result = events["result"]
    done = replace(case, pairs=result["pairs"]) if case.limit_s else case
    if result["samples_sha256"] != expected_samples(done):
        raise ContestantError(
            f"contestant {entry.name} handed over other samples than were planned; its figures "
            "would not be comparable"
        )
    return Outcome(
        label=_label(events),
        figures=_figures(events),
        memory=events["peak"]["series"],
    )


def _listen(
    child: subprocess.Popen[str], case: Case, watch_every_s: float
) -> dict[str, dict[str, Any]]:
    """Give the case to a child and collect its events; watches its memory after the imports."""
    assert child.stdin is not None
    assert child.stdout is not None
    events: dict[str, dict[str, Any]] = {}
    try:
        child.stdin.write(json.dumps(case.facts()))
        child.stdin.close()
    except BrokenPipeError:
        return events  # it ended at once; what it said on stderr is reported
    watch: PeakMemory | None = None
    for line in child.stdout:
        if not line.startswith("{"):
            continue  # a library's chatter
        facts = json.loads(line)
        events[facts.pop("event")] = facts
        if "imported" in events and watch is None:
            watch = PeakMemory(child.pid, watch_every_s)
        if "result" in events and watch is not None:
            watch.add(Memory(**events["result"]["memory_end"]))
            peak = watch.stop()
            events["peak"] = {
                "own": peak.own,
                "file_pages": peak.file_pages,
                "series": tuple(watch.series),
            }
    if watch is not None:
        watch.stop()
    child.wait()
    return events


def _label(events: dict[str, dict[str, Any]]) -> str:
    """A contestant's own label and, where it makes pixels, their type in this class of work."""
    own, pixels = events["imported"]["label"], events["result"]["pixel_type"]
    return f"{own}, {pixels}" if pixels else str(own)


def _figures(events: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Figures of one run; megabytes are 1e6 bytes."""
    result, base, peak = events["result"], events["imported"], events["peak"]
    pairs, wall_s = result["pairs"], result["wall_s"]
    return {
        "pairs": pairs,
        "wall_s": wall_s,
        "pairs_per_s": pairs / wall_s,
        "cpu_ms_per_pair": 1e3 * result["cpu_s"] / pairs,
        "cores_busy": result["cpu_s"] / wall_s,
        "others_cores_busy": result["others_cpu_s"] / wall_s,
        "memory_imports_mb": base["own"] / 1e6,
        "memory_peak_beyond_imports_mb": (peak["own"] - base["own"]) / 1e6,
        "memory_end_beyond_imports_mb": (result["memory_end"]["own"] - base["own"]) / 1e6,
        "file_pages_peak_mb": peak["file_pages"] / 1e6,
        "first_batch_s": result["first_batch_s"],
        "disk_read_mb": result["disk_read_bytes"] / 1e6,
        "asked_mb": result["asked_bytes"] / 1e6,
        "asked_kb_per_pair": result["asked_counted_bytes"] / pairs / 1e3,
        "epoch_min": EPOCH_PAIRS / (pairs / wall_s) / 60,
        "pixel_type": result["pixel_type"],
        "search_shape": result["search_shape"],
    }


def attempt(run: Callable[[], Outcome], name: str) -> Outcome:
    """Run a contestant; one that fails is absent, so that it does not end the others' comparison.

    Parameters
    ----------
    run : runs it
    name : of the contestant
    """
    try:
        return run()
    except ContestantError as error:
        said = str(error).removeprefix(f"contestant {name} ").removeprefix(FAILED)
        return Outcome(absent=f"{FAILED}{said}")


def refuse_failed(absent: Iterable[Mapping[str, Any]]) -> None:
    """End a comparison that is done and written.

    Parameters
    ----------
    absent : ``name`` and ``reason`` of each

    Raises
    ------
    ContestantError : if one of them has failed
    """
    failed = {
        one["name"]: one["reason"].removeprefix(FAILED)
        for one in absent
        if one["reason"].startswith(FAILED)
    }
    if failed:
        said = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ContestantError(f"failed, and left out of the figures: {said}")


def shuffled(items: Sequence[T], seed: int, repeat: int) -> list[T]:
    """Order of one repeat."""
    drawn = uniforms(seed, _STREAM_ORDER, repeat, 0, len(items), 4)[:, 0]
    return [items[i] for i in np.argsort(drawn)]


def run_rounds(
    entries: Sequence[Entry],
    case: Case,
    repeats: int,
    told: Callable[[str], None],
    once: Callable[[Entry, Case], Outcome] = run_once,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Run every contestant `repeats` times.

    Parameters
    ----------
    entries : contestants; the one that measures the decode unit should be among them
    case : the work
    repeats : rounds
    told : called with a line of progress after each run
    once : runs a contestant

    Returns
    -------
    contestants : ``name``, ``label``, ``group``, ``repeats`` (figures of each) and ``summary``
    absent : ``name`` and ``reason`` of those that cannot run here or failed; runs that one of them
        did before are left out
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    labels: dict[str, str] = {}
    absent: dict[str, str] = {}
    for repeat in range(repeats):
        for place, entry in enumerate(shuffled(entries, case.seed, repeat)):
            if entry.name in absent:
                continue
            outcome = attempt(partial(once, entry, case), entry.name)
            if outcome.absent is not None:
                absent[entry.name] = outcome.absent
                runs.pop(entry.name, None)
                told(f"{entry.name}: absent, {outcome.absent}")
                continue
            labels[entry.name] = outcome.label
            figures = {"repeat": repeat, "place": place, **outcome.figures}
            runs.setdefault(entry.name, []).append(figures)
            told(
                f"repeat {repeat + 1}/{repeats}, {entry.name}: "
                f"{figures['pairs_per_s']:,.1f} pairs/s, {figures['cpu_ms_per_pair']:.2f} CPU ms"
            )
    relate(runs, entries)
    contestants = [
        {
            "name": entry.name,
            "label": labels[entry.name],
            "group": entry.group,
            "pairs": entry.pairs,
            "repeats": runs[entry.name],
            "summary": summaries(runs[entry.name]),
        }
        for entry in entries
        if entry.name in runs
    ]
    return contestants, [{"name": name, "reason": reason} for name, reason in absent.items()]


def ratio_key(baseline: str, what: str = "pairs_per_s") -> str:
    """Key of the ratio of a figure to a baseline's in the same repeat."""
    return f"{what}_x_{baseline.replace('-', '_')}"


def relate(runs: Mapping[str, list[dict[str, Any]]], entries: Iterable[Entry]) -> None:
    """Add what compares runs of one repeat: decode units, ratios to the baselines, to the limit.

    Parameters
    ----------
    runs : figures of every repeat, by contestant
    entries : the contestants
    """

    def of(name: str | None, repeat: int) -> dict[str, Any] | None:
        return next((run for run in runs.get(name or "", []) if run["repeat"] == repeat), None)

    limits = {entry.name: entry.limit for entry in entries if entry.group == "ours"}
    for name, own in runs.items():
        for run in own:
            unit = of(UNIT, run["repeat"])
            if unit is not None:
                # two pictures a pair
                run["decode_units_per_pair"] = 2 * run["cpu_ms_per_pair"] / unit["cpu_ms_per_pair"]
            for baseline in BASELINES:
                other = of(baseline, run["repeat"])
                if other is not None:
                    for what in ("pairs_per_s", "cpu_ms_per_pair"):
                        run[ratio_key(baseline, what)] = run[what] / other[what]
            limit = of(limits.get(name), run["repeat"])
            if limit is not None:
                run["share_of_limit"] = run["pairs_per_s"] / limit["pairs_per_s"]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range of some repeats."""
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "q1": q1, "q3": q3, "min": min(values), "max": max(values)}


def summaries(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Summary of every figure that is a number and that each of some runs has."""
    numbers = [
        key
        for key, value in runs[0].items()
        if isinstance(value, int | float) and key not in ("repeat", "place")
        if all(key in run for run in runs)
    ]
    return {key: summary([run[key] for run in runs]) for key in numbers}
