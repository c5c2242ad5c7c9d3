"""Environments of their own for peers that cannot live beside our packages.

An environment is a virtual one below `HOME` that sees every package of ours (torch is not installed
twice), with the peer's own on top. A peer whose environment is not there is absent from a run, and
the reason names the command that makes it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["HOME", "interpreter"]

HOME = Path(os.environ.get("SIAMSTREAM_PEERS", "data/bench-peers"))


def interpreter(env: str | None) -> Path | None:
    """Python of a contestant's environment, or None if that has not been made.

    Parameters
    ----------
    env : its name; None: the environment of this process
    """
    if env is None:
        return Path(sys.executable)
    python = HOME / env / "bin" / "python"
    return python if python.exists() else None
