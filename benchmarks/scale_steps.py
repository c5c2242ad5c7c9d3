"""When bytes come, and how long GPUs wait: steps of training, one after the other.

All ranks take their k-th batch together, as the gradients of a step are averaged over them. A batch
is asked for when the one `prefetch` steps before it is taken, and is there when the last of five is
done with it: the rank's own thread that plans, asks and reads (CPU time a pair and a request), its
connections (first come, first served; a request takes the latency and its bytes), the link of the
node, the server of all nodes, the server's rate of requests. Threads, links and servers are queues
that are worked off at a constant rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.scale_case import Storage

__all__ = ["Flow", "Waits", "steps", "stream_steps"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What bytes pass through on their way.

    Attributes
    ----------
    storage : see there
    connections : requests of a rank under way at once; 0: as many as are asked for
    gpus : ranks of a node
    prefetch : batches ahead
    step_s : that the GPUs take for a batch
    batch_s, request_s : CPU time of a rank's thread for a batch, and for each request in it
    """

    storage: Storage
    connections: int
    gpus: int
    prefetch: int
    step_s: float
    batch_s: float = 0.0
    request_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Waits:
    """Times of K steps.

    Attributes
    ----------
    taken : (K,) when each batch was taken, in seconds
    wait : (K,) how long the GPUs had waited for it
    """

    taken: Floats
    wait: Floats

    def share(self, first: int) -> float:
        """Share of the time that they wait, from a step on, the step of each batch included."""
        return float(self.wait[first:].sum() / self.span(first)) if self.span(first) else 0.0

    def span(self, first: int) -> float:
        """Seconds from the step before `first` to the last."""
        return float(self.taken[-1] - self.taken[first - 1])


class _Queues:
    """Links of the nodes, server of all; each is free again at a time."""

    def __init__(self, flow: Flow, ranks: int) -> None:
        self._flow, self._nodes = flow, -(-ranks // flow.gpus)
        self._link = np.zeros(self._nodes)
        self._server = self._answers = 0.0

    def done(self, asked: float, sizes: Floats, number: float, latency: float) -> float:
        """When the bytes (R,) of all ranks' batches have come, in `number` requests."""
        storage = self._flow.storage
        if not sizes.any():
            return asked
        first = asked + latency
        padded = np.zeros(self._nodes * self._flow.gpus)
        padded[: len(sizes)] = sizes
        node = padded.reshape(self._nodes, -1).sum(1)
        busy = node > 0
        link = np.maximum(self._link, first) + node / (storage.node_mb_per_s * 1e6)
        self._link = np.where(busy, link, self._link)
        ends = float(self._link.max())
        if storage.server_mb_per_s is not None:
            rate = storage.server_mb_per_s * 1e6
            self._server = max(self._server, first) + float(sizes.sum()) / rate
            ends = max(ends, self._server)
        if storage.server_requests_per_s is not None:
            busy_s = number / storage.server_requests_per_s
            self._answers = max(self._answers, asked) + busy_s
            ends = max(ends, self._answers + latency)
        return ends


def steps(flow: Flow, sizes: Floats) -> Waits:
    """Take the batches of all ranks.

    Parameters
    ----------
    flow : see there
    sizes : (K, R, P) bytes of each request of each rank's batch, 0: nothing is fetched
    """
    count, ranks, pictures = sizes.shape
    storage, queues = flow.storage, _Queues(flow, ranks)
    latency = storage.latency_ms / 1e3
    each = np.full(sizes.shape, latency)
    if storage.connection_mb_per_s is not None:
        each += sizes / (storage.connection_mb_per_s * 1e6)
    free = np.zeros((ranks, flow.connections))
    every, own = np.arange(ranks), np.zeros(ranks)
    taken, wait = np.zeros(count), np.zeros(count)
    now = 0.0
    for k in range(count):
        asked = taken[k - flow.prefetch] if k >= flow.prefetch else 0.0
        fetched = sizes[k] > 0
        own = np.maximum(own, asked) + flow.batch_s + fetched.sum(1) * flow.request_s
        ready = float(own.max())
        if flow.connections:
            for j in range(pictures):
                which = free.argmin(1)
                end = np.maximum(free[every, which], asked) + each[k, :, j]
                free[every, which] = np.where(fetched[:, j], end, free[every, which])
                ready = max(ready, float(np.where(fetched[:, j], end, 0.0).max()))
        elif fetched.any():
            ready = max(ready, asked + float(each[k][fetched].max()))
        ready = max(ready, queues.done(asked, sizes[k].sum(1), float(fetched.sum()), latency))
        due = now + flow.step_s if k else 0.0
        now = taken[k] = max(due, ready)
        wait[k] = now - due
    return Waits(taken=taken, wait=wait)


def stream_steps(flow: Flow, sizes: Floats, frames: Floats, opened: Floats, per_s: float) -> Waits:
    """Take batches that each rank reads one after the other, in one thread.

    Parameters
    ----------
    flow : see there; a stream is one connection
    sizes, frames, opened : (K, R) bytes, frames and files that a rank reads for its k-th batch
    per_s : frames a second that a process reads where bytes cost nothing
    """
    count, ranks = sizes.shape
    storage, queues = flow.storage, _Queues(flow, ranks)
    own = frames / per_s + opened * storage.latency_ms / 1e3
    if storage.connection_mb_per_s is not None:
        own += sizes / (storage.connection_mb_per_s * 1e6)
    at = np.zeros(ranks)
    taken, wait = np.zeros(count), np.zeros(count)
    now = 0.0
    for k in range(count):
        asked = taken[k - flow.prefetch] if k >= flow.prefetch else 0.0
        begun = np.maximum(at, asked)
        ends = queues.done(float(begun.min()), sizes[k], float(opened[k].sum()), 0.0)
        at = np.maximum(begun + own[k], ends)  # a stream cannot go on before its bytes have come
        due = now + flow.step_s if k else 0.0
        now = taken[k] = max(due, float(at.max()))
        wait[k] = now - due
    return Waits(taken=taken, wait=wait)
