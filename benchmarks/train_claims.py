"""What `benchmarks.train` promises, and when its figures can tell.

*Where decode can keep up*, our loader reaches 0.95 of the limit's steps/s. It can where the loader
alone, with nothing trained beside it, gives `KEEPS_UP` times the pairs/s that the limit takes. On a
GPU twice is enough. On a CPU the cores do both, so decode takes cores from the step however early
it starts: if it takes 1/n of the step's time on all cores, the best that any loader can leave of
the limit is n / (n + 1), from 25 on 0.96.

*On a CPU*, so far above 25, that asks little. So at every width where the loader alone is at least
as fast as the limit, the share must also be 0.95 of what decode leaves of the cores: the limit's
CPU time a pair over that of limit and decode together. It bounds what is lost besides decode's own
work: waiting, copies, threads in each other's way. Neither can show that decode overlaps with the
step, for where the same cores do both nothing is won by it; only a GPU shows that. There cores are
idle, and the second bar would ask nothing.

*Not judged* is a figure of a machine that other programs kept busy, and one whose quartiles lie on
both sides of the bar: it neither holds nor fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.claims import Claim, claims_of
from benchmarks.runner import summary

__all__ = ["BAR", "KEEPS_UP", "QUIET_CORES", "claims", "headroom_of", "judged"]

BAR = 0.95
KEEPS_UP = {"cpu": 25.0, "cuda": 2.0}
QUIET_CORES = 0.3  # busy with other programs; above, ratios are mostly noise


def headroom_of(
    width: Mapping[str, Any], alone: Mapping[str, Mapping[str, float]], device: str
) -> dict[str, Any]:
    """Whether decode can keep up with a width's limit.

    Parameters
    ----------
    width : its figures
    alone : summary of the loader alone
    device : of the training

    Returns
    -------
    ``headroom`` (the loader's pairs/s alone, in those that the limit takes), ``keeps_up``, and
    ``cores_leave``: share of the limit's CPU time in that of limit and decode together
    """
    limit = width["feeds"]["ready"]["summary"]
    headroom = alone["pairs_per_s"]["median"] / limit["pairs_per_s"]["median"]
    step_ms, decode_ms = (one["cpu_ms_per_pair"]["median"] for one in (limit, alone))
    return {
        "headroom": headroom,
        "keeps_up": headroom >= KEEPS_UP[device],
        "cores_leave": step_ms / max(step_ms + decode_ms, 1e-9),
    }


def claims(width: Mapping[str, Any], device: str) -> Iterator[tuple[Claim, list[float]]]:
    """Promises of one width, each with its figure of every repeat.

    Parameters
    ----------
    width : its figures, with those of `headroom_of`
    device : of the training
    """
    shares, name = width["share"]["loader"]["repeats"], f"{width['width']:g}"
    what = f"width {name}: steps/s with our loader,"
    if width["keeps_up"]:
        yield _claim(f"share_{name}", f"{what} of the limit's"), list(shares)
    if device == "cpu" and width["headroom"] >= 1:
        leave = width["cores_leave"]
        claim = _claim(f"cores_share_{name}", f"{what} of what decode leaves of the cores")
        yield claim, [one / leave for one in shares]


def _claim(key: str, what: str) -> Claim:
    return Claim(key=key, what=what, unit="", bar=BAR, least=True)


def judged(widths: Sequence[Mapping[str, Any]], device: str) -> list[dict[str, Any]]:
    """All promises, as a result has them; those that the figures cannot tell are not judged.

    Parameters
    ----------
    widths : figures, with those of `headroom_of`
    device : of the training
    """
    found = [(width, *one) for width in widths for one in claims(width, device)]
    unsure = {
        claim.key for width, claim, values in found if is_busy(width) or is_astride(claim, values)
    }
    values_of = {claim.key: values for _, claim, values in found}
    return claims_of([claim for _, claim, _ in found], values_of, unsure)


def is_busy(width: Mapping[str, Any]) -> bool:
    """Whether other programs kept cores busy while our loader or the limit trained."""
    feeds = [width["feeds"][name]["summary"] for name in ("ready", "loader")]
    return bool(max(one["others_cores_busy"]["median"] for one in feeds) > QUIET_CORES)


def is_astride(claim: Claim, values: Sequence[float]) -> bool:
    """Whether the quartiles lie on both sides of the bar."""
    found = summary(values)
    return claim.holds(found["q1"]) != claim.holds(found["q3"])
