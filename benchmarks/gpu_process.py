"""A part of ``benchmarks gpu`` in a process of its own, which may crash, hang or be stopped.

Decoders on a GPU end a process by a signal now and then, and one that hangs must not take the time
of the others. So each part, and within parts each risky step, is ``python -m benchmarks.gpu_child
NAME`` in a process group of its own. It gets its facts as JSON on stdin and answers by lines of
JSON: ``said`` (a line of progress) and ``found`` (everything found so far; the last one counts, so
what was found before a crash is kept).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.child_process import child_env, last_words
from benchmarks.nvml import Device, open_device
from benchmarks.proc import Memory, memory, process_tree
from shards.errors import SiamstreamError

__all__ = ["Answer", "Peaks", "ask", "cuda_devices", "device"]


def device() -> Device | None:
    """GPU of this process's parts."""
    return open_device()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a process found.

    Attributes
    ----------
    found : its last findings
    error : why it ended badly, or None
    seconds : it took
    host_peak_mb, gpu_peak_mb : most memory of the process and its children, and most of the GPU's
        beyond what was in use before, in 1e6 bytes; None: not known
    """

    found: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    host_peak_mb: float | None = None
    gpu_peak_mb: float | None = None

    def memory(self) -> dict[str, float | None]:
        """Peaks, as results have them."""
        return {"host_peak_mb": self.host_peak_mb, "gpu_peak_mb": self.gpu_peak_mb}


class Peaks:
    """Watches memory of a process tree and of the GPU, and the JPEG engine, until stopped.

    Parameters
    ----------
    root : process to watch; None: the GPU alone
    every_s : between two looks
    """

    def __init__(self, root: int | None, every_s: float = 0.2) -> None:
        self._root, self._every_s, self._device = root, every_s, device()
        self._base = self._used()
        self._own, self._gpu, self._jpeg = 0, 0, [0, 0]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peaks", daemon=True)
        self._thread.start()

    def _used(self) -> int | None:
        found = self._device.memory() if self._device else None
        return found[0] if found else None

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            if self._root is not None:
                self._own = max(self._own, _memory(self._root).own)
            used = self._used()
            if used is not None and self._base is not None:
                self._gpu = max(self._gpu, used - self._base)
            percent = self._device.jpeg_percent() if self._device else None
            if percent is not None:
                self._jpeg = [self._jpeg[0] + percent, self._jpeg[1] + 1]

    def stop(self) -> tuple[float | None, float | None, float | None]:
        """End; peaks of host and GPU in 1e6 bytes, mean percentage of the JPEG engine."""
        self._done.set()
        self._thread.join()
        total, looks = self._jpeg
        return (
            self._own / 1e6 if self._own else None,
            self._gpu / 1e6 if self._base is not None else None,
            total / looks if looks else None,
        )


def _memory(root: int) -> Memory:
    try:
        return memory(root)
    except (OSError, KeyError):  # as of a process that ends while it is looked at
        return Memory(own=0, file_pages=0)


def ask(
    name: str,
    facts: Mapping[str, Any],
    limit_s: float,
    told: Callable[[str], None],
    *,
    step: bool = False,
) -> Answer:
    """Run a part or step in a process and collect what it finds.

    Parameters
    ----------
    name : of the work, see `benchmarks.gpu_child`
    facts : for it
    limit_s : after so many seconds the process and its children are killed
    told : called with its lines of progress
    step : it is a step of a part: it stays in the part's group, and so ends with it

    Returns
    -------
    what it found, and why it ended if it ended badly; nothing is raised for that
    """
    started = time.monotonic()
    found: dict[str, Any] = {}
    failed: str | None = None
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=child_env(),
            start_new_session=not step,
        )
        late = threading.Event()
        timer = threading.Timer(limit_s, _stop, (child, late, step))
        timer.start()
        peaks = Peaks(child.pid)
        try:
            for line in _lines(child, facts):
                if "said" in line:
                    told(f"  {line['said']}")
                found = line.get("found", found)
                failed = line.get("failed", failed)
            child.wait()
        finally:
            timer.cancel()
            _stop(child, threading.Event(), step)
            child.wait()
            host, gpu, _ = peaks.stop()
        errors.seek(0)
        said = last_words(errors.read())
    if late.is_set():
        failed = f"not done after its {limit_s:.0f} s, and stopped"
    elif child.returncode and not failed:
        failed = f"{_ending(child.returncode)}: {said or 'without a word'}"
    return Answer(
        found=found,
        error=failed,
        seconds=time.monotonic() - started,
        host_peak_mb=host,
        gpu_peak_mb=gpu,
    )


def _lines(child: subprocess.Popen[str], facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):  # it ended at once; what it said is reported
        child.stdin.write(json.dumps(facts))
        child.stdin.close()
    with child.stdout:
        for line in child.stdout:
            if line.startswith('{"'):  # or a library's chatter
                yield json.loads(line)


def _stop(child: subprocess.Popen[str], late: threading.Event, step: bool) -> None:
    """Kill a process that is still there and its children; of a part, all of its group."""
    if child.poll() is None:
        late.set()
        for pid in process_tree(child.pid):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
    if not step:
        with suppress(ProcessLookupError):  # nobody is left of the group
            os.killpg(child.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def cuda_devices(timeout_s: float = 120.0) -> int:
    """How many CUDA devices torch sees; asked in another process, which makes no context here."""
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    try:
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise SiamstreamError(
            f"torch did not say within {timeout_s:g} s whether there is a CUDA device; look at the "
            "driver with nvidia-smi"
        ) from error
    if found.returncode:
        last = last_words(found.stderr)
        raise SiamstreamError(f"torch cannot be imported: {last}")
    return int(found.stdout.split()[-1])
