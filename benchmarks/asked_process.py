"""A process that is set up once and then answers orders, one line of JSON for each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from benchmarks.child_process import ContestantError, child_env, last_words
from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["AskedProcess", "answer_orders"]

LIMIT_S = 1800.0  # of one answer


class AskedProcess:
    """A process; to be closed.

    Parameters
    ----------
    module : of the benchmarks, whose main calls `answer_orders`
    name : of what runs in it, for errors
    setup : its first line
    limit_s : an answer that takes longer ends the process

    Attributes
    ----------
    facts : answer to `setup`

    Raises
    ------
    ContestantError : here or later, if it fails or does not answer
    """

    def __init__(
        self, module: str, name: str, setup: Mapping[str, Any], limit_s: float = LIMIT_S
    ) -> None:
        self._name, self._limit_s = name, limit_s
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the process)
        self._child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_env(),
        )
        try:
            self.facts: dict[str, Any] = self._ask(setup)
        except BaseException:
            self.close()
            raise

    def do(self, what: str, **more: Any) -> dict[str, Any]:
        """Give an order and wait for the answer.

        Parameters
        ----------
        what : method of the object that the process holds
        more : its arguments
        """
        return self._ask({"do": what, **more})

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.close()
            self._child.wait(timeout=30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        timer = threading.Timer(self._limit_s, self._child.kill)
        timer.start()
        try:
            self._child.stdin.write(json.dumps(order) + "\n")
            self._child.stdin.flush()
            lines = (line for line in self._child.stdout if line.startswith("{"))  # or chatter
            answer: dict[str, Any] = json.loads(next(lines, "{}"))
        except BrokenPipeError:
            answer = {}
        finally:
            timer.cancel()
        if not answer or "failed" in answer:
            with suppress(subprocess.TimeoutExpired):  # it may hang in its own end
                self._child.wait(timeout=30)
            self._errors.seek(0)
            said = last_words(self._errors.read())
            reason = answer.get("failed") or said or "it ended without a word"
            raise ContestantError(f"{self._name} failed: {reason}")
        return answer


def answer_orders(opened: Callable[[Mapping[str, Any]], Any]) -> int:
    """Main of such a process: answer lines until there are no more; the exit status.

    Parameters
    ----------
    opened : makes of the first line an object with ``facts``, ``close`` and methods to be called
    """
    session = None
    try:
        session = opened(json.loads(sys.stdin.readline()))
        _answer(**session.facts)
        for line in sys.stdin:
            order = json.loads(line)
            _answer(**getattr(session, order.pop("do"))(**order))
    except KNOWN_ERRORS as error:
        _answer(failed=one_line(error))
        return 1
    finally:
        if session is not None:
            session.close()
    return 0


def _answer(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
