"""A small HTTP server that is slow and makes faults on purpose, for tests and benchmarks.

It answers GET and HEAD with byte ranges, from a folder or by asking another server (nginx, an S3
server), and does to each answer what a schedule says. It runs in a thread of its own, or as a
process: ``python -m benchmarks.faulty_server ORIGIN --delay-ms 30 --refuse 0.01`` prints its URL
and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import click

from shards.rng import uniforms

__all__ = ["FAULTS", "Fault", "FaultyServer", "seeded"]

Fault = Literal[
    "",  # a good answer
    "refuse",  # 503
    "slow-down",  # 429
    "drop",  # the connection is closed instead of an answer
    "cut",  # the connection is closed in the middle of the body
    "truncate",  # a whole answer of half the bytes
    "flip",  # one byte of the body is another
    "page",  # an HTML page instead of the bytes, with status 206
    "stall",  # no answer, ever
    "freeze",  # half the body, and then nothing
    "whole",  # the whole file, as a server does that knows no ranges
]
FAULTS: tuple[Fault, ...] = (
    "refuse", "slow-down", "drop", "cut", "truncate", "flip", "page", "stall", "freeze",
)  # fmt: skip
_STREAM_FAULTS = 1020
_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}
_HEAD_LIMIT = 64 * 1024


def seeded(shares: Mapping[Fault, float], seed: int = 1) -> Callable[[int, str], Fault]:
    """Schedule that makes each fault with its share of the requests, by their number."""

    def schedule(number: int, path: str) -> Fault:  # noqa: ARG001 (other schedules look at it)
        u = float(uniforms(seed, _STREAM_FAULTS, 0, number, 1, 4)[0, 0])
        for fault, share in shares.items():
            u -= share
            if u < 0:
                return fault
        return ""

    return schedule


@dataclass(kw_only=True, slots=True)
class Answer:
    """Status, headers (lower-case names) and body of one answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, whatever is under way on it."""
    writer.transport.abort()


class FaultyServer:
    """See the module. A context manager: it serves while it is entered.

    Parameters
    ----------
    origin : a folder, or the URL of another server
    schedule : fault of each request, by its number from 0 and its path
    delay_s : before each answer
    bytes_per_s : of all bodies together; 0: no limit

    Attributes
    ----------
    url : where it serves
    counts : requests by fault; ``sent`` holds the bytes of all bodies
    paths : of all requests, in order, with the range
    schedule, delay_s : may be changed while it runs
    """

    def __init__(
        self,
        origin: str | Path,
        schedule: Callable[[int, str], Fault] = lambda *_: "",
        delay_s: float = 0.0,
        bytes_per_s: float = 0.0,
    ) -> None:
        self.schedule, self.delay_s = schedule, delay_s
        self._bytes_per_s, self._link_free = bytes_per_s, 0.0
        self.counts: Counter[str] = Counter()
        self.paths: list[tuple[str, str]] = []
        self.sent = 0
        self.url = ""
        self._origin = origin
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty-server", daemon=True)

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        self._ready.wait(20)
        if self._failed is not None or not self.url:
            raise OSError("the server did not start") from self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failed = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=_HEAD_LIMIT)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream = _Upstream(str(self._origin))
        try:
            while await self._exchange(reader, writer, upstream):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever asked is gone, or the test is over
        finally:
            self._tasks.discard(task)
            upstream.close()
            _reset(writer)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: _Upstream
    ) -> bool:
        """Answer one request; False if the connection is over."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, headers = _parse_request(head)
        await reader.readexactly(int(headers.get("content-length", 0)))
        number = len(self.paths)
        self.paths.append((path, headers.get("range", "")))
        fault = self.schedule(number, path)
        self.counts[fault] += 1
        await asyncio.sleep(self.delay_s)
        if fault in ("stall", "drop"):
            if fault == "stall":
                await reader.read(1)  # ends when the other side gives up
            return False
        if fault in ("refuse", "slow-down"):
            status = 503 if fault == "refuse" else 429
            return await self._send(writer, method, Answer(status=status, body=b"not now"))
        if fault == "whole":
            headers.pop("range", None)
        if isinstance(self._origin, Path):
            answer = _from_folder(self._origin, path, headers)
        else:
            answer = await upstream.ask(head, method)
        return await self._send(writer, method, _spoil(answer, method, fault), fault, reader)

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        answer: Answer,
        fault: Fault = "",
        reader: asyncio.StreamReader | None = None,
    ) -> bool:
        length = answer.headers.pop("content-length", None) if method == "HEAD" else None
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"content-length: {length or len(answer.body)}", "", ""]
        body = b"" if method == "HEAD" else answer.body
        broken = fault in ("cut", "freeze") and bool(body)
        body = body[: len(body) // 2] if broken else body
        if self._bytes_per_s:  # one link for all: a body waits for those before it
            now = self._loop.time()
            self._link_free = max(now, self._link_free) + len(body) / self._bytes_per_s
            await asyncio.sleep(self._link_free - now)
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        await writer.drain()
        self.sent += len(body)
        if broken and fault == "freeze":
            assert reader is not None
            await reader.read(1)
        return not broken


def _parse_request(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    return method, path, _headers(lines)


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _from_folder(folder: Path, path: str, headers: Mapping[str, str]) -> Answer:
    """Answer of a plain server of files."""
    name = unquote(urlsplit(path).path).lstrip("/")
    file = folder / name
    if ".." in Path(name).parts or not file.is_file():
        return Answer(status=404, body=b"no such file")
    found = file.stat()
    size = found.st_size
    facts = {
        "accept-ranges": "bytes",
        "etag": f'"{found.st_mtime_ns:x}"',
        "last-modified": formatdate(found.st_mtime, usegmt=True),
    }
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    if asked is None:
        return Answer(status=200, headers=facts, body=file.read_bytes())
    start, end = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
    if start > end:
        return Answer(status=416, headers={"content-range": f"bytes */{size}"})
    with file.open("rb") as handle:
        handle.seek(start)
        body = handle.read(end + 1 - start)
    facts["content-range"] = f"bytes {start}-{end}/{size}"
    return Answer(status=206, headers=facts, body=body)


def _spoil(answer: Answer, method: str, fault: Fault) -> Answer:
    if method == "HEAD" or answer.status not in (200, 206) or not answer.body:
        return answer
    body = answer.body
    if fault == "flip":
        middle = len(body) // 2
        answer.body = body[:middle] + bytes([body[middle] ^ 0x40]) + body[middle + 1 :]
    elif fault == "page":
        page = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
        answer.body = (page * (len(body) // len(page) + 1))[: len(body)]
    elif fault == "truncate":
        answer.body = body[: len(body) // 2]
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
        if given:
            last = int(given[1]) + len(answer.body) - 1
            answer.headers["content-range"] = f"bytes {given[1]}-{last}/{given[2]}"
    return answer


class _Upstream:
    """A connection to the server behind, kept open between requests where that server does."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        if self._streams is not None:
            _reset(self._streams[1])
            self._streams = None

    async def ask(self, head: bytes, method: str) -> Answer:
        kept = self._streams is not None
        try:
            return await self._ask(head, method)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            if not kept:
                raise
            return await self._ask(head, method)  # it had closed the connection in between

    async def _ask(self, head: bytes, method: str) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._at.hostname, self._at.port or 80)
        reader, writer = self._streams
        writer.write(head)
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        headers = _headers(lines)
        length = headers.get("content-length")
        body = b""
        if method != "HEAD" and int(first.split(" ")[1]) not in (204, 304):
            body = await (reader.read() if length is None else reader.readexactly(int(length)))
        if "close" in headers.pop("connection", "") or first.startswith("HTTP/1.0"):
            self.close()
        headers.pop("keep-alive", None)
        if method != "HEAD":
            headers.pop("content-length", None)
        return Answer(status=int(first.split(" ")[1]), headers=headers, body=body)


@click.command(epilog="Example: python -m benchmarks.faulty_server data/shards --delay-ms 30")
@click.argument("origin")
@click.option("--delay-ms", type=click.FloatRange(0), default=0.0, help="Before each answer.")
@click.option("--refuse", type=click.FloatRange(0, 1), default=0.0, help="Share answered by 503.")
@click.option("--mb-per-s", type=click.FloatRange(0), default=0.0, help="Of all bodies; 0: any.")
def main(origin: str, delay_ms: float, refuse: float, mb_per_s: float) -> None:
    """Serve ORIGIN, a folder or the URL of another server, until standard input is closed."""
    place: Any = origin if origin.startswith("http://") else Path(origin)
    faults = seeded({"refuse": refuse})
    with FaultyServer(place, faults, delay_ms / 1e3, 1e6 * mb_per_s) as server:
        click.echo(server.url)
        with suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()
