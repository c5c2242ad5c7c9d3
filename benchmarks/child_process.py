"""Processes of this package beside the one that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from shards.errors import SiamstreamError

__all__ = ["ROOT", "ContestantError", "answer_of", "child_env", "last_words"]

ROOT = Path(__file__).resolve().parent.parent
_LAST_LINES = 3  # of what a process that failed said


class ContestantError(SiamstreamError):
    """A contestant failed, or did other work than it was given."""


def child_env() -> dict[str, str]:
    """Environment in which ``python -m benchmarks.NAME`` is found, whatever the working folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def last_words(said: str) -> str:
    """Last lines of what a process said before it failed, on one line."""
    return " | ".join(said.strip().splitlines()[-_LAST_LINES:])


def answer_of(module: str, question: str, limit_s: float, what: str) -> dict[str, Any]:
    """Ask a module that takes JSON on stdin and answers with one JSON object on stdout.

    Parameters
    ----------
    module : run as ``python -m``
    question : JSON
    limit_s : after so many seconds it is killed
    what : that it does, for messages

    Raises
    ------
    ContestantError : if it fails, or takes longer
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", module],
            input=question,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env=child_env(),
        )
    except subprocess.TimeoutExpired as error:
        raise ContestantError(
            f"{what} took longer than {limit_s:g} s; is its storage there?"
        ) from error
    if child.returncode:
        raise ContestantError(f"{what} failed: {last_words(child.stderr)}")
    facts: dict[str, Any] = json.loads(child.stdout)
    return facts
