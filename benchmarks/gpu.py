"""Everything that is to be known of our loader on a GPU, in one command of some minutes.

Parts run one after the other, what is most needed first, each in a process of its own with a share
of the time (`benchmarks.gpu_budget`, `benchmarks.gpu_process`). What a part found is written when
it ends, so that a machine that is taken away takes little with it. A part that fails is recorded
with its error, and the others go on.

Without a CUDA device the same parts run as a rehearsal: ``dali-cpu``, tiny sizes, no claim judged,
and ``dry_run`` in the result, which is never one to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.gpu_budget import Budget, Part
from benchmarks.gpu_claims import claims_from, unmeasured
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import Answer, ask
from shards.errors import FormatError

__all__ = ["PARTS", "measure_gpu", "ok", "record"]

PARTS = (
    Part(name="environment", weight_s=50, least_s=10),
    Part(name="parity", weight_s=25, least_s=10),
    Part(name="decode", weight_s=75, least_s=25),
    Part(name="parity-best", weight_s=20, least_s=10),  # with what the sweep chose
    Part(name="loaders", weight_s=170, least_s=30),
    Part(name="train", weight_s=100, least_s=40),
    Part(name="faults", weight_s=40, least_s=15),
)
OVERTIME = 1.25  # of its share, after which a part is stopped
Ask = Callable[[str, Mapping[str, Any], float, Callable[[str], None]], Answer]


def measure_gpu(
    facts: Facts,
    out: Path,
    minutes: float,
    head: Mapping[str, Any],
    told: Callable[[str], None],
    budget: Budget | None = None,
    parts: tuple[Part, ...] = PARTS,
    asked: Ask = ask,
) -> dict[str, Any]:
    """Run all parts and write what they find.

    Parameters
    ----------
    facts : data, device, cores
    out : folder for ``gpu.json`` and one file a part
    minutes : for everything
    head : first keys of the result, as of `result.start`, and facts of the data
    told : called with lines of progress
    budget : time of the run; made of `minutes` by default
    parts : in their order
    asked : runs a part

    Returns
    -------
    the result, as its JSON has it

    Raises
    ------
    StorageError : if it cannot be written
    """
    budget = budget or Budget(60 * minutes, parts)
    run: dict[str, Any] = {
        **head,
        "dry_run": facts.is_dry,
        "device": facts.device,
        "minutes": minutes,
        "parts": [],
        "claims": [],
        "unmeasured": [],
    }
    for part in parts:
        share = budget.share_s(part)
        if share is None:
            one = _left_out(part, budget.left_s())
        else:
            told(f"{part.name}: {share:.0f} s")
            own = asdict(replace(facts, seconds=share))
            answer = asked(part.name, own, min(OVERTIME * share, budget.left_s()), told)
            one = record(part, share, answer)
            facts = replace(facts, settings=_settings(facts.settings, part.name, answer.found))
        told(f"{part.name}: {one['state']}{': ' + one['error'] if one['error'] else ''}")
        run["parts"].append(one)
        run["claims"], run["unmeasured"] = claims_from(run), unmeasured(run)
        unfit = []  # written all the same; the parts that follow are worth more than a stop
        for name, facts_of in ((part.name, {**_without(run), **one}), ("gpu", run)):
            try:
                result.write(out / f"{name}.json", facts_of)
            except FormatError as error:
                unfit.append(str(error))
                told(f"Warning: {error}")
        if unfit and one["state"] != "failed":
            run["parts"][-1] = {**one, "state": "failed", "error": unfit[0]}
    return run


def _left_out(part: Part, left_s: float) -> dict[str, Any]:
    return {
        "name": part.name,
        "state": "left out",
        "error": f"its share of the {left_s:.0f} s left is under {part.least_s:g} s; give more "
        "--minutes, or --only it",
        "share_s": None,
        "seconds": 0.0,
        "memory": Answer().memory(),
        "found": {},
    }


def record(part: Part, share: float, answer: Answer) -> dict[str, Any]:
    """A part that was run, as results have it."""
    return {
        "name": part.name,
        "state": "failed" if answer.error else "done",
        "error": answer.error,
        "share_s": share,
        "seconds": answer.seconds,
        "memory": answer.memory(),
        "found": answer.found,
    }


def _without(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in run.items() if key not in ("parts", "claims", "unmeasured")
    }


def _settings(before: Settings, part: str, found: Mapping[str, Any]) -> Settings:
    """What later parts decode with: what works on this GPU, then what is best on it."""
    if part == "environment":
        return replace(before, mode=found.get("mode", before.mode))
    best = found.get("best") if part == "decode" else None
    if not best:
        return before
    top = max(best.values(), key=lambda one: one["pairs_per_s"])
    return Settings(**{name: top[name] for name in Settings.__dataclass_fields__})


def ok(run: Mapping[str, Any]) -> bool:
    """Whether every part was done, and no claim of them is missed or without a measurement."""
    done = all(part["state"] == "done" for part in run["parts"])
    held = all(claim["holds"] is not False for claim in run["claims"])
    return done and held and not run["unmeasured"]
