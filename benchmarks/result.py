"""The JSON of a run: written complete, read with a check of its schema."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environment import describe
from shards.errors import FormatError
from shards.storage import FolderSink

__all__ = ["SCHEMAS", "read", "start", "write"]

# By kind of result; raised when a key changes its name or meaning.
SCHEMAS = {
    "loaders": 3, "bars": 1, "memory": 1,
    "remote": 2, "costs": 2, "limits": 1, "pack": 1, "sequential": 1,
    "learn": 1, "step": 1, "train": 1, "scale": 1,
}  # fmt: skip


def start(kind: str, command: str) -> dict[str, Any]:
    """First keys of a result.

    Parameters
    ----------
    kind : which benchmark
    command : that repeats it
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return {
        "schema": SCHEMAS[kind],
        "kind": kind,
        "made_utc": now.isoformat(),
        "command": command,
        "environment": describe(),
    }


def write(path: Path, run: Mapping[str, Any]) -> None:
    """Write a result; the file appears complete.

    Raises
    ------
    StorageError : if it cannot be written
    """
    FolderSink(path.parent).write(path.name, json.dumps(run, indent=1).encode() + b"\n")


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read a result.

    Raises
    ------
    FormatError : if it is absent, damaged, of another kind or of another schema
    """
    again = f"make it again with 'python -m benchmarks {kind} --json {path}'"
    try:
        run: dict[str, Any] = json.loads(path.read_bytes())
        found = run["schema"], run["kind"]
    except FileNotFoundError as error:
        raise FormatError(f"{path}: no such result; {again}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a benchmark result ({error!r}); {again}") from error
    if found != (SCHEMAS[kind], kind):
        raise FormatError(
            f"{path}: schema {found[0]} of '{found[1]}', expected {SCHEMAS[kind]} of '{kind}'; "
            f"{again}"
        )
    return run
