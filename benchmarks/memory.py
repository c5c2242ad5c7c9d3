"""How much memory a loader takes, by the size of its data and over time.

Question: is the memory of ours independent of the data, flat over a long run, and a fraction of
what a zip in memory takes? Method: ours and ``zip-tuned`` over data of each size, in fresh
processes, over more than 150 batches; then ours alone for minutes on the largest (the soak),
looked at every two seconds. Memory is private and shared memory of the whole process tree
(`benchmarks.proc`), the imports included. It hardly depends on how busy the machine is: the peak
of ours moves by a batch or two that happen to be alive at once, so ours runs three times. The data
hold few distinct pictures under many names, so that gigabytes are made in a minute.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.case import Case
from benchmarks.claims import Claim, claims_of
from benchmarks.contestants import Entry, named
from benchmarks.data import DataConfig, render_track
from benchmarks.derived import ensure
from benchmarks.own_folder import check_own, check_room, mark, remove
from benchmarks.runner import Outcome, run_once
from shards.errors import MismatchError
from shards.format import MANIFEST_NAME, Manifest, Sample, shard_name
from shards.writer import finish, write_shard

__all__ = ["MIN_BATCHES", "measure_memory", "memory_lines", "repeated_pictures", "soak_facts"]

MIN_BATCHES = 150  # below, glibc's moving mmap threshold has not shown what it does
SOAK_EVERY_S = 2.0
TRACK_FRAMES, DISTINCT_TRACKS, SHARD_TRACKS = 48, 4, 80
MARKER = "made-by-benchmarks-memory"  # a file in --out: what lies beside it may be removed
_SETTLE_S = 10.0  # of a soak that are not judged: queues fill


def claims(small_gb: float, large_gb: float) -> tuple[Claim, ...]:
    """Promises about data of two sizes."""
    return (
        Claim(
            key="x_of_zip_tuned",
            what=f"memory at {large_gb:g} GB as a share of zip-tuned's",
            unit="",
            bar=0.2,
        ),
        Claim(
            key="x_of_small",
            what=f"memory at {large_gb:g} GB against {small_gb:g} GB",
            unit="x",
            bar=1.05,
        ),
        Claim(
            key="growth_mb",
            what="growth in the soak, last third against the first",
            unit="MB",
            bar=10,
        ),
        Claim(key="first_batch_s", what=f"first batch at {large_gb:g} GB", unit="s", bar=1),
    )


def repeated_pictures(folder: Path, gb: float) -> Manifest:
    """Shards of about `gb` that hold the same pictures again and again; made once.

    Raises
    ------
    MismatchError : if the folder holds something else
    """
    options = {"synthetic": True, "repeated_pictures": True, "gb": gb}
    if (folder / MANIFEST_NAME).is_file():
        manifest = Manifest.read(folder)
        if dict(manifest.options) != options:
            raise MismatchError(f"{folder} holds other data; name another folder, or remove it")
        return manifest
    config = DataConfig(frames_per_track=TRACK_FRAMES)
    distinct = [list(render_track(config, track)) for track in range(DISTINCT_TRACKS)]
    track_bytes = np.mean([sum(len(jpeg) + 2_000 for _, jpeg in track) for track in distinct])
    tracks = max(2, round(gb * 1e9 / track_bytes))

    def samples(first: int) -> Iterator[tuple[Sample, bytes]]:
        for track in range(first, min(first + SHARD_TRACKS, tracks)):
            for sample, jpeg in distinct[track % DISTINCT_TRACKS]:
                facts = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
                yield Sample(**{**facts, "sequence": f"s{track:06d}"}), jpeg

    parts = [
        write_shard(folder, shard_name("memory", number), samples(first))
        for number, first in enumerate(range(0, tracks, SHARD_TRACKS))
    ]
    return finish(
        folder,
        parts,
        name="memory",
        grid="edge",
        crop_size=config.side,
        quality=config.quality,
        stride=config.stride,
        options=options,
    )


def soak_facts(series: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """What a soak says: medians of its first and last third, and the slope of a line through it.

    Parameters
    ----------
    series : seconds and bytes; the first ten seconds are left out
    """
    seen = [(at, own) for at, own in series if at >= _SETTLE_S]
    if len(seen) < 6:
        raise ValueError(f"{len(seen)} looks at the memory are too few: soak longer")
    seconds, own_mb = np.array([at for at, _ in seen]), np.array([own / 1e6 for _, own in seen])
    third = len(seen) // 3
    first, last = (float(np.median(part)) for part in (own_mb[:third], own_mb[-third:]))
    return {
        "minutes": float(series[-1][0] / 60),
        "first_third_mb": first,
        "last_third_mb": last,
        "growth_mb": last - first,
        "slope_mb_per_min": float(np.polyfit(seconds / 60, own_mb, 1)[0]),
        "peak_mb": float(own_mb.max()),
        "series_s_mb": [[round(at, 1), round(own / 1e6, 1)] for at, own in series],
    }


def _total_mb(figures: Mapping[str, Any]) -> float:
    """Peak of a run, the imports included."""
    return float(figures["memory_imports_mb"] + figures["memory_peak_beyond_imports_mb"])


def measure_memory(
    out: Path,
    sizes_gb: Sequence[float],
    minutes: float,
    batches: int,
    repeats: int,
    threads: int,
    keep: bool,
    command: str,
    told: Callable[[str], None],
    once: Callable[..., Outcome] = run_once,
) -> dict[str, Any]:
    """Measure memory at every size, and over time at the largest.

    Parameters
    ----------
    out : folder for the data
    sizes_gb : of the data, at least two
    minutes : of the soak; 0: none
    batches : of a run
    repeats : of ours at each size
    threads : of ours, worker processes of zip-tuned
    keep : leave the data
    command : that repeats it, for the result
    told : called with lines of progress
    once : runs a contestant

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("memory", command)
    check_own(out, MARKER)
    check_room(out, 2.2e9 * sum(sizes_gb), "--gb")  # shards and zip of every size, and a margin
    mark(out, MARKER)
    ours, tuned = (named([name])[0] for name in ("cpu", "zip-tuned"))
    ordered = sorted(sizes_gb)
    runs: list[dict[str, Any]] = []
    soak: dict[str, Any] | None = None
    made: list[Path] = []
    try:
        for gb in ordered:
            folder = out / f"{gb:g}gb"
            if not folder.exists():
                made.append(folder)
            told(f"{gb:g} GB: shards and zip in {folder}")
            case = _make(folder, gb, batches, threads)
            for entry in (*[ours] * repeats, tuned):
                figures = once(entry, case).figures
                runs.append({"name": entry.name, "gb": gb, "total_mb": _total_mb(figures)})
                runs[-1] |= figures
                told(
                    f"{gb:g} GB, {entry.name}: {runs[-1]['total_mb']:,.0f} MB "
                    f"({figures['memory_imports_mb']:,.0f} of them imports), first batch after "
                    f"{figures['first_batch_s']:.2f} s"
                )
        if minutes:
            told(f"soak of {minutes:g} minutes at {ordered[-1]:g} GB")
            soak = _soak(ours, case, minutes, once)
    finally:
        if not keep:
            remove(out, MARKER, made)
    return {
        **run,
        "config": {**case.facts(), "sizes_gb": ordered, "minutes": minutes},
        "runs": runs,
        "soak": soak,
        "claims": claims_of(claims(ordered[0], ordered[-1]), _values(runs, soak)),
    }


