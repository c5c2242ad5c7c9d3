"""Promises of a run on a GPU, made of what its parts found.

A promise of a rate is judged from three repeats on. Pixels, boxes and damaged pictures come out
alike every time, and one value tells. A promise of a part that found nothing is named too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.claims import Claim, claims_of

__all__ = ["CONTRAST", "LEAST_REPEATS", "claims_from", "unmeasured"]

LEAST_REPEATS = 3
CONTRAST = "one process"  # ends the names of settings that are shown and not judged
WAIT = 0.02
LEVELS = 1.0
PARITY = {"parity": "", "parity-best": ", as the sweep chose"}
SHARE = Claim(
    key="decode_share",
    what="pairs/s of our loader with worker processes, of the best that DALI decodes",
    unit="",
    bar=0.9,
    least=True,
)
UNNAMED = Claim(
    key="bad_unnamed", what="damaged pictures that an error does not name", unit="", bar=1
)
WRONG = Claim(
    key="bad_goes_on_wrong",
    what="damages after which the batches are not the reference's",
    unit="",
    bar=1,
)


def _parity_claims(part: str) -> tuple[Claim, ...]:
    how = PARITY[part]
    return (
        Claim(
            key=f"{part}_mean",
            what=f"pixels against the reference{how}, mean",
            unit="levels",
            bar=LEVELS,
        ),
        Claim(
            key=f"{part}_p999",
            what=f"pixels against the reference{how}, 999 of 1,000",
            unit="levels",
            bar=9,
        ),
        Claim(
            key=f"{part}_boxes_differ",
            what=f"batches whose boxes differ from the reference{how}",
            unit="",
            bar=1,
        ),
    )


def _wait_claim(setting: str) -> Claim:
    what = f"data wait of a step, {setting}, with worker processes"
    return Claim(key=f"wait_share_{setting}", what=what, unit="", bar=WAIT)


def _is_judged(setting: str) -> bool:
    return not setting.endswith(CONTRAST)


def _of_part(name: str, found: Mapping[str, Any]) -> Iterator[tuple[Claim, list[float]]]:
    """Promises of a part and their values; no values where nothing was found."""
    if name in PARITY:
        halves = [found[half] for half in ("template", "search")] if found.get("pairs") else []
        values = [[max(one[key] for one in halves)] if halves else [] for key in ("mean", "p999")]
        values.append([float(not found["boxes_equal"])] if halves else [])
        yield from zip(_parity_claims(name), values, strict=True)
    elif name == "loaders":
        ratio = found.get("ratios", {}).get("decode-only")
        yield SHARE, ratio["repeats"] if ratio else []
    elif name == "train":
        settings = found.get("settings", [])
        for one in settings:
            if _is_judged(one["name"]):
                repeats = one["feeds"]["loader"]["repeats"]
                yield _wait_claim(one["name"]), [run["wait_share"] for run in repeats]
        for left_out in found.get("left_out", []) if settings else ["every setting"]:
            if _is_judged(left_out):
                yield _wait_claim(left_out), []
    elif name == "faults":
        cases = found.get("cases", [])
        yield UNNAMED, [float(sum(map(_is_unnamed, cases)))] if cases else []
        yield WRONG, [float(sum(map(_goes_on_wrong, cases)))] if cases else []


def _is_unnamed(case: Mapping[str, Any]) -> bool:
    """Scrambled bytes under a checksum that fits are a picture to some decoders: no fault."""
    is_picture = case["kind"] == "scrambled" and case["outcome"] == "decoded"
    return case["outcome"] != "named" and not is_picture


def _goes_on_wrong(case: Mapping[str, Any]) -> bool:
    """Pixels of scrambled bytes are each decoder's own: of them the samples alone are judged."""
    if not case.get("same_samples"):
        return True
    if case["kind"] == "scrambled" and case["outcome"] == "decoded":
        return False
    return not case["replaced"] or case["last_batch"]["mean"] >= LEVELS


def claims_from(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Promises on which the parts found something; of a dry run none is judged."""
    found = [pair for part in run["parts"] for pair in _of_part(part["name"], part["found"])]
    timed = (SHARE.key, "wait_share_")
    unsure = [
        claim.key
        for claim, values in found
        if run["dry_run"] or (claim.key.startswith(timed) and len(values) < LEAST_REPEATS)
    ]
    values = {claim.key: values for claim, values in found}
    return claims_of([claim for claim, _ in found], values, unsure)


def unmeasured(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Promises of the parts that were asked for, on which nothing was found.

    Of a dry run none: it leaves out much on purpose.
    """
    if run["dry_run"]:
        return []
    return [
        {
            "key": claim.key,
            "what": claim.what,
            "unit": claim.unit,
            "bar": claim.bar,
            "least": claim.least,
            "part": part["name"],
        }
        for part in run["parts"]
        for claim, values in _of_part(part["name"], part["found"])
        if not values
    ]
