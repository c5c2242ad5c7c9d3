"""Where whole files come from, start to end: a folder, HTTP, an object store, a command.

Shard names and URLs never reach webdataset's own openers, which run a shell for ``pipe:``; a
command is one of `loaders.pipes`.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from configs.strict import ConfigError
from loaders.config import PIPE, PIPE_RULE
from loaders.pipes import Command
from loaders.sets import may_hold
from shards.errors import SiamstreamError, StorageError
from shards.format import MANIFEST_NAME, Manifest, check_dataset_name, dataset_folders

__all__ = ["Folder", "Source", "find_manifests", "is_url", "open_source"]

OBJECT_STORES = ("s3", "gs", "az")
RETRIES, PAUSE_S = 4, 0.1  # of a file on a web server; pauses grow
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
    url : of the file
    timeout_s : longest wait for bytes
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._position, self._failures = 0, 0
        self._reply: Any = None
        self._connect()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                size: int = self._reply.readinto(buffer)
                if size or not self._reply.length:
                    self._position += size
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
                self._reply = urlopen(self._url, timeout=self._timeout_s)  # http and https only
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
        self._failures += 1
        if self._failures > RETRIES:
            raise OSError(f"{error} (asked {self._failures} times)") from error
        time.sleep(PAUSE_S * 2**self._failures)

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


@dataclass(frozen=True, slots=True)
class Web:
    """Files of a web server: plain GETs, no ranges."""

    url: str
    timeout_s: float

    def open(self, name: str) -> BinaryIO:
        """Ask for a file."""
        return cast(BinaryIO, io.BufferedReader(_Reply(self.where(name), self.timeout_s), _CHUNK))

    def where(self, name: str) -> str:
        """URL of a file."""
        return f"{self.url}/{name}"

    def abort(self) -> None:
        """The socket has a time limit."""


class _Chunks(io.RawIOBase):
    """A file made of chunks that come one after the other."""

    def __init__(self, chunks: Iterator[Any], errors: type[Exception]) -> None:
        self._chunks, self._left, self._errors = chunks, memoryview(b""), errors

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._left:
                self._left = memoryview(next(self._chunks, b""))
                if not self._left:
                    return 0
        except self._errors as error:
            raise OSError(" ".join(str(error).split())[:300]) from error
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


@dataclass(frozen=True, slots=True)
class Objects:
    """Files of an object store, streamed by obstore; credentials come from the environment."""

    url: str
    timeout_s: float

    def open(self, name: str) -> BinaryIO:
        """Ask for an object."""
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise SiamstreamError(
                f"{self.url} needs the package obstore: pip install 'siamstream[remote]'"
            ) from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        client: Any = {"allow_http": endpoint.startswith("http://"), "timeout": "3600s"}
        retry: Any = {"retry_timeout": timedelta(seconds=self.timeout_s)}
        try:
            store = from_url(self.url, client_options=client, retry_config=retry)
            found = obstore.get(store, name)
        except BaseError as error:
            raise OSError(" ".join(str(error).split())[:300]) from error
        chunks = iter(found.stream(min_chunk_size=_CHUNK))
        return cast(BinaryIO, io.BufferedReader(_Chunks(chunks, BaseError), _CHUNK))

    def where(self, name: str) -> str:
        """URL of an object."""
        return f"{self.url}/{name}"

    def abort(self) -> None:
        """Obstore's requests have limits."""


def is_url(path: str) -> bool:
    """Whether files come from a server instead of a folder."""
    return "://" in path


def open_source(path: str, timeout_s: float, command: str | None = None) -> Source:
    """Return the place that a path names.

    Parameters
    ----------
    path : folder, or ``http(s)://``, ``s3://``, ``gs://``, ``az://`` URL
    timeout_s : longest wait for a server
    command : of the command line, in place of the path

    Raises
    ------
    ConfigError : if it is a URL of another kind, or a command that is not allowed
    """
    if command is not None:
        return Command(command)
    if path.startswith(PIPE):
        raise ConfigError(f"data.path {path!r}: {PIPE_RULE}")
    if not is_url(path):
        return Folder(Path(path))
    scheme = urlsplit(path).scheme
    if scheme in ("http", "https"):
        return Web(path.rstrip("/"), timeout_s)
    if scheme in OBJECT_STORES:
        return Objects(path.rstrip("/"), timeout_s)
    known = ", ".join(f"{one}://" for one in ("http", "https", *OBJECT_STORES))
    raise ConfigError(f"data.path {path!r}: sequential storage reads folders and {known}")


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