def _make(folder: Path, gb: float, batches: int, threads: int) -> Case:
    """Make shards and zip of a size; the case over them."""
    data, derived = folder / "memory", folder / "derived"
    repeated_pictures(data, gb)
    ensure(data, derived, ("legacy",))
    return Case(data=str(data), derived=str(derived), pairs=32 * batches, threads=threads)


def _soak(entry: Entry, case: Case, minutes: float, once: Callable[..., Outcome]) -> dict[str, Any]:
    """Run a contestant for minutes."""
    endless = {**case.facts(), "pairs": case.batch_size * 10**7, "limit_s": 60 * minutes}
    outcome = once(entry, Case(**endless), SOAK_EVERY_S)
    pairs = outcome.figures["pairs"]
    return {"pairs": pairs, "batches": pairs // case.batch_size, **soak_facts(outcome.memory)}


def _values(
    runs: Sequence[Mapping[str, Any]], soak: Mapping[str, Any] | None
) -> dict[str, list[float]]:
    """Figures of the claims; the smallest size comes first in `runs`, the largest last."""
    ours = [one for one in runs if one["name"] == "cpu"]
    tuned = [one for one in runs if one["name"] == "zip-tuned"]
    small, large = (
        [one for one in ours if one["gb"] == gb] for gb in (ours[0]["gb"], ours[-1]["gb"])
    )
    found = {
        "x_of_zip_tuned": [one["total_mb"] / tuned[-1]["total_mb"] for one in large],
        "x_of_small": [a["total_mb"] / b["total_mb"] for a, b in zip(large, small, strict=True)],
        "first_batch_s": [one["first_batch_s"] for one in large],
    }
    if soak is not None:
        found["growth_mb"] = [soak["growth_mb"]]
    return found


def memory_lines(run: Mapping[str, Any]) -> list[str]:
    """The figures behind the claims, in words."""
    peaks: dict[tuple[str, float], list[float]] = {}
    for one in run["runs"]:
        peaks.setdefault((one["name"], one["gb"]), []).append(one["total_mb"])
    seen = ", ".join(
        f"{name} at {gb:g} GB {statistics.median(found):,.0f} MB"
        for (name, gb), found in peaks.items()
    )
    imports = statistics.median(one["memory_imports_mb"] for one in run["runs"])
    lines = [
        f"Peak of private and shared memory of the process tree over "
        f"{run['config']['pairs'] // run['config']['batch_size']} batches of "
        f"{run['config']['batch_size']} pairs: {seen}; the imports (torch, OpenCV, nvImageCodec) "
        f"are {imports:,.0f} MB of each."
    ]
    soak = run["soak"]
    if soak is not None:
        lines.append(
            f"Soak of {soak['minutes']:.3g} minutes, {soak['batches']:,} batches: median "
            f"{soak['first_third_mb']:,.1f} MB in its first third, {soak['last_third_mb']:,.1f} in "
            f"its last, slope {soak['slope_mb_per_min']:+.2f} MB a minute."
        )
    return lines
