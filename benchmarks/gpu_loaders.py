"""Our loader beside what DALI decodes at best, and beside both zip baselines, on this machine.

Each in a process of its own, which stays (`benchmarks.gpu_turns`); they are measured in turn, in
shuffled order, some rounds; ratios within a round. ``dali`` has the settings that the sweep found
best and worker processes that plan and read, ``dali-one-process`` the same without them,
``dali-default`` what a user gets who sets nothing; the baselines have as many worker processes as
there are cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.asked_process import AskedProcess
from benchmarks.case import Case
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import device
from benchmarks.gpu_turns import LIMIT
from benchmarks.runner import ContestantError, shuffled, summary

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["LIMIT", "OURS", "contestants", "found_of", "loaders", "ratios_of"]

ROUNDS, ROUND_S = 5, 2.0  # of each contestant's clock
DRY_ROUND_S = 0.3
OURS = "dali"
TUNED_PAIRS, PUBLISHED_PAIRS = 1 << 18, 1 << 16  # planned by the baselines, at once by the latter
DEFAULT_BATCH, DRY_BATCH = 32, 4
START_S = 90.0  # for a contestant's first batch


class Contestant(NamedTuple):
    """Name in the result, name of the module, and work."""

    name: str
    module: str
    case: Case


def contestants(own: Facts) -> Iterator[Contestant]:
    """All of a run."""
    batch = DRY_BATCH if own.is_dry else DEFAULT_BATCH
    tuned, plain = own.settings, Settings(mode=own.settings.mode, threads=own.cores)

    def case(settings: Settings, size: int, batches: int, workers: int = 0) -> Case:
        return replace(own, settings=settings).case(
            batch_size=size, pairs=size * batches, workers=workers
        )

    endless, best = 1 << 20, tuned.batch_pairs
    yield Contestant(LIMIT, LIMIT, case(tuned, best, 1))
    yield Contestant(OURS, own.backend, case(tuned, best, endless, own.workers))
    yield Contestant(f"{OURS}-one-process", own.backend, case(tuned, best, endless))
    yield Contestant(f"{OURS}-default", own.backend, case(plain, batch, endless))
    yield Contestant("zip-tuned", "zip-tuned", case(plain, batch, TUNED_PAIRS // batch))
    yield Contestant("zip-published", "zip-published", case(plain, batch, PUBLISHED_PAIRS // batch))


def started(own: Facts, one: Contestant) -> AskedProcess:
    """A contestant's process, which has made its first batch."""
    setup = {
        "name": one.name,
        "contestant": one.module,
        "case": one.case.facts(),
        "facts": asdict(own),
    }
    return AskedProcess("benchmarks.gpu_turns", one.name, setup, START_S)


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


def _start_all(
    own: Facts,
    everyone: Sequence[Contestant],
    stack: ExitStack,
    absent: dict[str, str],
    talk: Talk,
) -> tuple[dict[str, AskedProcess], dict[str, Any]]:
    """Processes of all contestants, ours first, whose memory on the GPU is looked at."""
    running: dict[str, AskedProcess] = {}
    gpu = device()

    def begin(one: Contestant) -> None:
        try:
            process = stack.enter_context(closing(started(own, one)))
        except ContestantError as error:
            absent[one.name] = str(error)
        else:
            if "absent" in process.facts:
                absent[one.name] = process.facts["absent"]
            else:
                running[one.name] = process
                return
        talk.say(f"{one.name}: absent, {absent[one.name]}")

    def used() -> int | None:
        memory = gpu.memory() if gpu else None
        return memory[0] if memory else None

    before = used()
    begin(next(one for one in everyone if one.name == OURS))
    if OURS in running:
        running[OURS].do("block", seconds=0.0)  # until all that is made ahead is there
    after = used()
    with ThreadPoolExecutor(len(everyone)) as pool:
        list(pool.map(begin, (one for one in everyone if one.name != OURS)))
    known = before is not None and after is not None
    return running, {"gpu_mb": (after - before) / 1e6 if known else None}


def loaders(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Rounds of all contestants, as many as there is time for."""
    from benchmarks.derived import ensure, warm

    own = Facts.read(facts)
    warm(ensure(Path(own.data), Path(own.derived), ("legacy",)), 1 << 34)
    found: dict[str, Any] = {}
    rounds: list[Mapping[str, Mapping[str, Any]]] = []
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        everyone = list(contestants(own))
        running, memory = _start_all(own, everyone, stack, absent, talk)
        order = [one for one in everyone if one.name in running]
        labels = {one.name: running[one.name].facts["label"] for one in order}
        before = talk.left_s()
        for number in range(1 if own.is_dry else ROUNDS):
            took = (before - talk.left_s()) / max(number, 1)
            if number and talk.left_s() < 1.1 * took:
                break
            figures: dict[str, Mapping[str, Any]] = {}
            rounds.append(figures)
            for one in shuffled(order, 7, number):
                if one.name in absent:
                    continue
                try:
                    seconds = DRY_ROUND_S if own.is_dry else ROUND_S
                    figures[one.name] = running[one.name].do("block", seconds=seconds)
                except ContestantError as error:
                    absent[one.name] = str(error)
                    talk.say(f"{one.name}: absent from now on, {error}")
                    continue
                rate = figures[one.name]["pairs_per_s"]
                talk.say(f"round {number + 1}, {one.name}: {rate:,.0f} pairs/s")
            found = {**found_of(own, rounds, labels, absent), **memory}
            talk.found(found)
    return found


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
        "workers": own.workers,
        "contestants": [one(name) for name in labels if any(name in one for one in rounds)],
        "ratios": ratios_of(rounds),
        "absent": [{"name": name, "reason": reason} for name, reason in absent.items()],
    }
