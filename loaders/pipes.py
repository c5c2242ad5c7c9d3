"""Files that a shell command prints: ``--data 'pipe:ssh store cat /data/shards/{}' --allow-pipe``.

A command comes only from the command line, never from a configuration, a manifest or an index.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import Any, BinaryIO, cast

from configs.strict import ConfigError
from loaders.config import PIPE
from shards.errors import StorageError

__all__ = ["Command", "from_command_line"]

_CHUNK = 1 << 20


class _Output(io.RawIOBase):
    """What a shell command prints; a failing command is an error at its end."""

    def __init__(self, command: str) -> None:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the command)
        self._process = subprocess.Popen(
            command,
            shell=True,  # a command line is what the user gave
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            start_new_session=True,
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        assert self._process.stdout is not None
        size: int = cast(io.BufferedReader, self._process.stdout).readinto1(buffer)
        if not size and self._process.wait():
            self._messages.seek(0)
            said = self._messages.read(300).decode(errors="replace").split()
            raise OSError(f"the command ended with {self._process.returncode}: {' '.join(said)}")
        return size

    def kill(self) -> None:
        """End the command and everything that it started."""
        with suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        if not self.closed:
            self.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._messages.close()
        super().close()


class Command:
    """Files that a shell command prints.

    Parameters
    ----------
    command : with ``{}`` where the file's name belongs: ``manifest.json``, or
        ``lasot/lasot-000000.tar`` where it prints a parent of several data sets

    Raises
    ------
    ConfigError : if it has no ``{}``
    """

    def __init__(self, command: str) -> None:
        if "{}" not in command:
            raise ConfigError(
                f"{PIPE}{command}: write {{}} where the file's name belongs, as in "
                "--data 'pipe:ssh store cat /data/shards/{}' --allow-pipe"
            )
        self._command, self._running = command, dict[int, _Output]()
        self._aborted = False

    def open(self, name: str) -> BinaryIO:
        """Start the command for a file; raises `StorageError` after `abort`."""
        output = _Output(self.where(name).removeprefix(PIPE))
        self._running = {i: one for i, one in self._running.items() if not one.closed}
        self._running[id(output)] = output
        if self._aborted:  # looked at only now: `abort` may come at any moment
            output.close()
            raise StorageError(f"{self.where(name)}: reading was ended")
        return cast(BinaryIO, io.BufferedReader(output, _CHUNK))

    def where(self, name: str) -> str:
        """Return the command line; for no name the command as it was given."""
        return PIPE + self._command.replace("{}", shlex.quote(name) if name else "{}")

    def abort(self) -> None:
        """Kill what runs, and start nothing more."""
        self._aborted = True
        for output in list(self._running.values()):
            if not output.closed:
                output.kill()


def from_command_line(data: str | None, allow_pipe: bool) -> tuple[str | None, str | None]:
    """Path and command that ``--data`` and ``--allow-pipe`` stand for; either may be None.

    Raises
    ------
    ConfigError : if it is a command that was not allowed, or none that could be
    """
    if data is None or not data.startswith(PIPE):
        if allow_pipe:
            raise ConfigError(f"--allow-pipe goes with --data '{PIPE}COMMAND {{}}'")
        return data, None
    if not allow_pipe:
        raise ConfigError(f"--data {data!r} runs a shell: give --allow-pipe too if you mean it")
    return None, data.removeprefix(PIPE)
