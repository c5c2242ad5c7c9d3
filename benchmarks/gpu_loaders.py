"""Our loader beside what DALI decodes at best, and beside both zip baselines, on this machine.

Each in a fresh process, in shuffled order, some rounds; ratios within a round. ``dali`` has the
settings that the sweep found best, ``dali-default`` those that a user gets who sets nothing; the
baselines have as many worker processes as there are cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case
from benchmarks.contestants import Entry, named
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import Peaks, ask
from benchmarks.runner import ContestantError, Outcome, run_once, shuffled, summary

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["LIMIT", "OURS", "found_of", "loaders", "ratios_of"]

ROUNDS, ROUND_S = 3, 4.0  # of each contestant's clock
DRY_ROUND_S = 0.3
LIMIT, OURS = "decode-only", "dali"
ZIP_PAIRS = 1 << 15  # planned at once by the baselines
DEFAULT_BATCH, DRY_BATCH = 32, 4
FIGURES = ("pairs_per_s", "cpu_ms_per_pair", "cores_busy", "first_batch_s")


def contestants(own: Facts) -> Iterator[tuple[str, Entry | None, Case]]:
    """Name, contestant (None: the limit) and work of each."""
    seconds = DRY_ROUND_S if own.is_dry else ROUND_S
    batch = DRY_BATCH if own.is_dry else DEFAULT_BATCH
    (ours,) = named([own.backend])
    tuned, plain = own.settings, Settings(mode=own.settings.mode, threads=own.cores)

    def case(settings: Settings, size: int, batches: int) -> Case:
        return replace(own, settings=settings).case(
            batch_size=size, pairs=size * batches, warmup_batches=6, limit_s=seconds
        )

    yield LIMIT, None, case(tuned, tuned.batch_pairs, 1)
    yield OURS, ours, case(tuned, tuned.batch_pairs, 1 << 20)
    yield f"{OURS}-default", ours, case(plain, batch, 1 << 20)
    for entry in named(["zip-tuned", "zip-published"]):
        yield entry.name, entry, case(plain, batch, ZIP_PAIRS // batch)


def measured(own: Facts, entry: Entry | None, case: Case, talk: Talk) -> Outcome:
    """Run one; its figures have peaks of memory too."""
    if entry is None:
        limit_s = max(20.0, talk.left_s())
        step = own.step(case.limit_s, measure_s=case.limit_s)
        answer = ask("decode-only", step, limit_s, talk.say, step=True)
        if answer.error:
            return Outcome(absent=answer.error)
        found = {name: answer.found[name] for name in FIGURES[:2]}
        return Outcome(label="limit: DALI's decoder alone", figures={**found, **answer.memory()})
    peaks = Peaks(None)
    try:
        outcome = run_once(entry, case, 0.2)
    except ContestantError as error:
        return Outcome(absent=str(error))
    finally:
        gpu = peaks.stop()[1]
    if outcome.absent is not None:
        return outcome
    figures = outcome.figures
    host = figures["memory_imports_mb"] + figures["memory_peak_beyond_imports_mb"]
    kept = {name: figures[name] for name in FIGURES}
    return replace(outcome, figures={**kept, "host_peak_mb": host, "gpu_peak_mb": gpu})


def ratios_of(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Pairs/s of our loader over each other one's of the same round."""
    ratios: dict[str, list[float]] = {}
    for one in rounds:
        for name in one if OURS in one else ():
            if name != OURS:
                ratio = one[OURS]["pairs_per_s"] / one[name]["pairs_per_s"]
                ratios.setdefault(name, []).append(ratio)
    return {
        name: {"repeats": values, "summary": summary(values)} for name, values in ratios.items()
    }


def loaders(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Rounds of all contestants, as many as there is time for."""
    from pathlib import Path

    from benchmarks.derived import ensure, warm

    own = Facts.read(facts)
    warm(ensure(Path(own.data), Path(own.derived), ("legacy",)), 1 << 34)
    found: dict[str, Any] = {}
    rounds: list[Mapping[str, Mapping[str, Any]]] = []
    labels: dict[str, str] = {}
    absent: dict[str, str] = {}
    before = talk.left_s()
    for number in range(1 if own.is_dry else ROUNDS):
        took = (before - talk.left_s()) / max(number, 1)
        if number and talk.left_s() < 1.1 * took:
            break
        figures: dict[str, Mapping[str, Any]] = {}
        rounds.append(figures)
        for name, entry, case in shuffled(list(contestants(own)), 7, number):
            if name in absent:
                continue
            outcome = measured(own, entry, case, talk)
            if outcome.absent is not None:
                absent[name] = outcome.absent
                talk.say(f"{name}: absent, {outcome.absent}")
                continue
            labels[name], figures[name] = outcome.label, outcome.figures
            talk.say(f"round {number + 1}, {name}: {figures[name]['pairs_per_s']:,.0f} pairs/s")
            found = found_of(own, rounds, labels, absent)
            talk.found(found)
    return found_of(own, rounds, labels, absent)


def found_of(
    own: Facts,
    rounds: Sequence[Mapping[str, Mapping[str, Any]]],
    labels: Mapping[str, str],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """What the rounds found, as results have it."""

    def one(name: str) -> dict[str, Any]:
        runs = [figures[name] for figures in rounds if name in figures]
        numbers = [key for key in runs[0] if all(run[key] is not None for run in runs)]
        return {
            "name": name,
            "label": labels[name],
            "repeats": runs,
            "summary": {key: summary([run[key] for run in runs]) for key in numbers},
        }

    settings = {name: getattr(own.settings, name) for name in Settings.__dataclass_fields__}
    return {
        "settings": settings,
        "contestants": [one(name) for name in labels],
        "ratios": ratios_of(rounds),
        "absent": [{"name": name, "reason": reason} for name, reason in absent.items()],
    }
