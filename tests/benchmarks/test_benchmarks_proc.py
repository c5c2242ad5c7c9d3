"""Figures of a process tree, against processes whose use is known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.proc import PeakMemory, cpu_s, machine_cpu_s, memory, process_tree, reads

MB = 1_000_000


@contextmanager
def _child(code: str) -> Iterator[subprocess.Popen[str]]:
    """A child that runs `code` up to its print, then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


BURN = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_cpu_time_counts_the_whole_tree() -> None:
    grandchild = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {BURN!r} + 'import sys; print(1, flush=True);"
        " sys.stdin.read()'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
    )
    before = machine_cpu_s()
    with _child(BURN + grandchild) as child:
        used = cpu_s(child.pid)
        assert len(process_tree(child.pid)) == 2
        assert 0.55 < used < 3
        assert machine_cpu_s() - before > 0.5


def test_cpu_time_counts_children_that_ended() -> None:
    ended = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    with _child(ended) as child:
        assert cpu_s(child.pid) > 0.28


def test_memory_counts_a_forked_page_once_and_a_written_copy_twice() -> None:
    fork = (
        "import os\n"
        "data = bytearray(40_000_000)\n"
        "for i in range(0, len(data), 4096): data[i] = 1\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    {touch}\n"
        "    os.write(w, b'x')\n"
        "    import sys; sys.stdin.read(); os._exit(0)\n"
        "os.read(r, 1)\n"
    )
    with _child("pass") as child:
        empty = memory(child.pid).own
    with _child(fork.format(touch="pass")) as child:
        shared = memory(child.pid).own - empty
    copy = "\n    ".join(["for i in range(0, len(data), 4096): data[i] = 2"])
    with _child(fork.format(touch=copy)) as child:
        copied = memory(child.pid).own - empty
    assert 38 * MB < shared < 52 * MB
    assert 78 * MB < copied < 92 * MB


def test_peak_is_seen_after_the_memory_is_given_back() -> None:
    code = (
        "import mmap, sys\n"
        "sys.stdin.readline()\n"
        "held = mmap.mmap(-1, 40_000_000, mmap.MAP_PRIVATE)\n"
        "for i in range(0, len(held), 4096): held[i] = 1\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
        "held.close()\n"
        "print('given back', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", f"print('ready', flush=True)\n{code}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before = memory(child.pid)
        watch = PeakMemory(child.pid, every_s=0.01)
        child.stdin.write("hold\n")
        child.stdin.flush()
        assert child.stdout.readline() == "held\n"
        looks = len(watch.series) + 2  # one may have begun before
        while len(watch.series) < looks:
            time.sleep(0.01)
        child.stdin.write("give back\n")
        child.stdin.flush()
        assert child.stdout.readline() == "given back\n"
        after = memory(child.pid)
        peak = watch.stop()
        child.stdin.close()
    assert after.own - before.own < 10 * MB
    assert 38 * MB < peak.own - before.own < 52 * MB
    assert peak.file_pages >= before.file_pages > 0


def test_a_process_that_is_gone_counts_nothing() -> None:
    with _child("pass") as child:
        pid = child.pid
    assert cpu_s(pid) == 0
    assert memory(pid).own == 0
    assert os.getpid() in process_tree(os.getppid())


def test_reads_count_what_is_asked_for_and_not_what_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5 * MB))
    opened = f"f = open({str(path)!r}, 'rb', buffering=0)\n"
    asked = []
    mapped = "import mmap\nm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\nm[:]\n"
    for code in ("f.read(0)\n", "f.read()\n", mapped):
        with _child(opened + code) as child:
            asked.append(reads(child.pid).asked)
            assert reads(child.pid).disk < 5 * MB  # the page cache has it
    none, whole, nothing = asked
    assert 5 * MB <= whole - none < 5.1 * MB
    assert abs(nothing - none) < MB
