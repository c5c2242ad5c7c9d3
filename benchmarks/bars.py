"""The promises about local speed, each measured in one run and set beside its bar.

Question: does the ``cpu`` backend cost next to nothing beyond decoding, does it leave both zip
baselines behind, does it scale to a second thread, does it start at once? Method: contestants and
variants of ours (template 127, one thread, data of ten times the shards) in fresh processes, all of
them once in every repeat, in shuffled order; ratios are taken within a repeat; a promise is judged
by the median of at least five. The bars are stated for real pictures, so those of
``$SIAMSTREAM_TEST_DATA`` are packed and used where it is set; else synthetic ones, which says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.case import Case
from benchmarks.claims import Claim, claims_of
from benchmarks.compare import data_facts, sets_text
from benchmarks.contestants import UNIT, Entry, named
from benchmarks.derived import ensure, warm
from benchmarks.limits import FACTOR, SHARDS, same_pictures
from benchmarks.pairs import pair_config
from benchmarks.runner import ContestantError, Outcome, run_once, shuffled, summary
from loaders.sets import open_sets
from packer.everything import pack_all
from shards.errors import DataError

__all__ = ["bars_lines", "measure_bars", "real_data"]

CLAIMS = (
    Claim(key="units_255", what="decode units a pair, 255/255", unit="units", bar=3.2),
    Claim(key="units_127", what="decode units a pair, template 127", unit="units", bar=2.7),
    Claim(key="x_zip_tuned", what="pairs/s against zip-tuned", unit="x", bar=1.4, least=True),
    Claim(
        key="x_zip_region",
        what="pairs/s against zip-tuned with our region decode",
        unit="x",
        bar=1,
        least=True,
    ),
    Claim(key="x_zip_published", what="pairs/s against zip-published", unit="x", bar=5, least=True),
    Claim(
        key="x_one_thread", what="pairs/s, two threads against one", unit="x", bar=1.7, least=True
    ),
    Claim(key="first_batch_s", what="first batch after the imports", unit="s", bar=1),
    Claim(key="first_batch_10x_s", what=f"the same with {FACTOR}x the shards", unit="s", bar=1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A contestant on one case."""

    key: str
    entry: Entry
    case: Case


def real_data(out: Path) -> Path | None:
    """Parent of the packed pictures of ``$SIAMSTREAM_TEST_DATA``, packed at need; None if not set.

    Raises
    ------
    DataError : if a data set that is there cannot be packed
    """
    raw = os.environ.get("SIAMSTREAM_TEST_DATA")
    if not raw:
        return None
    results = list(pack_all(Path(raw), out))
    failed = [f"{one.name}: {one.error}" for one in results if one.state == "failed"]
    if failed:
        raise DataError(f"{raw}: {'; '.join(failed)}")
    return out


def variants(case: Case, small: Path, large: Path) -> Iterator[Variant]:
    """Everything that runs in one repeat.

    Parameters
    ----------
    case : with template 255 and two threads
    small, large : data sets of few and of ten times as many shards, for the first batch
    """
    cpu, tuned, region, published, unit = (
        named([name])[0] for name in ("cpu", "zip-tuned", "zip-region", "zip-published", UNIT)
    )
    yield Variant(key="cpu", entry=cpu, case=case)
    yield Variant(key="cpu_127", entry=cpu, case=replace(case, template_px=127))
    yield Variant(key="cpu_one_thread", entry=cpu, case=replace(case, threads=1))
    yield Variant(key="zip_tuned", entry=tuned, case=case)
    yield Variant(key="zip_region", entry=region, case=case)
    yield Variant(key="zip_published", entry=published, case=case)
    yield Variant(key="unit", entry=unit, case=case)
    few = replace(case, pairs=case.batch_size, warmup_batches=1)
    yield Variant(key="start", entry=cpu, case=replace(few, data=str(small)))
    yield Variant(key="start_10x", entry=cpu, case=replace(few, data=str(large)))


