"""A prefix of an S3 bucket as a `shards.sink.Sink`: what is uploaded appears whole, or not at all.

Where it is and who may write there comes from the usual ``AWS_*`` variables of the environment, of
every process that writes. Needs `obstore` (``pip install 'siamstream[remote]'``).
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from shards.errors import SiamstreamError, StorageError
from shards.format import check_file_name
from shards.sink import storage_error

if TYPE_CHECKING:
    from obstore.store import S3Store

__all__ = ["BucketSink", "check_credentials", "explain", "load_obstore"]

RETRIES = 8  # of a request, with growing pauses: about 25 s in all
_WRITING = "the AWS_* credentials must allow to list, get, put and delete objects there"
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9!_.*'()=-]+)*)/*")
_SECRET = re.compile(r"(https?://)[^/@\s]*@|\?[^\s)\"']+")  # user names and signatures in URLs
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_CREDENTIALS = (  # any of them says where credentials come from
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_NO_CREDENTIALS = (
    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL, if it "
    "is not Amazon's)"
)
_METADATA = "http://169.254.169.254"  # where a machine of Amazon's asks for those of its role


class BucketSink:
    """A prefix of an S3 bucket. Small and picklable: each process connects on its own.

    A file is written to an unnamed local temporary file first (in ``TMPDIR``) and uploaded when it
    is complete. There are no locks.

    Parameters
    ----------
    url : ``s3://bucket/prefix``

    Raises
    ------
    StorageError : if it is not such a URL
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if match is None or {".", ".."} & set(match[2].split("/")):
            raise StorageError(
                f"{url}: expected s3://bucket/prefix, the prefix of letters, digits and !-_.*'()="
            )
        self.url = f"s3://{match[1]}{match[2]}"

    def __str__(self) -> str:
        return self.url

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file locally; on a clean exit upload it. On an exception nothing appears."""
        check_file_name(name)
        try:
            with tempfile.TemporaryFile() as handle:
                yield handle
                handle.flush()
                handle.seek(0)
                with self._asking(name) as (obstore, store):
                    obstore.put(store, name, handle)
        except OSError as error:
            raise storage_error(error, Path(tempfile.gettempdir(), name)) from error

    def write(self, name: str, data: bytes) -> None:
        """Upload a whole small file."""
        with self._asking(check_file_name(name)) as (obstore, store):
            obstore.put(store, name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Upload a whole small file unless there is one of that name (``If-None-Match``)."""
        with self._asking(check_file_name(name)) as (obstore, store):
            try:
                obstore.put(store, name, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """Content of a file, or None if there is none of that name."""
        with self._asking(check_file_name(name)) as (obstore, store):
            try:
                return bytes(obstore.get(store, name).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in _CODE.findall(str(error)):
                    raise
                return None

    def _listed(self) -> tuple[dict[str, int], list[str]]:
        with self._asking("") as (obstore, store):
            found = obstore.list_with_delimiter(store)
        # An empty path is what consoles make of the prefix itself, as if it were a folder.
        files = {one["path"]: one["size"] for one in found["objects"] if one["path"]}
        return files, list(found["common_prefixes"])

    def sizes(self) -> dict[str, int]:
        """Sizes of the files right below the prefix."""
        return self._listed()[0]

    def entries(self) -> list[str]:
        """Names of the files right below the prefix, and first parts of longer names, sorted."""
        files, folders = self._listed()
        return sorted([*files, *folders])

    def exists(self) -> bool:
        """Tell whether anything is there."""
        return bool(self.entries())

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are passed over."""
        paths = [check_file_name(name) for name in names]
        if paths:
            with self._asking(paths[0]) as (obstore, store):
                obstore.delete(store, paths)

    def remove_all(self) -> None:
        """Remove all files right below the prefix."""
        self.remove(self.sizes())

    def child(self, name: str) -> BucketSink:
        """Return a longer prefix."""
        return BucketSink(f"{self.url}/{name}")

    @contextmanager
    def hold(self, name: str, *, shared: bool) -> Iterator[bool]:  # noqa: ARG002
        """Keep nobody out: writers of one plan write the same bytes."""
        yield False

    def clean(self) -> None:
        """Remove nothing: a killed writer leaves no file."""

    @contextmanager
    def _asking(self, name: str) -> Iterator[tuple[ModuleType, S3Store]]:
        """Give obstore and the store, and turn its errors into one sentence."""
        where = f"{self.url}/{name}" if name else self.url
        obstore = load_obstore(self.url)
        try:
            yield obstore, _store(self.url)
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise StorageError(f"{where}: {explain(str(error), _WRITING)}") from error


def load_obstore(url: str) -> ModuleType:
    """Import obstore, for a URL that needs it.

    Raises
    ------
    SiamstreamError : if it is not installed; names the extra that brings it
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise SiamstreamError(
            f"{url.partition('://')[0]}:// needs the package obstore: "
            "pip install 'siamstream[remote]'"
        ) from error
    return obstore


@lru_cache(maxsize=16)
def _store(url: str) -> S3Store:
    """Store of a URL in this process."""
    obstore = load_obstore(url)
    check_credentials(url)
    retry: dict[str, Any] = {
        "max_retries": RETRIES,
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
        "retry_timeout": timedelta(minutes=5),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    # A request carries up to 5 MB: the default of 30 s is short for a slow line.
    client = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": "10s",
        "timeout": "300s",
    }
    store: S3Store = obstore.store.S3Store.from_url(url, client_options=client, retry_config=retry)
    return store


def check_credentials(url: str) -> None:
    """Fail soon where nobody could give credentials: neither the environment nor the machine.

    Raises
    ------
    StorageError : names the variables to set
    """
    if any(os.environ.get(name) for name in _CREDENTIALS):
        return
    at = urlsplit(os.environ.get("AWS_METADATA_ENDPOINT") or _METADATA)
    try:
        socket.create_connection((at.hostname or "", at.port or 80), timeout=3).close()
    except OSError as error:
        raise StorageError(f"{url}: {_NO_CREDENTIALS}") from error


def explain(text: str, rights: str) -> str:
    """What a message of obstore means, and what to do, on one line without secrets.

    Parameters
    ----------
    text : of its exception
    rights : that the credentials must give, for messages
    """
    codes = _CODE.findall(text)
    code = codes[0] if codes else ""
    if code == "NoSuchBucket":
        return "there is no such bucket: make it, or give another URL"
    if "latest/api/token" in text or "latest/meta-data" in text:
        return _NO_CREDENTIALS
    if "403 Forbidden" in text or "401 Unauthorized" in text:
        return f"no permission ({code or 'refused'}): {rights}"
    if "error sending request" in text and text.startswith("Generic S3"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return f"no answer from {endpoint or 'Amazon S3'}; is AWS_ENDPOINT_URL right?"
    plain = " ".join(text.partition("\n\nDebug source")[0].split())
    return _SECRET.sub(r"\1", plain)[:400]
