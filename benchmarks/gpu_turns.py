"""A contestant of ``benchmarks gpu`` in a process that stays: it is measured block after block.

Imports, a CUDA context and DALI's libraries take ten seconds, more than all the blocks of a
contestant. While others have their turn it is idle: what it makes ahead is full, and dropped at the
beginning of its own block.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Mapping
from typing import Any

from benchmarks.asked_process import answer_orders
from benchmarks.case import LEAST_ROUNDS, TAIL_BATCHES, Case
from benchmarks.contestants import Module, absence, load, serving
from benchmarks.gpu_facts import Facts
from benchmarks.proc import cpu_s, memory
from shards.errors import SiamstreamError

__all__ = ["LIMIT", "Turns"]

LIMIT = "decode-only"  # DALI's decoder alone, which is no contestant of other benchmarks


def _decoded(own: Facts) -> Generator[int, None, None]:
    """Pairs of each batch that DALI's decoder alone makes."""
    from benchmarks.gpu_decode import DISTINCT_PAIRS, Decoder, planned

    settings = own.settings
    batches = planned(own, max(2, DISTINCT_PAIRS // settings.batch_pairs))
    decoder = Decoder(settings, batches, own.is_dry)
    while True:
        yield decoder.run() // 2


def _served(name: str, module: Module, case: Case) -> Generator[int, None, None]:
    """Pairs of each batch that a contestant hands over, which must be the planned ones."""
    first = 0
    with serving(module, case) as batches:
        for served in batches:
            count = len(served.sample)
            if served.sample != list(range(first, first + count)):
                raise SiamstreamError(f"{name} handed over other samples than were planned")
            first += count
            yield count


class Turns:
    """See the module; the first batch is made at once.

    Parameters
    ----------
    setup : ``name`` of the contestant, ``contestant`` as its module is called, ``facts`` of
        `Facts`, and its ``case``

    Attributes
    ----------
    facts : ``label``, or ``absent`` with the reason
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._name, self._case = setup["name"], Case(**setup["case"])
        self._pairs: Generator[int, None, None] | None = None
        if self._name == LIMIT:
            label, self._pairs = "limit: DALI's decoder alone", _decoded(Facts.read(setup["facts"]))
        else:
            module = load(setup["contestant"])
            reason = absence(module)
            if reason:
                self.facts: dict[str, Any] = {"absent": reason}
                return
            label, self._pairs = module.label, _served(self._name, module, self._case)
        next(self._pairs)
        self.facts = {"label": label}

    def block(self, seconds: float) -> dict[str, Any]:
        """Figures of one block, whole rounds of batches over at least so many seconds."""
        assert self._pairs is not None
        threads, root = self._case.threads, os.getpid()
        batches = pairs = 0
        try:
            for _ in range(max(TAIL_BATCHES, 2 * threads)):
                next(self._pairs)
            used, started = cpu_s(root), time.perf_counter()
            while (
                batches < LEAST_ROUNDS * threads
                or batches % threads
                or time.perf_counter() - started < seconds
            ):
                pairs += next(self._pairs)
                batches += 1
        except StopIteration:
            raise SiamstreamError(f"{self._name}: more pairs were asked for than planned") from None
        wall_s, used = time.perf_counter() - started, cpu_s(root) - used
        return {
            "pairs_per_s": pairs / wall_s,
            "cpu_ms_per_pair": 1e3 * used / pairs,
            "cores_busy": used / wall_s,
            "host_mb": memory(root).own / 1e6,
        }

    def close(self) -> None:
        """End it."""
        if self._pairs is not None:
            self._pairs.close()


if __name__ == "__main__":
    sys.exit(answer_orders(Turns))
