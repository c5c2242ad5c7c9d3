"""CPU time, memory and reads of a process and all its descendants, from ``/proc``."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Memory",
    "PeakMemory",
    "Reads",
    "cpu_s",
    "machine_cpu_s",
    "memory",
    "process_tree",
    "reads",
]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Memory of a process tree in bytes.

    Attributes
    ----------
    own : private anonymous and shared memory, each page counted once however many processes of the
        tree share it (sums of ``Pss_Anon`` and ``Pss_Shmem`` of smaps_rollup)
    file_pages : pages of mapped files, which the page cache holds anyway (``Pss_File``; a page that
        other programs map too is divided among them)
    """

    own: int
    file_pages: int


def _stat_fields(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on; empty if the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()  # the name, in brackets, may hold anything


def process_tree(root: int) -> list[int]:
    """Process ids of `root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """User and system seconds of a tree, children that were waited for included."""
    total = 0
    for pid in process_tree(root):
        fields = _stat_fields(pid)
        if fields:
            total += sum(int(value) for value in fields[11:15])  # utime, stime, cutime, cstime
    return total * _TICK_S


def machine_cpu_s() -> float:
    """Seconds that all cores of the machine were busy since it started, for anyone."""
    fields = (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, soft_irq = (int(value) for value in fields[:7])
    return (user + nice + system + irq + soft_irq) * _TICK_S


def memory(root: int) -> Memory:
    """Memory of a tree now."""
    own = file_pages = 0
    for pid in process_tree(root):
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        own += (kilobytes["Pss_Anon:"] + kilobytes["Pss_Shmem:"]) * 1024
        file_pages += kilobytes["Pss_File:"] * 1024
    return Memory(own=own, file_pages=file_pages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """Bytes that a process tree has read since its processes started.

    Attributes
    ----------
    disk : that had to come from a disk; mapped files count, a warm page cache gives 0
    asked : of all calls of ``read`` and its kin, wherever the bytes came from; mapped files and
        sockets do not count
    """

    disk: int
    asked: int


def reads(root: int) -> Reads:
    """Bytes read by a tree's living processes."""
    disk = asked = 0
    for pid in process_tree(root):
        try:
            text = (_PROC / str(pid) / "io").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
        counts = dict(line.split(": ") for line in text.splitlines())
        disk += int(counts["read_bytes"])
        asked += int(counts["rchar"])
    return Reads(disk=disk, asked=asked)


class PeakMemory:
    """Watches the memory of another process's tree until it is stopped.

    Parameters
    ----------
    root : process to watch
    every_s : between two looks; a look costs milliseconds, of the watcher and not of the watched
    """

    def __init__(self, root: int, every_s: float = 0.5) -> None:
        self._root, self._every_s = root, every_s
        self._started = time.monotonic()
        self.own = self.file_pages = 0
        self.series: list[tuple[float, int]] = []  # seconds since the start, bytes of `own`
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def add(self, seen: Memory) -> None:
        """Take a measurement of another's into account."""
        self.own = max(self.own, seen.own)
        self.file_pages = max(self.file_pages, seen.file_pages)

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            seen = memory(self._root)
            self.series.append((time.monotonic() - self._started, seen.own))
            self.add(seen)

    def stop(self) -> Memory:
        """End the watch; the largest amounts seen."""
        self._done.set()
        self._thread.join()
        return Memory(own=self.own, file_pages=self.file_pages)
