"""Threads that never keep a process from ending."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import CancelledError

import pytest

from loaders.threads import Threads


def test_results_and_errors_arrive() -> None:
    threads = Threads(2, "test")
    assert [threads.submit(divmod, 7, n).result(60) for n in (2, 3)] == [(3, 1), (2, 1)]
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(60)

    def leave() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        threads.submit(leave).result(60)
    assert threads.submit(abs, -1).result(60) == 1  # errors of any kind end no thread
    assert threads.stop(60)


def test_stopping_cancels_what_is_queued_and_leaves_behind_what_hangs() -> None:
    threads, release, begun = Threads(1, "test"), threading.Event(), threading.Event()

    def hang() -> int:
        begun.set()
        release.wait(60)
        return 5

    hanging, queued = threads.submit(hang), threads.submit(abs, -1)
    assert begun.wait(60)
    assert not threads.stop(0.1)
    assert not hanging.done()
    with pytest.raises(CancelledError):
        queued.result(60)
    with pytest.raises(RuntimeError, match="stopped"):
        threads.submit(abs, -1)
    release.set()
    assert hanging.result(60) == 5
    assert threads.stop(60)


def test_all_of_them_work_at_once() -> None:
    threads, meet = Threads(3, "test"), threading.Barrier(3)
    for future in [threads.submit(meet.wait, 60) for _ in range(3)]:
        future.result(60)
    assert threads.stop(60)


def test_threads_that_nobody_stops_end_with_their_owner() -> None:
    before = set(threading.enumerate())
    threads = Threads(2, "test")
    threads.submit(abs, -1).result(60)
    del threads
    gc.collect()
    assert set(threading.enumerate()) <= before
