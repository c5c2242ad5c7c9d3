"""Shards behind a slow and faulty server beside the same shards on disk.

A server of files (nginx) stands behind our own faulty one, which answers 30 ms late and refuses 1 %
of the requests with 503. In every repeat three fresh processes read the same pairs for a consumer
of 100 pairs/s: from disk, over the server with an empty cache, and over it once more with the cache
that the second one left. Their order is turned round in every other repeat, as far as it can be.

A picture that is read twice in a run is fetched once, so the second time costs the network nothing:
the data must be so many that this hardly happens. Those made by default hold few distinct pictures
under many names, in many places of many shards, and are read at each of them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.child_process import answer_of
from benchmarks.claims import Claim, claims_of
from benchmarks.compare import data_facts, sets_text
from benchmarks.memory import repeated_pictures
from benchmarks.paced import Paced, as_json, picture_sizes
from benchmarks.slow_server import slow_server
from loaders.sets import open_sets
from shards.errors import DataError
from shards.format import MANIFEST_NAME

__all__ = ["RemoteCase", "measure_remote", "paced_run", "remote_data", "remote_lines"]

REMOTE_GB = 2.0  # more than twenty times the pictures that 30 batches read
_LIMIT_S = 600

CLAIMS = (
    Claim(key="wait_percent", what="cold cache: time that the consumer waits", unit="%", bar=5),
    Claim(key="cpu_ratio", what="cold cache: CPU a pair, beside local", unit="x", bar=1.5),
    Claim(key="bytes_ratio", what="bytes fetched, beside those needed", unit="x", bar=1.3),
    Claim(key="warm_wait_percent", what="warm cache: time that it waits", unit="%", bar=5),
    Claim(key="warm_cpu_ratio", what="warm cache: CPU a pair, beside local", unit="x", bar=1.5),
    Claim(key="warm_bytes_ratio", what="warm cache: fetched, beside needed", unit="x", bar=0.01),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteCase:
    """What is measured.

    Attributes
    ----------
    data : a packed data set, or a parent of such
    batches : of 32 pairs, counted in a run
    repeats : of everything
    pairs_per_s : that the consumer takes
    delay_ms, refuse : of the server: before each answer; share of the requests answered by 503
    threads : that decode
    most_repeats : share of the pictures of a run that it may have read before
    """

    data: str
    batches: int
    repeats: int
    pairs_per_s: float = 100.0
    delay_ms: float = 30.0
    refuse: float = 0.01
    threads: int = 2
    most_repeats: float = 0.05

    def paced(self, path: str, cache_dir: str) -> Paced:
        """One run over the data at a path."""
        return Paced(
            path=path,
            cache_dir=cache_dir,
            pairs_per_s=self.pairs_per_s,
            batches=self.batches,
            threads=self.threads,
        )


def remote_data(folder: Path, told: Callable[[str], None]) -> None:
    """Make the default data, or find them."""
    if not (folder / MANIFEST_NAME).is_file():
        told(f"{folder}: making {REMOTE_GB:g} GB of shards")
    repeated_pictures(folder, REMOTE_GB)


def _data(case: RemoteCase) -> dict[str, Any]:
    """Facts of the data, and how many pictures a run reads of them.

    Raises
    ------
    DataError : if it reads too many of them twice
    """
    paced = case.paced(case.data, "")
    with closing(open_sets(paced.config())) as sets:
        distinct, read = len(picture_sizes(sets, paced)), 2 * paced.batch_size * paced.announced
        facts = data_facts(sets)
    share = 1 - distinct / read
    if share > case.most_repeats:
        raise DataError(
            f"{case.data}: {100 * share:.0f} % of the {read:,} pictures that a run reads were read "
            f"before in it, and cost the network nothing; at most {100 * case.most_repeats:g} % "
            "may be: give --data with more pictures, or fewer --batches"
        )
    return {"datasets": facts, "pictures_read": read, "repeated_share": share}


def paced_run(paced: Paced) -> dict[str, Any]:
    """Figures of a run in a process of its own."""
    return answer_of("benchmarks.paced", as_json(paced), _LIMIT_S, f"reading {paced.path}")


def one_repeat(case: RemoteCase, url: str, local_first: bool) -> dict[str, dict[str, Any]]:
    """Figures of reading ``local``, ``cold`` and ``warm``."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="siamstream-cache-") as cache:
        order = ["local", "cold", "warm"] if local_first else ["cold", "warm", "local"]
        for name in order:
            found[name] = paced_run(case.paced(case.data if name == "local" else url, cache))
    return found


def _claims(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Figures of one repeat under the keys of `CLAIMS`; ratios are taken within it."""
    values: dict[str, float] = {}
    for name, prefix in (("cold", ""), ("warm", "warm_")):
        one = found[name]
        fetched = one["remote_bytes"] - one["opening_bytes"]
        values[f"{prefix}wait_percent"] = 100 * one["wait_share"]
        values[f"{prefix}cpu_ratio"] = one["cpu_ms"] / found["local"]["cpu_ms"]
        values[f"{prefix}bytes_ratio"] = fetched / one["needed_bytes"]
    return values


def measure_remote(case: RemoteCase, command: str, told: Callable[[str], None]) -> dict[str, Any]:
    """Measure every claim.

    Parameters
    ----------
    case : what to measure
    command : that repeats it, for the result
    told : called with lines of progress

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("remote", command)
    data = _data(case)
    told(f"{100 * data['repeated_share']:.1f} % of {data['pictures_read']:,} pictures repeat")
    repeats, values = [], []
    with slow_server(Path(case.data), case.delay_ms, case.refuse, told) as (url, server):
        for number in range(case.repeats):
            found = one_repeat(case, url, local_first=number % 2 == 0)
            repeats.append(found)
            values.append(_claims(found))
            said = ", ".join(
                f"{name} {found[name]['cpu_ms']:.2f} ms a pair, waiting "
                f"{100 * found[name]['wait_share']:.1f} %"
                for name in ("local", "cold", "warm")
            )
            told(f"repeat {number + 1}/{case.repeats}: {said}")
    return {
        **run,
        "config": {
            "server": server,
            "batches": case.batches,
            "batch_size": case.paced("", "").batch_size,
            "repeats": case.repeats,
            "pairs_per_s": case.pairs_per_s,
            "delay_ms": case.delay_ms,
            "refuse": case.refuse,
            "threads": case.threads,
        },
        "data": data,
        "runs": repeats,
        "medians": {
            name: {
                key: statistics.median(one[name][key] for one in repeats)
                for key in repeats[0][name]
            }
            for name in ("local", "cold", "warm")
        },
        "claims": claims_of(CLAIMS, {key: [one[key] for one in values] for key in values[0]}),
    }


def remote_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the claims."""
    config, data = run["config"], run["data"]
    behind = "nginx" if config["server"] == "nginx" else "a server in Python"
    return [
        f"{behind} behind a server of ours that answers {config['delay_ms']:g} ms late and refuses "
        f"{100 * config['refuse']:g} % of the requests with 503; a consumer takes "
        f"{config['pairs_per_s']:g} pairs/s, {config['threads']} threads decode; "
        f"{config['batches']} batches of {config['batch_size']}, median of {config['repeats']} "
        "repeats, ratios within a repeat.",
        f"Data: {sets_text(data['datasets'])}. Of the {data['pictures_read']:,} pictures that a "
        f"run reads, {100 * data['repeated_share']:.1f} % were read before in it.",
    ]
