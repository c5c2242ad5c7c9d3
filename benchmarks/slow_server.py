"""A folder of packed data behind a server that answers late, for the time of a measurement."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.child_process import child_env
from benchmarks.nginx import ABSENT, nginx, nginx_there
from shards.errors import SiamstreamError

__all__ = ["slow_server"]

_END_S = 20  # that the server has to end by itself


@contextmanager
def slow_server(
    folder: Path,
    delay_ms: float,
    refuse: float,
    told: Callable[[str], None],
    mb_per_s: float = 0.0,
) -> Iterator[tuple[str, str]]:
    """Serve a folder from processes of their own.

    Parameters
    ----------
    folder : to serve
    delay_ms : before each answer
    refuse : share of the requests answered by 503
    told : called with a line where nginx is not installed
    mb_per_s : of all bodies together; 0: as fast as they go

    Yields
    ------
    the URL, and the name of the server behind the slow one

    Raises
    ------
    SiamstreamError : if it does not start
    """
    with ExitStack() as stack:
        origin, server = str(folder.resolve()), "python"
        if nginx_there():
            origin, server = stack.enter_context(nginx(folder)), "nginx"
        else:
            told(f"{ABSENT}; going on with a server in Python, which costs this machine more CPU")
        command = [sys.executable, "-m", "benchmarks.faulty_server", origin]
        command += ["--delay-ms", str(delay_ms), "--refuse", str(refuse)]
        command += ["--mb-per-s", str(mb_per_s)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_env(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise SiamstreamError(
                    f"the server of {folder} did not start; what it said is above; try "
                    f"'python -m benchmarks.faulty_server {folder}'"
                )
            yield url, server
        finally:
            process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()  # it holds nothing but its sockets
                process.wait()
            process.stdout.close()
