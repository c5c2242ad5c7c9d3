"""How long a data set takes to open, in a fresh process: manifest, index, tables of the plan.

``python -m benchmarks.opening`` reads a `benchmarks.case.Case` as JSON from stdin and writes its
figures as one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from benchmarks.case import Case
from benchmarks.child_process import answer_of
from benchmarks.pairs import pair_config
from benchmarks.proc import memory
from loaders.sets import open_sets
from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["open_once"]

_LIMIT_S = 600


def open_once(case: Case) -> dict[str, Any]:
    """Open a case's data in a process of its own.

    Returns
    -------
    ``open_ms``; ``rows`` of the index; ``memory_mb`` that is held afterwards beyond the imports

    Raises
    ------
    ContestantError : if it fails, or takes longer than ten minutes
    """
    question = json.dumps(case.facts())
    return answer_of("benchmarks.opening", question, _LIMIT_S, f"opening {case.data}")


def main() -> int:
    """Measure what stdin says; the exit status."""
    config = pair_config(Case(**json.load(sys.stdin)))
    before = memory(os.getpid()).own
    started = time.perf_counter()
    try:
        sets = open_sets(config)
    except KNOWN_ERRORS as error:
        sys.stderr.write(one_line(error) + "\n")
        return 1
    open_s = time.perf_counter() - started
    facts = {
        "open_ms": 1e3 * open_s,
        "rows": sum(len(one.index) for one in sets.sets),
        "memory_mb": (memory(os.getpid()).own - before) / 1e6,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
