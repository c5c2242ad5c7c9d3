"""Which result files of a tracker were made from what, so that none is made twice or mixed.

``<out>/ledgers/<data set>/<tracker>.jsonl``: the first line says what made them, each further line
is a finished sequence with a fingerprint of its data and of its result. A line is appended only
after the result file is whole; of a line that a killed process left torn nothing is believed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import MismatchError
from shards.sink import FolderSink
from tracker.results import FOLDERS
from tracker.sequences import Dataset, VideoSequence

__all__ = ["Ledger", "data_fingerprint", "drop_other", "opened", "read_ledger"]

SHOWN_CHARACTERS = 60
ELSEWHERE = "give another --name or --out"


def data_fingerprint(sequence: VideoSequence) -> str:
    """Digits that change with what a tracker is given: picture names, first box, file sizes."""
    digest = hashlib.sha256(sequence.boxes[0].tobytes())
    digest.update("\n".join(frame.name for frame in sequence.frames).encode())
    for frame in sequence.frames:
        digest.update(b"%d," % (frame.stat().st_size if frame.is_file() else -1))
    return digest.hexdigest()


@dataclass(slots=True)
class Ledger:
    """Entries of a tracker; `done` by sequence: fingerprints of data and result, notes."""

    made_by: Mapping[str, str]
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    handle: BinaryIO | None = None

    def has(self, sequence: VideoSequence, path: Path, data: str) -> bool:
        """Tell whether the result file of a sequence is there, whole, and of the same data."""
        entry = self.done.get(sequence.name)
        if entry is None or entry["data"] != data or not path.is_file():
            return False
        return bool(entry["result"] == hashlib.sha256(path.read_bytes()).hexdigest())

    def add(self, sequence: str, data: str, result: bytes, notes: tuple[str, ...]) -> None:
        """Append a finished sequence."""
        entry = {
            "sequence": sequence,
            "data": data,
            "result": hashlib.sha256(result).hexdigest(),
            "notes": list(notes),
        }
        self.done[sequence] = entry
        if self.handle is not None:
            self.handle.write(json.dumps(entry).encode() + b"\n")
            self.handle.flush()
            os.fsync(self.handle.fileno())


def _path(out: Path, dataset: Dataset, tracker: str) -> Path:
    return out / "ledgers" / FOLDERS[dataset] / f"{tracker}.jsonl"


def read_ledger(out: Path, dataset: Dataset, tracker: str) -> Ledger | None:
    """Entries of a tracker; None if its results were not made here."""
    path = _path(out, dataset, tracker)
    if not path.is_file():
        return None
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn when its writer was killed
        if isinstance(entry, dict) and line.endswith(b"\n"):
            lines.append(entry)
    if not lines or not isinstance(lines[0].get("made_by"), dict):
        return None
    ledger = Ledger(lines[0]["made_by"])
    for entry in lines[1:]:
        if _is_entry(entry):
            ledger.done[entry["sequence"]] = entry
    return ledger


def _is_entry(entry: dict[str, Any]) -> bool:
    """Whether a line is one of `Ledger.add`; another one counts as not there."""
    notes = entry.get("notes")
    texts = [entry.get(key) for key in ("sequence", "data", "result")]
    return isinstance(notes, list) and all(isinstance(one, str) for one in [*texts, *notes])


@contextmanager
def opened(
    out: Path, dataset: Dataset, tracker: str, made_by: Mapping[str, str]
) -> Iterator[Ledger]:
    """Open a tracker's ledger for writing, alone.

    Parameters
    ----------
    made_by : what makes the results: checkpoint, settings, device

    Raises
    ------
    MismatchError : if the results there were made by something else, are not from here, or
        another process is writing them
    """
    path = _path(out, dataset, tracker)
    with _locked(path, tracker):
        ledger = _checked(out, dataset, tracker, made_by)
        lines = [{"made_by": dict(made_by)}, *ledger.done.values()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        FolderSink(path.parent).write(path.name, text.encode())
        with path.open("ab") as ledger.handle:
            yield ledger


def drop_other(out: Path, dataset: Dataset, tracker: str, made_by: Mapping[str, str]) -> bool:
    """Remove a tracker's results if the ledger says that they were made by something else.

    Results without a ledger, which may be anybody's, stay.

    Parameters
    ----------
    made_by : as `opened` takes it

    Returns
    -------
    Whether they were removed

    Raises
    ------
    MismatchError : if another process is writing them
    """
    path = _path(out, dataset, tracker)
    with _locked(path, tracker):
        ledger = read_ledger(out, dataset, tracker)
        if ledger is None or not _differing(ledger, made_by):
            return False
        results = out / FOLDERS[dataset] / tracker
        if results.is_dir():
            shutil.rmtree(results)
        path.unlink()  # last, so that what a killed process leaves is removed the next time
        return True


@contextmanager
def _locked(path: Path, tracker: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f"{path.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MismatchError(
                f"{path.parent}: another process is writing the results of {tracker!r}; wait for "
                f"it, or {ELSEWHERE}"
            ) from error
        yield


def _checked(out: Path, dataset: Dataset, tracker: str, made_by: Mapping[str, str]) -> Ledger:
    """Ledger of results of the same making, or an empty one."""
    results = out / FOLDERS[dataset] / tracker
    ledger = read_ledger(out, dataset, tracker)
    if ledger is None:
        if any(results.glob("**/*.txt")):
            raise MismatchError(
                f"{results}: holds results that were not made here, or whose record is damaged; "
                f"{ELSEWHERE}, or remove it"
            )
        return Ledger(made_by)
    differ = [
        f"{key} {_short(ledger.made_by.get(key))} there, {_short(made_by.get(key))} now"
        for key in _differing(ledger, made_by)
    ]
    if differ:
        raise MismatchError(
            f"{results}: these results are of something else ({'; '.join(differ)}); {ELSEWHERE}"
        )
    return ledger


def _differing(ledger: Ledger, made_by: Mapping[str, str]) -> list[str]:
    """What differs between the makings."""
    keys = {**made_by, **ledger.made_by}
    return [key for key in keys if ledger.made_by.get(key) != made_by.get(key)]


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:12]}..."
