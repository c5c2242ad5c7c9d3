"""Ours over HTTP: the plan's pairs from a server that answers late, with an empty cache every run.

The comparison starts the server (`benchmarks.slow_server`) on the same machine; its work counts as
that of other programs, and takes from the cores all the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import loaders.cpu
import loaders.remote  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader
from loaders.remote import RemoteConfig
from shards.errors import DataError

label = "siamstream cpu, remote, cold cache"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` over ``case.url``.

    Raises
    ------
    DataError : if the case has no URL
    """
    if not case.url:
        raise DataError(
            "cpu-remote needs a server of the data; 'python -m benchmarks loaders' starts one"
        )
    with tempfile.TemporaryDirectory(prefix="siamstream-cache-") as cache:
        yield from serve_loader(case, "cpu", path=case.url, remote=RemoteConfig(cache_dir=cache))