def claimed(run: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What one repeat says about every claim.

    Parameters
    ----------
    run : figures by key of variant
    """
    unit_ms = run["unit"]["cpu_ms_per_pair"] / 2  # two pictures a pair
    speed = run["cpu"]["pairs_per_s"]
    return {
        "units_255": run["cpu"]["cpu_ms_per_pair"] / unit_ms,
        "units_127": run["cpu_127"]["cpu_ms_per_pair"] / unit_ms,
        "x_zip_tuned": speed / run["zip_tuned"]["pairs_per_s"],
        "x_zip_region": speed / run["zip_region"]["pairs_per_s"],
        "x_zip_published": speed / run["zip_published"]["pairs_per_s"],
        "x_one_thread": speed / run["cpu_one_thread"]["pairs_per_s"],
        "first_batch_s": max(run["cpu"]["first_batch_s"], run["start"]["first_batch_s"]),
        "first_batch_10x_s": run["start_10x"]["first_batch_s"],
    }


def measure_bars(
    case: Case,
    repeats: int,
    command: str,
    warm_limit_bytes: int,
    told: Callable[[str], None],
    once: Callable[[Entry, Case], Outcome] = run_once,
) -> dict[str, Any]:
    """Measure every claim.

    Parameters
    ----------
    case : the work, with template 255 and two threads
    repeats : rounds
    command : that repeats it, for the result
    warm_limit_bytes : data larger than this are not read into the page cache beforehand
    told : called with lines of progress
    once : runs a contestant

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("bars", command)
    sets = open_sets(pair_config(case))
    for note in sets.warnings:
        told(f"Warning: {note}")
    warm(ensure(Path(case.data), case.derived_folder, ("legacy",)), warm_limit_bytes)
    shards = (SHARDS, SHARDS * FACTOR)
    small, large = (case.derived_folder / f"shards-{count}" for count in shards)
    for folder, count in zip((small, large), shards, strict=True):
        same_pictures(folder, count)
    everything = list(variants(case, small, large))
    rounds: list[dict[str, dict[str, Any]]] = []
    for repeat in range(repeats):
        figures: dict[str, dict[str, Any]] = {}
        for one in shuffled(everything, case.seed, repeat):
            outcome = once(one.entry, one.case)
            if outcome.absent is not None:
                raise ContestantError(f"{one.entry.name} cannot run here: {outcome.absent}")
            figures[one.key] = outcome.figures
            told(
                f"repeat {repeat + 1}/{repeats}, {one.key}: "
                f"{outcome.figures['pairs_per_s']:,.0f} pairs/s, "
                f"{outcome.figures['cpu_ms_per_pair']:.2f} CPU ms"
            )
        rounds.append(figures)
    values = [claimed(figures) for figures in rounds]
    return {
        **run,
        "config": case.facts(),
        "repeats": repeats,
        "data": {"datasets": data_facts(sets)},
        "decode_unit_ms": summary([one["unit"]["cpu_ms_per_pair"] / 2 for one in rounds]),
        "others_cores_busy": summary(
            [figures["others_cores_busy"] for one in rounds for figures in one.values()]
        ),
        "claims": claims_of(CLAIMS, {key: [one[key] for one in values] for key in values[0]}),
        "runs": rounds,
    }


def bars_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the claims."""
    config, sets = run["config"], sets_text(run["data"]["datasets"])
    return [
        f"cpu backend, uint8, {config['threads']} threads, on {sets}; median of "
        f"{run['repeats']} repeats of {config['pairs']:,} pairs in batches of "
        f"{config['batch_size']}, ratios within a repeat.",
        f"One decode unit is the CPU time of one whole simplejpeg decode of the same crops in the "
        f"same repeat, {run['decode_unit_ms']['median']:.2f} ms here. Other programs kept "
        f"{run['others_cores_busy']['median']:.1f} cores busy meanwhile.",
    ]
