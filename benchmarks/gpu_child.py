"""A part of ``benchmarks gpu``, or a step of one, in this process; see `benchmarks.gpu_process`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["WORKS", "Talk", "main"]

# Name -> module and function, which takes facts and a `Talk` and returns what it found.
WORKS = {
    "environment": ("gpu_checks", "environment"),
    "check": ("gpu_checks", "check"),
    "parity": ("gpu_parity", "parity"),
    "parity-best": ("gpu_parity", "parity"),
    "decode": ("gpu_decode", "decode"),
    "sweep": ("gpu_decode", "sweep"),
    "decode-only": ("gpu_decode", "decode_only"),
    "loaders": ("gpu_loaders", "loaders"),
    "train": ("gpu_train", "train"),
    "faults": ("gpu_faults", "faults"),
    "fault": ("gpu_faults", "fault"),
}


class Talk:
    """What a work tells the process that asked for it.

    Parameters
    ----------
    limit_s : seconds from now in which the work should be done
    """

    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds left, 0 at least."""
        return max(0.0, self._end - time.monotonic())

    def say(self, text: str) -> None:
        """Tell progress."""
        _write(said=text.strip())

    def found(self, found: Mapping[str, Any]) -> None:
        """Tell everything found so far, in case the rest is not reached."""
        _write(found=found)


def _write(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(name: str) -> int:
    """Do one work; the exit status."""
    facts = json.load(sys.stdin)
    module, function = WORKS[name]
    talk = Talk(facts.get("seconds", 3600.0))
    try:
        work = getattr(import_module(f"benchmarks.{module}"), function)
        found = work(facts, talk)
    except (*KNOWN_ERRORS, ImportError) as error:
        _write(failed=one_line(error))
        return 1
    _write(found=found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
