"""Where whole files come from, start to end: a folder, HTTP, an object store, a command.

Shard names and URLs never reach webdataset's own openers, which run a shell for ``pipe:``; a
command is one of `loaders.pipes`.
"""

from __future__ import annotations

import io
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from configs.strict import ConfigError
from loaders.config import PIPE, PIPE_RULE
from loaders.origin import OPENING_S, RIGHTS, checked_url, is_url
from loaders.pipes import Command
from loaders.sets import may_hold
from shards.bucket import check_credentials, explain, load_obstore
from shards.errors import StorageError
from shards.format import MANIFEST_NAME, Manifest, check_dataset_name, dataset_folders

__all__ = ["Folder", "Source", "find_manifests", "open_source"]

PAUSE_S, MAX_PAUSE_S = 0.1, 5.0  # between tries of a file on a web server; pauses grow
_CHUNK = 1 << 20


class Source(Protocol):
    """A place with files that are read from start to end."""

    def open(self, name: str) -> BinaryIO:
        """Open a file; raises `FileNotFoundError` or another `OSError`, or `StorageError`."""

    def where(self, name: str) -> str:
        """Full name of a file, for messages."""

    def abort(self) -> None:
        """Make reads that hang end, where that is possible."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Files below a folder: a disk or a network mount."""

    path: Path

    def open(self, name: str) -> BinaryIO:
        """Open a file."""
        return (self.path / name).open("rb", buffering=_CHUNK)

    def where(self, name: str) -> str:
        """Path of a file."""
        return str(self.path / name)

    def abort(self) -> None:
        """Nothing can end a read that hangs in the kernel."""


class _Reply(io.RawIOBase):
    """A file of a web server. A reply that breaks off is asked for again and read past there.

    Parameters
    ----------
    web : the server
    name : of the file
    """

    def __init__(self, web: Web, name: str) -> None:
        self._web, self._name = web, name
        self._position, self._failures = 0, 0
        self._heard = time.monotonic()  # when a byte last came that was not there before
        self._reply: Any = None
        self._connect()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._heard = time.monotonic()  # while nobody read, nothing could come
        while True:
            try:
                size: int = self._reply.readinto(buffer)
                if size or not self._reply.length:
                    self._position += size
                    self._failures = 0
                    return size
                raise OSError(f"the reply ended {self._reply.length} bytes too early")
            except TimeoutError:
                raise  # there was time enough
            except (OSError, HTTPException) as error:
                self._pause(error)
                self._connect()

    def _connect(self) -> None:
        while True:
            self.close_reply()
            try:
                self._reply = self._web.ask(self._name)
                left = self._position
                while left:
                    left -= len(self._reply.read(min(left, _CHUNK)) or _ended())
            except HTTPError as error:
                error.close()
                said = f"{error.code} {error.reason}"
                if error.code in (404, 410):
                    raise FileNotFoundError(said) from error
                if error.code < 500 and error.code != 429:
                    raise OSError(f"the server answers {said}") from error
                self._pause(OSError(f"the server answers {said}"))
            except TimeoutError:
                raise
            except (OSError, HTTPException) as error:
                self._pause(error)
            else:
                return

    def _pause(self, error: Exception) -> None:
        """Wait before the next try, twice as long each time, while there is time for one."""
        self._failures += 1
        pause_s = min(MAX_PAUSE_S, PAUSE_S * 2**self._failures)
        if time.monotonic() + pause_s - self._heard > self._web.limit_s:
            raise OSError(f"{error} (asked {self._failures} times)") from error
        if self._web.ended.wait(pause_s):
            raise OSError("reading was ended") from error

    def close_reply(self) -> None:
        """Close the connection."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def close(self) -> None:
        self.close_reply()
        super().close()


def _ended() -> bytes:
    raise OSError("the reply ended too early")


class Web:
    """Files of a web server: plain GETs, no ranges.

    Parameters
    ----------
    url : of the folder; a user name and a password in it are sent, and shown nowhere
    timeout_s : longest wait for bytes

    Attributes
    ----------
    ended : set when nobody reads any more
    limit_s : all tries together may take so long since the last byte; less until the first answer
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        _, self.url = checked_url(url)
        self._timeout_s, self.ended = timeout_s, threading.Event()
        self.limit_s = min(OPENING_S, timeout_s)
        parts, self._headers = urlsplit(url), dict[str, str]()
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"

    def ask(self, name: str) -> Any:
        """Reply of the server, from the first byte of a file."""
        request = Request(self.where(name), headers=self._headers)  # http and https only
        reply = urlopen(request, timeout=self._timeout_s)
        self.limit_s = self._timeout_s
        return reply

    def open(self, name: str) -> BinaryIO:
        """Ask for a file."""
        return cast(BinaryIO, io.BufferedReader(_Reply(self, name), _CHUNK))

    def where(self, name: str) -> str:
        """URL of a file."""
        return f"{self.url}/{name}"

    def abort(self) -> None:
        """Ask for nothing again; a read under way ends by the socket's time limit."""
        self.ended.set()


