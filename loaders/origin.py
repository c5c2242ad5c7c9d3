"""Files behind a URL, by obstore: every request is limited, tried again, and never a hang."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shards.bucket import check_credentials, explain, load_obstore
from shards.errors import FormatError, MissingBytes, StorageError

__all__ = ["OPENING_S", "RIGHTS", "SCHEMES", "Origin", "checked_url", "is_url", "over"]

SCHEMES = ("s3", "gs", "az", "http", "https")
MAX_PAUSE_S = 5.0  # between two tries
OPENING_S = 30.0  # a wrong address or a typo should not cost the whole deadline
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_PATH = re.compile(r"(/[A-Za-z0-9!_.*'()=~%+,-]+)*/*")
RIGHTS = {
    "s3": "the AWS_* credentials must allow to list and get objects there; a public bucket needs "
    "AWS_SKIP_SIGNATURE=true",
    "gs": "the GOOGLE_* credentials must allow to list and get objects there",
    "az": "the AZURE_* credentials must allow to list and get objects there",
}
_FINAL = ("FileNotFoundError", "NotFoundError", "PermissionDeniedError", "UnauthenticatedError",
          "NotSupportedError", "InvalidPathError", "UnknownConfigurationKeyError")  # fmt: skip
_CAUSE = re.compile(
    r"Connection refused|dns error|invalid peer certificate|Connection reset|TimedOut|"
    r"connection closed before message completed|kind: Timeout"
)
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_FINAL_STATUS = re.compile(r"status code: (4(?!08|29)\d\d|3\d\d)")
_T = TypeVar("_T")


def is_url(place: str) -> bool:
    """Tell a URL of any scheme from a path."""
    return _URL.match(place) is not None


class Origin:
    """A prefix of a store; files below it are read by byte ranges. Safe to use by many threads.

    Parameters
    ----------
    url : ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix`` or
        ``http(s)://host/prefix``; where it is and who may read comes from the usual ``AWS_*``,
        ``GOOGLE_*`` and ``AZURE_*`` variables of the environment
    timeout_s : a request on which nothing comes for so long is given up and made again
    deadline_s : the same of a request on which bytes come, but slowly, and of all tries together
    stopped : set when nobody waits for bytes any more

    Attributes
    ----------
    url : without what a user name or password in it says
    counts : ``requests``, ``bytes`` received, ``retries``

    Raises
    ------
    StorageError : if it is no such URL
    """

    def __init__(
        self, url: str, timeout_s: float, deadline_s: float, stopped: threading.Event
    ) -> None:
        self._given = url.rstrip("/")
        self._timeout_s, self._deadline_s, self._stopped = timeout_s, deadline_s, stopped
        self._scheme, self.url = checked_url(self._given)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._obstore: ModuleType | None = None
        self._store: Any = None

    def __str__(self) -> str:
        return self.url

    def child(self, name: str) -> Origin:
        """Return a longer prefix."""
        url = f"{self._given}/{name}"
        return Origin(url, self._timeout_s, self._deadline_s, self._stopped)

    def get(self, name: str, start: int, size: int, until: float | None = None) -> memoryview:
        """Bytes of a file; `size` is at least 1.

        Parameters
        ----------
        until : tries end at this time of `time.monotonic`; by default soon, see `OPENING_S`

        Raises
        ------
        MissingBytes : if there is no such file, or it ends before
        StorageError : if it cannot be had, after how many tries, and what the last answer was
        """
        what = f"bytes {start} to {start + size} of {self.url}/{name}"

        def once(obstore: ModuleType) -> memoryview:
            found = memoryview(obstore.get_range(self._store, name, start=start, length=size))
            with self._lock:
                self.counts["bytes"] += len(found)
            if len(found) != size:
                self._sizes.pop(name, None)
                whole = self.size(name, until)
                if whole < start + size:
                    raise _outside(what, whole)
                raise _Again(f"got {len(found)} of {size} bytes")
            return found

        return self._asking(what, once, until)

    def size(self, name: str, until: float | None = None) -> int:
        """Size of a file in bytes; asked for once.

        Raises
        ------
        StorageError : if it is not there, or no answer comes
        """
        if name not in self._sizes:
            self._sizes[name] = self._asking(
                f"{self.url}/{name}",
                lambda obstore: int(obstore.head(self._store, name)["size"]),
                until,
            )
        return self._sizes[name]

    def exists(self, name: str) -> bool:
        """Tell whether a file is there."""
        try:
            self.size(name)
        except _AbsentError:
            return False
        return True

    def folders(self) -> list[str]:
        """Names right below the prefix that others begin with, sorted. HTTP cannot tell."""
        found = self._asking(
            self.url, lambda obstore: obstore.list_with_delimiter(self._store)["common_prefixes"]
        )
        return sorted(str(name) for name in found)

    def _asking(
        self, what: str, once: Callable[[ModuleType], _T], until: float | None = None
    ) -> _T:
        """Make a request until it succeeds, is refused for good, or the time is over."""
        started = time.monotonic()
        if until is None:
            until = started + min(OPENING_S, self._deadline_s)
        obstore = self._opened()
        tries, reason = 0, "no time was left to ask"
        while time.monotonic() < until and not over(self._stopped):
            tries += 1
            with self._lock:
                self.counts["requests"] += 1
                self.counts["retries"] += tries > 1
            try:
                return once(obstore)
            except _Again as error:
                reason = str(error)
            except (obstore.exceptions.BaseError, OSError) as error:
                text = str(error)
                reason = _reason(text, RIGHTS.get(self._scheme, "the server refuses"))
                if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
                    raise _AbsentError(f"{what}: there is no such file") from error
                if _final(error, text):
                    raise _refused(what, text, reason) from error
            self._pause(tries, until)
        tried = f"{tries} tries in {time.monotonic() - started:.1f} s"
        raise StorageError(f"{what}: {reason}; {tried} (data.remote.deadline_s)")

    def _pause(self, tries: int, until: float) -> None:
        """Wait before the next try, twice as long each time; others' tries are spread."""
        spread = 0.75 + 0.5 * (threading.get_ident() // 4096 * 0.618 % 1)
        end = min(until, time.monotonic() + spread * min(MAX_PAUSE_S, 0.1 * 2 ** (tries - 1)))
        while not over(self._stopped) and (left := end - time.monotonic()) > 0:
            self._stopped.wait(min(0.5, left))

    def _opened(self) -> ModuleType:
        with self._lock:
            if self._obstore is None:
                self._obstore = load_obstore(self.url)
                self._store = self._connect(self._obstore)
            return self._obstore

    def _connect(self, obstore: ModuleType) -> Any:
        if self._scheme == "s3":
            check_credentials(self.url)
        client: dict[str, Any] = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=self._timeout_s),
            "read_timeout": timedelta(seconds=self._timeout_s),
            # A server that sends a byte now and then is not to be waited for either.
            "timeout": timedelta(seconds=max(self._timeout_s, self._deadline_s)),
            "pool_max_idle_per_host": "1024",
        }
        # Tries are counted here, where the deadline is known, not in obstore.
        retry = {"max_retries": 0, "retry_timeout": timedelta(seconds=self._deadline_s)}
        http = self._scheme in ("http", "https")
        make = obstore.store.HTTPStore.from_url if http else obstore.store.from_url
        try:
            return make(self._given, client_options=client, retry_config=retry)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise StorageError(f"{self.url}: {_reason(str(error), '')}") from error


