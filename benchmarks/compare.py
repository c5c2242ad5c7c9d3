"""One comparison of loaders: data checked and warmed, rounds run, everything noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.case import Case
from benchmarks.contestants import SERVER, UNIT, Entry
from benchmarks.derived import ensure, warm
from benchmarks.pairs import pair_config, works
from benchmarks.peer_forms import conversions
from benchmarks.runner import Outcome, run_once, run_rounds, summary
from benchmarks.slow_server import slow_server
from loaders.sets import DataSets, open_sets

__all__ = ["compare", "data_facts", "pair_kb", "sets_text"]

DELAY_MS = 30.0  # of the server, before each answer: an object store's


def compare(
    entries: Sequence[Entry],
    case: Case,
    repeats: int,
    command: str,
    warm_limit_bytes: int,
    told: Callable[[str], None],
    once: Callable[[Entry, Case], Outcome] = run_once,
) -> dict[str, Any]:
    """Run a comparison.

    Parameters
    ----------
    entries : contestants
    case : the work
    repeats : rounds
    command : that repeats it, for the result
    warm_limit_bytes : data larger than this are not read into the page cache beforehand
    told : called with lines of progress
    once : runs a contestant

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("loaders", command)
    sets = open_sets(pair_config(case))
    for note in sets.warnings:
        told(f"Warning: {note}")
    forms = tuple(sorted({form for entry in entries for form in entry.needs} - {SERVER}))
    files = ensure(Path(case.data), case.derived_folder, forms)
    read = warm(files, warm_limit_bytes)
    with _server(entries, case, told) as (url, server):
        contestants, absent = run_rounds(entries, replace(case, url=url), repeats, told, once)
    units = next((one for one in contestants if one["name"] == UNIT), None)
    return {
        **run,
        "config": case.facts(),
        "repeats": repeats,
        "server": server,
        "conversions": conversions(forms, Path(case.data), case.derived_folder),
        "data": {
            "datasets": data_facts(sets),
            "page_cache": "not warmed" if read is None else "warm",
            "encoded_kb_per_pair": pair_kb(sets, case),
        },
        "decode_unit_ms": units
        and summary([one["cpu_ms_per_pair"] / 2 for one in units["repeats"]]),
        "contestants": contestants,
        "absent": absent,
    }


@contextmanager
def _server(
    entries: Sequence[Entry], case: Case, told: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """URL of a slow server of the data and its facts, where a contestant needs one."""
    if case.url or not any(SERVER in entry.needs for entry in entries):
        yield case.url, None
        return
    with slow_server(Path(case.data), DELAY_MS, 0.0, told) as (url, name):
        yield url, {"name": name, "delay_ms": DELAY_MS}


def data_facts(sets: DataSets) -> list[dict[str, Any]]:
    """What a reader must know of the data sets of a run."""
    return [
        {
            "name": one.manifest.name,
            **one.manifest.counts,
            "weight": one.weight,
            "shards": len(one.manifest.shards),
            "crop_px": one.manifest.crop_size,
            "grid": one.manifest.grid,
            "quality": one.manifest.quality,
            "mean_jpeg_kb": float(np.mean(one.index.size)) / 1e3,
            "p5_p95_jpeg_kb": (np.quantile(one.index.size, [0.05, 0.95]) / 1e3).tolist(),
            "index_sha256": one.manifest.index["sha256"],
            "synthetic": bool(one.manifest.options.get("synthetic", False)),
        }
        for one in sets.sets
    ]


def sets_text(datasets: Sequence[Mapping[str, Any]]) -> str:
    """Data sets in words, from their `data_facts`."""
    return ", ".join(
        f"{one['name']} ({one['frames']:,} crops of {one['crop_px']}x{one['crop_px']}, "
        f"{'quality unknown' if one['quality'] is None else 'quality {}'.format(one['quality'])}, "
        f"{one['mean_jpeg_kb']:.1f} KB on average{', synthetic' if one['synthetic'] else ''})"
        for one in datasets
    )


def pair_kb(sets: DataSets, case: Case) -> float:
    """Encoded bytes of a counted pair on average, in KB: what every contestant must read."""
    total = pairs = 0
    for number, work in enumerate(works(case, sets)):
        if case.warmup_batches <= number < case.warmup_batches + case.batches:
            for crops in (work.template, work.search):
                for source, row in zip(crops.sources, crops.rows, strict=True):
                    total += int(source.index.size[row])
            pairs += len(work)
    return total / pairs / 1e3
