"""Threads that never keep a process from ending.

Those of `concurrent.futures` are waited for when the interpreter ends, without a limit: a process
whose storage hangs could not even report it and exit. A thread that hangs in a read cannot be
stopped, so it is left behind.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads"]

# Native code should not run on while the interpreter ends, but nothing waits for long.
_EXIT_S = 2.0
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Task = tuple[Future[Any], Callable[[], Any]] | None


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    while (task := tasks.get()) is not None:
        future, call = task
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 (it is raised where the result is wanted)
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del task, future, call  # nothing is kept alive while waiting for the next


def _stop(
    tasks: queue.SimpleQueue[_Task], threads: list[threading.Thread], timeout_s: float
) -> bool:
    while True:
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            break
        if task is not None:
            task[0].cancel()
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


class Threads:
    """A fixed number of threads with one queue.

    Parameters
    ----------
    count : of threads
    name : of the threads, for those who look at them
    """

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks,), name=f"{name}_{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()
        self._closed = False
        self._at_end = weakref.finalize(self, _stop, self._tasks, self._threads, _EXIT_S)

    def submit(self, call: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> Future[_T]:
        """Queue a call; errors of any kind are raised by the future.

        Raises
        ------
        RuntimeError : after `stop`
        """
        if self._closed:
            raise RuntimeError("these threads have been stopped")
        future: Future[_T] = Future()
        self._tasks.put((future, lambda: call(*args, **more)))
        return future

    def stop(self, timeout_s: float) -> bool:
        """Cancel what is queued, and wait for what is under way, but not longer than this.

        Returns
        -------
        whether all threads have ended; one that hangs is left behind
        """
        self._closed = True
        self._at_end.detach()
        return _stop(self._tasks, self._threads, timeout_s)
