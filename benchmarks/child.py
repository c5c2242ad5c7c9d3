"""One contestant in a process of its own: imports, warm-up, clock, figures.

Started by `benchmarks.runner` as ``python -m benchmarks.child NAME`` with the case as JSON on
stdin. It writes one JSON object a line on stdout: ``absent`` or ``imported``, then ``result``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.case import LEAST_ROUNDS, Case
from benchmarks.contestants import Module, absence, load, serving
from benchmarks.peers import how_to_add, is_peer
from benchmarks.proc import cpu_s, machine_cpu_s, memory, reads
from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["main", "measure"]


def measure(module: Module, case: Case) -> dict[str, Any]:
    """Run a contestant and take its figures.

    Parameters
    ----------
    module : of the contestant
    case : the work

    Returns
    -------
    ``pairs``, ``wall_s``, ``cpu_s`` (of the whole tree) and ``others_cpu_s`` (of all other programs
    on the machine) of the counted batches; ``first_batch_s`` since the call; ``samples_sha256`` of
    all sample numbers handed over; ``disk_read_bytes`` and ``asked_bytes`` since the call,
    ``asked_counted_bytes`` of the counted batches; shape and type of the pixels; ``memory_end`` of
    the tree
    """
    root, samples = os.getpid(), hashlib.sha256()
    cpu_start = wall_start = machine_start = first_batch_s = 0.0
    pairs, served = 0, None
    at_call = at_clock = reads(root)
    started = time.perf_counter()
    with serving(module, case) as batches:
        for number in range(case.warmup_batches + case.batches):
            served = next(batches)
            if number == 0:
                first_batch_s = time.perf_counter() - started
            samples.update(json.dumps(served.sample).encode())
            if number == case.warmup_batches - 1:
                # As at the end: the clock first, for workers go on while the counters are read.
                wall_start = time.perf_counter()
                cpu_start, machine_start = cpu_s(root), machine_cpu_s()
                at_clock = reads(root)
            elif number >= case.warmup_batches:
                pairs += len(served.sample)
                rounds, within = divmod(number + 1 - case.warmup_batches, case.threads)
                if (
                    case.limit_s
                    and within == 0
                    and rounds >= LEAST_ROUNDS
                    and time.perf_counter() - wall_start >= case.limit_s
                ):
                    break
        wall, cpu = time.perf_counter() - wall_start, cpu_s(root) - cpu_start
        machine = machine_cpu_s() - machine_start
        at_end = reads(root)
        assert served is not None
        pixels = served.search
        return {
            "pairs": pairs,
            "wall_s": wall,
            "cpu_s": cpu,
            "others_cpu_s": max(0.0, machine - cpu),
            "first_batch_s": first_batch_s,
            "samples_sha256": samples.hexdigest(),
            "disk_read_bytes": at_end.disk - at_call.disk,
            "asked_bytes": at_end.asked - at_call.asked,
            "asked_counted_bytes": at_end.asked - at_clock.asked,
            "search_shape": None if pixels is None else list(pixels.shape),
            "pixel_type": None if pixels is None else str(pixels.dtype).removeprefix("torch."),
            "memory_end": asdict(memory(root)),
        }


def _tell(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def main(name: str) -> int:
    """Measure the contestant `name`; the exit status."""
    case = Case(**json.load(sys.stdin))
    try:
        module = load(name)
    except ImportError as error:
        hint = f"; add it with {how_to_add(name)}" if is_peer(name) else ""
        _tell("absent", reason=f"needs a package that is not installed: {error}{hint}")
        return 0
    reason = absence(module)
    if reason:
        _tell("absent", reason=reason)
        return 0
    _tell("imported", label=module.label, **asdict(memory(os.getpid())))
    try:
        result = measure(module, case)
    except KNOWN_ERRORS as error:
        _tell("failed", reason=one_line(error))
        return 1
    _tell("result", **result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
