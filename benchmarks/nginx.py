"""nginx as a plain server of a folder's files, for benchmarks and tests of the services."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import SiamstreamError

__all__ = ["ABSENT", "nginx", "nginx_there"]

ABSENT = "nginx is not installed: apt-get install nginx-light"
_CONFIG = """
daemon off; worker_processes 2; pid {run}/pid; error_log {run}/errors; {user}
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 300;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def nginx_there() -> bool:
    """Whether nginx is installed."""
    return shutil.which("nginx") is not None


@contextmanager
def nginx(root: Path) -> Iterator[str]:
    """Serve a folder; gives the URL.

    Raises
    ------
    SiamstreamError : if nginx is not installed, or does not start
    """
    if not nginx_there():
        raise SiamstreamError(ABSENT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="siamstream-nginx-") as run:
        config = Path(run) / "nginx.conf"
        # Started by root it would read the files as another user.
        user = "user root;" if Path(run).owner() == "root" else ""
        text = _CONFIG.format(run=run, port=port, root=root.resolve(), user=user)
        config.write_text(text)
        command = ["nginx", "-p", run, "-c", str(config), "-e", f"{run}/errors"]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait(server, port, Path(run) / "errors")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _wait(server: subprocess.Popen[bytes], port: int, errors: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    said = errors.read_text().strip().splitlines() if errors.is_file() else []
    raise SiamstreamError(f"nginx did not start: {said[-1] if said else 'it said nothing'}")
