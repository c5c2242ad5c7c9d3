"""How many pairs a second some threads make of a task."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from shards.errors import StorageError

__all__ = ["pairs_per_s"]


def pairs_per_s(
    task: Callable[[int], object],
    threads: int,
    limit_s: float,
    timeout_s: float,
    most: int | None = None,
) -> float:
    """Pairs a second of some threads that make one pair after the other.

    Parameters
    ----------
    task : makes pair i; i counts up
    threads : number
    limit_s : how long; each thread makes one pair at least, where there is one
    timeout_s : a pair that takes longer than this is an error
    most : pairs at most, each once; None: as many as there is time for, after one to warm up

    Raises
    ------
    StorageError : if a pair takes too long
    """
    numbers, done, errors = itertools.count(), [0] * threads, []
    begin = threading.Barrier(threads + 1)

    def some(own: int) -> None:
        try:
            if most is None:  # decoders and buffers are made now
                task(own)
        except Exception as error:  # noqa: BLE001 (raised below, in the caller's thread)
            errors.append(error)
        try:
            begin.wait()
        except threading.BrokenBarrierError:
            return  # another thread was too slow, which is told below
        stop = time.perf_counter() + limit_s
        try:
            while not errors:
                number = next(numbers)  # atomic
                if most is not None and number >= most:
                    break
                task(number)  # one at least, however short the time
                done[own] += 1
                if time.perf_counter() >= stop:
                    break
        except Exception as error:  # noqa: BLE001 (raised below, in the caller's thread)
            errors.append(error)

    # Daemons: one that hangs in a read must not keep the process from ending.
    pool = [threading.Thread(target=some, args=(own,), daemon=True) for own in range(threads)]
    for thread in pool:
        thread.start()
    try:
        begin.wait(timeout_s)
        started = time.perf_counter()
        for thread in pool:
            thread.join(max(0.0, started + limit_s + timeout_s - time.perf_counter()))
    except threading.BrokenBarrierError:
        pass  # told below: a thread is still alive
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in pool):
        raise StorageError(
            f"a pair was not made within data.timeout_s={timeout_s:g} s; storage stalls or "
            "decoding hangs"
        )
    return sum(done) / (time.perf_counter() - started)
