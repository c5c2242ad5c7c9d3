"""Ends every process of a run soon after one has failed, whatever the others wait in.

Three ways to learn of a failure. A process that can still speak says so in the store, and alone
prints its error. One that was killed cannot: each process holds a message that the next rank sends
only when the run ends well, and an error in its place means that its process is gone. A machine
that is lost does not even close its connections: each process counts up in the store every second,
and one that stops counting is given up after `LOST_S`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import distributed

__all__ = ["Guard", "leave"]

POLL_S = 1.0
GRACE_S = 5.0
CLOSE_S = 15.0  # of the process that has failed, for closing what it has open
LOST_S = 60.0
LATE_S = 5.0  # this process was itself suspended so long: what it has not seen means nothing
FAILED = "failed"


class Guard:
    """Watches over the processes of this start.

    Parameters
    ----------
    store : of this start
    rank, size : of this process and of the run
    serves : whether the store is in this process, and ends with it
    report : prints an error's one line
    """

    def __init__(
        self, store: Any, rank: int, size: int, serves: bool, report: Callable[[str], None]
    ) -> None:
        self._store, self.rank, self.size, self._report = store, rank, size, report
        self._serves = serves
        self.next, self._previous = (rank + 1) % size, (rank - 1) % size
        self._over = threading.Event()
        self._speaking, self._known = threading.Lock(), False
        self._claims = store.clone()  # a new connection could not be made when it is needed
        self._ring: threading.Thread | None = None
        self._heard = time.monotonic()  # the last round of `_poll` that came to its end

    def start(self) -> None:
        """Watch the store, from before there is a process group."""
        self._store.set(f"alive/{self.rank}", "0")  # also one that stops at once is missed later
        for body in (self._poll, self._listen):
            threading.Thread(target=body, daemon=True).start()

    def join_ring(self) -> None:
        """Hold the next rank's message; all ranks call this once there is a process group."""
        if self.size == 1:
            return
        # A timeout would close its connections.
        self._group: Any = distributed.new_group(backend="gloo", timeout=timedelta(days=365))
        self._ring = threading.Thread(target=self._await_next, daemon=True)
        self._ring.start()

    def end(self) -> None:
        """End well, together: no rank returns before all have come here."""
        if self._ring:
            distributed.barrier(group=self._group)
            self._over.set()  # from here on a process that is gone has ended
            with suppress(RuntimeError):  # it has ended in its own way, after all was done
                distributed.send(torch.zeros(1), dst=self._previous, group=self._group)
            self._ring.join()
        self._over.set()

    def fail(self, line: str) -> None:
        """Print an error if it is the first of the run; the caller ends this process after it.

        Parameters
        ----------
        line : the error; empty: nothing is printed, by this rank or another
        """
        with self._speaking:
            if self._known or self._over.is_set():
                return
            self._known = True
            try:
                name = str(self.rank)
                first = self._claims.compare_set(FAILED, "", name) == name.encode()
            except RuntimeError:  # the store is gone, with rank 0 or without
                first = self.rank in (0, self.size - 1)
            if first and line:
                self._report(line)
            if self._serves and self.size > 1:  # let the others read of it before the store ends
                time.sleep(2.5 * POLL_S)

    def leave(self, code: int) -> NoReturn:
        """End this process at once, but not in the middle of an error's text."""
        with self._speaking:
            leave(code)

    def _await_next(self) -> None:
        """Wait for the message of the next rank."""
        try:
            distributed.recv(torch.zeros(1), src=self.next, group=self._group)
        except RuntimeError:
            if not self._over.is_set():
                self.fail(
                    f"rank {self.next} is gone: it was killed (out of memory?), or its machine is "
                    "down"
                )
                self.leave(1)

    def _poll(self) -> None:
        """Look for a failure in the store, and count."""
        store, beat = self._store.clone(), 0
        seen, since = b"", time.monotonic()
        while not self._over.wait(POLL_S):
            late = time.monotonic() - self._heard > LATE_S
            try:
                if store.check([FAILED]):
                    self._known = True
                    own = store.get(FAILED) == str(self.rank).encode()
                    if not self._over.wait(CLOSE_S if own else GRACE_S):
                        self.leave(1)  # the main thread has not ended by itself
                    return
                beat += 1
                store.set(f"alive/{self.rank}", str(beat))
                key = f"alive/{self.next}"
                now = store.get(key) if store.check([key]) else b""
            except RuntimeError:
                if not self._over.wait(GRACE_S):
                    self.fail("lost contact with the store of the run, and so with rank 0")
                    self.leave(1)
                return
            self._heard = time.monotonic()
            if not now or now != seen or late:
                seen, since = now, self._heard
            elif self._heard - since > LOST_S:
                self.fail(
                    f"rank {self.next} has given no sign for {LOST_S:g} s: its machine is lost, or "
                    "the process is stopped"
                )
                self.leave(1)

    def _listen(self) -> None:
        """End this process if the store does not even answer."""
        before = time.monotonic()
        while not self._over.wait(POLL_S):
            if time.monotonic() - before > LATE_S:
                self._heard = time.monotonic()
            before = time.monotonic()
            if before - self._heard > LOST_S + LATE_S:
                if self.rank in (0, self.size - 1):  # nobody can be asked
                    self._report(f"the store of the run has not answered for {LOST_S:g} s")
                leave(1)


def leave(code: int) -> NoReturn:
    """End this process at once; the usual way would wait for ranks that will not come."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
