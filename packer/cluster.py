"""A Dask cluster as the executor of shard jobs. Needs `distributed` (the extra ``cluster``).

The scheduler gives jobs of a lost worker to another. That is harmless: every writer has temporary
names of its own, and the last rename puts equal bytes in the place of equal bytes.
"""

from __future__ import annotations

import gc
import importlib
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from packer.sequence import named
from shards.errors import SiamstreamError, one_line

__all__ = ["Crew", "check_address", "connected"]

CONNECT_S = 15
# Jobs are queued at the scheduler for at least so many threads, for a cluster that grows.
LEAST_THREADS = 64
_ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^/\s]+:[0-9]{1,5}/?")
_JOBS = "packer.workers"  # the module that scheduler and workers must have
_AGAIN = "complete shards are kept: run the same command again to go on"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crew:
    """An executor, and how many jobs it runs at a time."""

    executor: Executor
    workers: int


def check_address(address: str) -> str:
    """Return an address of a scheduler.

    Raises
    ------
    ValueError : if it is none
    """
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r}: expected the address of a scheduler, as in tcp://host:8786")
    return address


@contextmanager
def connected(address: str, tell: Callable[[str], None]) -> Iterator[Crew]:
    """Connect to a scheduler for the time of a block.

    Parameters
    ----------
    address : ``tcp://host:8786``
    tell : takes a line for the user

    Raises
    ------
    SiamstreamError : if Dask is not installed or does not answer, if siamstream is not installed
        on all its machines, if the scheduler is lost, or if several workers die of the same job
    """
    client_class, killed = _dask()
    # A lost scheduler is told below, in one line; Dask's tasks tell of it again when they go.
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    client = None
    try:
        client = client_class(address, timeout=CONNECT_S, set_as_default=False)
        _check(client, address)
        threads = sum(client.nthreads().values())
        if not threads:
            tell(f"{address}: no worker is there yet; waiting for one")
        yield Crew(executor=client.get_executor(), workers=max(threads, LEAST_THREADS))
    except killed as error:
        raise SiamstreamError(
            f"{address}: several workers died of the same job (killed for their memory?): "
            f"{one_line(error)}; {_AGAIN}"
        ) from error
    except CancelledError as error:
        raise SiamstreamError(
            f"{address}: the connection to the scheduler was lost; {_AGAIN}"
        ) from error
    except OSError as error:
        if client is not None:
            raise
        raise SiamstreamError(
            f"{address}: no Dask scheduler answers there ({one_line(error)}); start one with "
            "'dask scheduler', workers with 'dask worker ADDRESS --nthreads 1'"
        ) from error
    finally:
        if client is not None:
            client.close(timeout=CONNECT_S)
        gc.collect()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(client: Any, address: str) -> None:
    """Refuse a cluster that would fail at the first job, or wait for ever."""
    found: dict[str, Any] = {"the scheduler": None}
    found |= client.run(importlib.import_module, _JOBS, on_error="return")
    try:
        client.run_on_scheduler(importlib.import_module, _JOBS)
    except ImportError as error:
        found["the scheduler"] = error
    without = [machine for machine, answer in found.items() if isinstance(answer, Exception)]
    if without:
        raise SiamstreamError(
            f"{address}: siamstream cannot be imported by {named(without)} "
            f"({one_line(found[without[0]])}); scheduler and workers need the same installation "
            "as this machine"
        )


def _dask() -> tuple[Any, type[Exception]]:
    """Client class of Dask, and its error for a job that kills workers."""
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise SiamstreamError(
            "--scheduler needs the packages dask and distributed: pip install 'siamstream[cluster]'"
        ) from error
    return Client, KilledWorker
