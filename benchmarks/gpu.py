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
from benchmarks.claims import Claim, claims_of
from benchmarks.gpu_budget import Budget, Part
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import Answer, ask
from shards.errors import FormatError

__all__ = ["PARTS", "claims_from", "measure_gpu", "ok"]

PARTS = (
    Part(name="environment", weight_s=60, least_s=10),
    Part(name="parity", weight_s=40, least_s=10),
    Part(name="decode", weight_s=100, least_s=25),
    Part(name="loaders", weight_s=120, least_s=30),
    Part(name="train", weight_s=120, least_s=40),
    Part(name="faults", weight_s=40, least_s=15),
)
OVERTIME = 1.25  # of its share, after which a part is stopped
Ask = Callable[[str, Mapping[str, Any], float, Callable[[str], None]], Answer]

SHARE = Claim(
    key="decode_share",
    what="pairs/s of our loader, of the best that DALI decodes",
    unit="",
    bar=0.9,
    least=True,
)
WAIT = 0.02
CLAIMS = (
    SHARE,
    Claim(key="parity_mean", what="pixels against the reference, mean", unit="levels", bar=1.0),
    Claim(key="parity_p999", what="the same, 999 of 1,000 pixels", unit="levels", bar=9),
    Claim(key="boxes_differ", what="batches whose boxes differ from the reference", unit="", bar=1),
    Claim(key="bad_unnamed", what="damaged pictures that an error does not name", unit="", bar=1),
)


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
    }
    for part in parts:
        share = budget.share_s(part)
        if share is None:
            one = _left_out(part, budget.left_s())
        else:
            told(f"{part.name}: {share:.0f} s")
            own = asdict(replace(facts, seconds=share))
            answer = asked(part.name, own, min(OVERTIME * share, budget.left_s()), told)
            one = _record(part, share, answer)
            facts = replace(facts, settings=_settings(facts.settings, part.name, answer.found))
        told(f"{part.name}: {one['state']}{': ' + one['error'] if one['error'] else ''}")
        run["parts"].append(one)
        run["claims"] = claims_from(run)
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


def _record(part: Part, share: float, answer: Answer) -> dict[str, Any]:
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
    return {key: value for key, value in run.items() if key not in ("parts", "claims")}


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
    """Whether every part was done and no claim is missed."""
    done = all(part["state"] == "done" for part in run["parts"])
    return done and all(claim["holds"] is not False for claim in run["claims"])


def claims_from(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Promises on which the parts found something; of a dry run none is judged."""
    found = {part["name"]: part["found"] for part in run["parts"]}
    parity, cases = found.get("parity", {}), found.get("faults", {}).get("cases", [])
    ratio = found.get("loaders", {}).get("ratios", {}).get("decode-only")
    values: dict[str, list[float]] = {SHARE.key: ratio["repeats"] if ratio else []}
    if parity.get("pairs"):
        halves = [parity["template"], parity["search"]]
        values["parity_mean"] = [max(one["mean"] for one in halves)]
        values["parity_p999"] = [max(one["p999"] for one in halves)]
        values["boxes_differ"] = [float(not parity["boxes_equal"])]
    if cases:
        # scrambled bytes under a checksum that fits are a picture to some decoders
        values["bad_unnamed"] = [
            float(sum(one["outcome"] != "named" for one in cases if one["kind"] != "scrambled"))
        ]
    waits = []
    for one in found.get("train", {}).get("settings", []):
        key = f"wait_share_{one['name']}"
        waits.append(Claim(key=key, what=f"data wait of a step, {one['name']}", unit="", bar=WAIT))
        values[key] = [run["wait_share"] for run in one["feeds"]["loader"]["repeats"]]
    claims = [*CLAIMS, *waits]
    return claims_of(claims, values, [claim.key for claim in claims] if run["dry_run"] else ())
