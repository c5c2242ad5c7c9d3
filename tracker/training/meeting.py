"""How the processes of a run find each other, once per start.

torchrun keeps one store for all restarts of a run, so what an earlier start left there is still to
be read: addresses of processes that are gone, and word of a failure that is over. Each start
therefore gets a name of its own, and reads and writes only under it. Rank 0 makes the name; the
others cannot know it beforehand, so each asks under a word that nobody has used before, and rank 0
answers whatever words it finds until all are there.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from configs.strict import ConfigError
from shards.errors import SiamstreamError, one_line

__all__ = ["JOIN_S", "Meeting", "MeetingError"]

JOIN_S = 300.0  # torchrun starts all processes together; what differs is how fast they import
POLL_S = 0.1
GRACE_S = 15.0  # for rank 0, which knows who is missing, to say so first
NAME_TRIES = 3
PREFIX = "siamstream"
HINT = "try another --master-port or --rdzv-endpoint (port 0: a free one, on one machine)"


class MeetingError(SiamstreamError):
    """The processes of a run do not find each other."""


class Meeting:
    """Processes of one start, before there is a process group.

    Parameters
    ----------
    rank, size : of this process and of the run
    environment : ``MASTER_ADDR`` and ``MASTER_PORT`` say where the store is; under torchrun its
        own process may serve it, else rank 0 does. ``SIAMSTREAM_JOIN_S``: seconds to wait for all

    Attributes
    ----------
    store : of this start, once `enter` is done
    serves : whether this process serves it

    Raises
    ------
    ConfigError : if the environment does not say where to meet
    """

    store: Any

    def __init__(self, rank: int, size: int, environment: Mapping[str, str] = os.environ) -> None:
        self.rank, self.size = rank, size
        self.host, port = environment["MASTER_ADDR"], environment.get("MASTER_PORT", "")
        if not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"MASTER_PORT is '{port}'; it must be a port from 1 to 65535")
        self.port = int(port)
        self.serves = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        wait_s = environment.get("SIAMSTREAM_JOIN_S", str(JOIN_S))
        try:
            self._wait_s = float(wait_s)
        except ValueError:
            raise ConfigError(f"SIAMSTREAM_JOIN_S is '{wait_s}'; it must be seconds") from None
        self._deadline = time.monotonic() + self._wait_s

    def enter(self) -> None:
        """Connect, and learn the name of this start.

        Raises
        ------
        MeetingError : if the store's host is unknown, its port in use, or nobody answers
        """
        self._base = PrefixStore(PREFIX, self._connect())
        word = secrets.token_hex(8)
        if self.rank == 0:
            self._name = word
        else:
            self._base.set(f"word/{self.rank}", word)
            while not self._base.check([f"answer/{word}"]):
                self._pause("rank 0 has not come")
            self._name = self._base.get(f"answer/{word}").decode()
        self.store = PrefixStore(self._name, self._base)

    def complete(self) -> None:
        """Wait until all processes have the name.

        Raises
        ------
        MeetingError : if some have not come in time; rank 0 says which
        """
        if self.rank:
            self.store.set(f"here/{self.rank}", "")
            while not self.store.check(["all"]):
                self._pause("not all processes have come", grace_s=GRACE_S)
            return
        missing, answered = list(range(1, self.size)), dict[int, bytes]()
        while missing:
            for rank in missing:
                if not self._base.check([f"word/{rank}"]):
                    continue
                word = self._base.get(f"word/{rank}")
                if answered.get(rank) != word:
                    self._base.set(f"answer/{word.decode()}", self._name)
                    answered[rank] = word
            missing = [rank for rank in missing if not self.store.check([f"here/{rank}"])]
            if missing:
                names = ", ".join(map(str, missing[:8])) + (", ..." if missing[8:] else "")
                came = self.size - len(missing)
                self._pause(f"{came} of {self.size} processes have come, not rank {names}")
        self.store.set("all", "")

    def _connect(self) -> Any:
        """Connect to the store, which rank 0 serves unless torchrun does."""
        for attempt in range(NAME_TRIES):
            try:
                socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
                break
            except OSError as error:
                if attempt + 1 == NAME_TRIES:
                    raise MeetingError(
                        f"the host '{self.host}' of MASTER_ADDR is not known here "
                        f"({error.strerror}); give --rdzv-endpoint or --master-addr a name that "
                        "every machine can look up, or its IP address"
                    ) from error
                time.sleep(1.0)
        try:
            return TCPStore(
                self.host,
                self.port,
                is_master=self.serves,
                wait_for_workers=False,
                timeout=timedelta(seconds=self._wait_s),
            )
        except RuntimeError as error:
            text = one_line(error)
            if "EADDRINUSE" in text or "address already in use" in text.lower():
                raise MeetingError(
                    f"port {self.port} of {self.host} is in use by another program; {HINT}"
                ) from error
            raise MeetingError(
                f"no connection to {self.host}:{self.port}, where rank 0 should be, within "
                f"{self._wait_s:g} s; see whether it has ended, whether MASTER_ADDR and "
                "MASTER_PORT are those of its machine, and whether a firewall is between"
            ) from error

    def _pause(self, state: str, grace_s: float = 0.0) -> None:
        """Wait a little; past the deadline, say what the state of things is."""
        if time.monotonic() > self._deadline + grace_s:
            raise MeetingError(
                f"{state} to {self.host}:{self.port} within {self._wait_s:g} s; see the output of "
                "the others (SIAMSTREAM_JOIN_S sets the wait). With --nnodes MIN:MAX set "
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on all machines"
            )
        time.sleep(POLL_S)
