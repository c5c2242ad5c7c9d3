"""The JSON of a run: written complete, checked against its schema when written and when read."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environment import describe
from benchmarks.schema import fault
from shards.errors import FormatError
from shards.storage import FolderSink

__all__ = ["SCHEMAS", "read", "start", "write"]

# By kind of result; raised when a key changes its name or meaning.
SCHEMAS = {
    "loaders": 3, "sweep": 1, "bars": 1, "memory": 1,
    "remote": 2, "costs": 2, "limits": 1, "pack": 1, "sequential": 1,
    "learn": 1, "step": 1, "train": 1, "gpu": 1, "quick": 1, "scale": 1,
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
    """Write a result, with the seconds since its start; the file appears complete.

    Raises
    ------
    StorageError : if it cannot be written
    FormatError : if it does not fit its schema; it is written all the same, for what was measured
        may have taken long
    """
    if "took_s" not in run:
        begun = datetime.datetime.fromisoformat(run["made_utc"])
        took = (datetime.datetime.now(datetime.UTC) - begun).total_seconds()
        run = {**run, "took_s": round(took)}
    text = json.dumps(run, indent=1).encode() + b"\n"
    FolderSink(path.parent).write(path.name, text)
    wrong = fault(text, run["kind"])
    if wrong:
        raise FormatError(
            f"{path}: written, but it does not fit the schema of '{run['kind']}': {wrong}; "
            "bring benchmarks/schema.py and what is measured together"
        )


def read(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a result.

    Parameters
    ----------
    path : of the file
    kind : that it must be of; None: of any that there is

    Raises
    ------
    FormatError : if it is absent, damaged, of another kind or does not fit its schema
    """
    again = f"make it again with 'python -m benchmarks {kind or 'KIND'} --json {path}'"
    try:
        text = path.read_bytes()
        run: dict[str, Any] = json.loads(text)
        found = run["schema"], run["kind"]
    except FileNotFoundError as error:
        raise FormatError(f"{path}: no such result; {again}") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a benchmark result ({error!r}); {again}") from error
    if kind is None and found[1] not in SCHEMAS:
        raise FormatError(f"{path}: of kind '{found[1]}'; known are {', '.join(SCHEMAS)}")
    kind = kind or str(found[1])
    if found != (SCHEMAS[kind], kind):
        raise FormatError(
            f"{path}: schema {found[0]} of '{found[1]}', expected {SCHEMAS[kind]} of '{kind}'; "
            f"{again}"
        )
    wrong = fault(text, kind)
    if wrong:
        raise FormatError(f"{path}: {wrong}; {again}")
    return run