class _Chunks(io.RawIOBase):
    """A file made of chunks that come one after the other."""

    def __init__(
        self,
        chunks: Iterator[Any],
        errors: type[Exception],
        reason: Callable[[Exception], str],
    ) -> None:
        self._chunks, self._left = chunks, memoryview(b"")
        self._errors, self._reason = errors, reason

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._left:
                self._left = memoryview(next(self._chunks, b""))
                if not self._left:
                    return 0
        except self._errors as error:
            raise OSError(self._reason(error)) from error
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class Objects:
    """Files of an object store, streamed by obstore; credentials come from the environment.

    Parameters
    ----------
    url : of the folder
    timeout_s : longest wait for bytes
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._scheme, self.url = checked_url(url)
        self._timeout_s = timeout_s

    def open(self, name: str) -> BinaryIO:
        """Ask for an object."""
        obstore = load_obstore(self.url)
        if self._scheme == "s3":
            check_credentials(self.url)
        limit = timedelta(seconds=self._timeout_s)
        client: Any = {
            "allow_http": True,
            "connect_timeout": limit,
            "read_timeout": limit,
            "timeout": timedelta(days=365),  # of a whole shard: none, but that cannot be said
        }
        errors = obstore.exceptions.BaseError
        try:
            store = obstore.store.from_url(
                self.url, client_options=client, retry_config={"retry_timeout": limit}
            )
            found = obstore.get(store, name)
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise OSError(explain(str(error), "")) from error
            raise FileNotFoundError("there is no such object") from error
        except (errors, ValueError) as error:
            raise OSError(self._reason(error)) from error
        chunks = iter(found.stream(min_chunk_size=_CHUNK))
        return cast(BinaryIO, io.BufferedReader(_Chunks(chunks, errors, self._reason), _CHUNK))

    def _reason(self, error: Exception) -> str:
        rights = RIGHTS.get(self._scheme, "the server refuses")
        return explain(str(error), rights)

    def where(self, name: str) -> str:
        """URL of an object."""
        return f"{self.url}/{name}"

    def abort(self) -> None:
        """Obstore's requests have limits."""


def open_source(path: str, timeout_s: float, command: str | None = None) -> Source:
    """Return the place that a path names.

    Parameters
    ----------
    path : folder, or ``http(s)://``, ``s3://``, ``gs://``, ``az://`` URL
    timeout_s : longest wait for a server
    command : of the command line, in place of the path

    Raises
    ------
    ConfigError : if it is a command that is not allowed
    StorageError, FormatError : if it is a URL of another kind, as `loaders.origin.checked_url`
    """
    if command is not None:
        return Command(command)
    if path.startswith(PIPE):
        raise ConfigError(f"data.path {path!r}: {PIPE_RULE}")
    if not is_url(path):
        return Folder(Path(path))
    of_web = path.partition(":")[0].lower() in ("http", "https")
    return (Web if of_web else Objects)(path.rstrip("/"), timeout_s)


def find_manifests(
    source: Source, names: tuple[str, ...], only: tuple[str, ...] = ()
) -> Mapping[str, Manifest]:
    """Manifests by the prefix of their files' names, ``""`` or ``"<data set>/"``.

    Parameters
    ----------
    source : the data set, or a parent of some
    names : of data sets to look for, where a place cannot be listed
    only : those that are wanted, if not all: others may well be damaged

    Raises
    ------
    FormatError : if one is damaged
    StorageError : if one cannot be read
    """
    if isinstance(source, Folder):
        folders = dataset_folders(source.path)
        if only and len(folders) > 1:
            folders = [folder for folder in folders if may_hold(folder, only)]
        prefixes = ["" if one == source.path else f"{one.name}/" for one in folders]
    else:
        prefixes = ["", *(f"{check_dataset_name(name)}/" for name in names)]
    found: dict[str, Manifest] = {}
    failure: StorageError | None = None
    for prefix in prefixes:
        where = source.where(prefix + MANIFEST_NAME)
        try:
            with source.open(prefix + MANIFEST_NAME) as handle:
                data = handle.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            failure = failure or StorageError(f"{where}: cannot be read: {error}")
            if isinstance(source, Command):  # it cannot tell an absent file from other failures
                continue
            raise failure from error
        found[prefix] = Manifest.from_json(data, where)
        if not prefix:
            break
    if failure and not found:
        raise failure
    return found