class _AbsentError(MissingBytes):
    """There is no file of that name."""


class _Again(Exception):
    """An answer is wrong in a way that another try may mend."""


_OTHER_PACKING = (
    "it is truncated or of another packing than its index: upload the data set again, whole"
)


def _outside(what: str, size: int) -> MissingBytes:
    return MissingBytes(f"{what}: the file has {size}; {_OTHER_PACKING}")


def _reason(text: str, rights: str) -> str:
    """What an exception of obstore says, as short as it can be."""
    status, cause = _STATUS.search(text), _CAUSE.search(text)
    found = explain(text, rights)
    if "Account must be specified" in text:
        return "no account: set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY"
    if "no permission" in found or "credentials" in found or "bucket" in found:
        return found
    if status is not None:
        return f"the server answers {status[1]}"
    if cause is None:
        return found
    return f"no answer ({'nothing came in time' if 'Time' in cause[0] else cause[0]})"


def _refused(what: str, text: str, reason: str) -> StorageError:
    if "status code: 416" in text:
        return MissingBytes(f"{what}: outside the file; {_OTHER_PACKING}")
    if "range" in text.lower() and "not support" in text.lower():
        return StorageError(f"{what}: the server gives no byte ranges; serve by one that does")
    return StorageError(f"{what}: {reason}")


def _final(error: Exception, text: str) -> bool:
    """Whether asking again cannot help."""
    return type(error).__name__ in _FINAL or _FINAL_STATUS.search(text) is not None


def over(stopped: threading.Event) -> bool:
    """Whether nobody waits any more: the loader is closed, or the program is at its end."""
    return stopped.is_set() or not threading.main_thread().is_alive()


def checked_url(url: str) -> tuple[str, str]:
    """Scheme of a URL, and the URL without user name and password.

    Raises
    ------
    StorageError : if it is of no known scheme
    FormatError : if it has other parts than host and path, as a query or an object store's user
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        shown = url if len(url) < 40 and "@" not in url else f"{scheme}:..."
        raise StorageError(f"{shown}: data.path is a folder or one of s3, gs, az, http, https://")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    shown = f"{scheme}://{host or ''}{f':{port}' if port else ''}{parts.path if host else ''}"
    segments = {".", ".."} & set(parts.path.replace("%2e", ".").replace("%2E", ".").split("/"))
    if not host or parts.query or parts.fragment or segments or not _PATH.fullmatch(parts.path):
        raise FormatError(
            f"{shown}: expected {scheme}://{'host' if scheme[0] == 'h' else 'bucket'}/prefix, "
            "without '?', '#' and '..'"
        )
    if parts.username is not None and scheme not in ("http", "https"):
        raise FormatError(f"{shown}: credentials come from the environment, not from the URL")
    return scheme, shown
