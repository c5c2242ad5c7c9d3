"""Packed data sets behind a URL: byte ranges fetched ahead, kept in memory until read and on disk.

The plan names every read of the next batches (`RemoteStorage.will_need`): ranges that the disk
cache lacks are fetched at once by a pool of threads, neighbours in one request; `read_many` waits
for them. Bytes are not trusted: the caller checks each range's CRC and asks once more, past every
cache, with `refetch`.

The threads use obstore's blocking calls: its asynchronous ones cost about as much CPU a request and
now and then abort the interpreter at its exit.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le

from configs.document import Contradiction
from loaders.cache import ShardCache, default_cache_dir
from loaders.mirror import fetch_index
from loaders.origin import Origin, over
from loaders.threads import Threads
from shards.errors import DataError, FormatError, MissingBytes, StorageError
from shards.format import MANIFEST_NAME, Manifest, check_crop_file, check_dataset_name
from shards.index import Index
from shards.storage import Range

__all__ = ["Remote", "RemoteConfig", "RemoteStorage", "coalesce"]

WASTE = (
    0.2  # bytes between neighbours that one request may fetch beside the wanted ones, as a share
)
RUN_BYTES = 4 << 20  # most bytes of one request
MANIFEST_READS = 6
MAX_FOLDERS = 100  # of a parent that are looked into
CLOSE_S = 10.0  # longest wait for requests under way when a loader is closed


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteConfig:
    """How data behind a URL are read.

    Attributes
    ----------
    cache_dir : folder for what is kept between runs, shared by all processes of the machine; by
        default $XDG_CACHE_HOME/siamstream or ~/.cache/siamstream
    cache_gb : pictures kept on disk at most; 0: none, only indexes are kept
    connections : requests of one process under way at once
    ahead_mb : memory for bytes that were fetched ahead and not read yet; what is beyond is fetched
        when it is read, which is slow: raise it with data.prefetch and large batches
    timeout_s : a request on which no byte comes for so long is given up and made again
    deadline_s : bytes that could not be had after so long are an error. Longer than the pause of a
        storage that a run should survive, shorter than data.timeout_s
    """

    cache_dir: str | None = None
    cache_gb: Annotated[float, Ge(0), Le(1e6)] = 20.0
    connections: Annotated[int, Ge(1), Le(512)] = 32
    ahead_mb: Annotated[float, Gt(0), Le(1e6)] = 256.0
    timeout_s: Annotated[float, Gt(0), Le(3600)] = 10.0
    deadline_s: Annotated[float, Gt(0), Le(1e5)] = 120.0

    def __post_init__(self) -> None:
        if 0 < self.cache_gb < 0.1:
            raise Contradiction(
                f"cache_gb is {self.cache_gb}: use 0 for no cache, or at least 0.1", "cache_gb"
            )


def coalesce(ranges: Iterable[Range]) -> list[list[Range]]:
    """Put ranges together that one request should fetch, each run in order of the offsets.

    A run is of one file, has no more than `RUN_BYTES`, and at most `WASTE` of what is wanted lies
    in the gaps between its ranges.
    """
    runs: list[list[Range]] = []
    end = wanted = gaps = 0
    for one in sorted(set(ranges)):
        gap = one.offset - end
        if (
            runs
            and runs[-1][0].file == one.file
            and max(gap, 0) + gaps <= WASTE * (wanted + one.size)
            and one.offset + one.size - runs[-1][0].offset <= RUN_BYTES
        ):
            runs[-1].append(one)
            gaps += max(gap, 0)
            wanted += one.size + min(gap, 0)  # ranges may overlap
        else:
            runs.append([one])
            gaps, wanted, end = 0, one.size, 0
        end = max(end, one.offset + one.size)
    return runs


@dataclass(eq=False, slots=True)
class _Ahead:
    """A range on its way, or fetched and not read yet.

    Attributes
    ----------
    users : reads that it was announced for
    until : tries of its request end at this time of `time.monotonic`
    """

    size: int
    until: float
    users: int = 1
    future: Future[memoryview] = field(default_factory=Future)


class Remote:
    """What the data sets of one loader share: address, connections, cache on disk.

    Parameters
    ----------
    url : of a data set, or of a parent of data sets
    config : see there

    Raises
    ------
    StorageError, FormatError : if the URL is of no known form
    """

    def __init__(self, url: str, config: RemoteConfig) -> None:
        self.config = config
        self.stopped = threading.Event()
        self.origin = Origin(url, config.timeout_s, config.deadline_s, self.stopped)
        given = config.cache_dir
        self._folder = Path(given).expanduser() if given else default_cache_dir()
        self.cache = ShardCache(self._folder, int(config.cache_gb * 1e9))
        self.pool = Threads(config.connections, "fetch")
        self._storages: list[RemoteStorage] = []

    def manifests(self, names: Sequence[str], only: bool) -> dict[str, Manifest]:
        """Manifests by the URL of their data sets: that of the URL itself, or those right below.

        HTTP cannot tell what is below: there, data sets are looked for by their names.

        Parameters
        ----------
        names : of data sets that the run may use
        only : leave out what is called otherwise

        Raises
        ------
        StorageError : if no answer comes, or reading is not allowed
        DataError : if there is none
        FormatError : if one is damaged
        """
        if self.origin.exists(MANIFEST_NAME):
            return {self.origin.url: _manifest(self.origin)}
        by_name = self.origin.url.startswith("http")
        below = list(names) if by_name else [one for one in self.origin.folders() if _may_be(one)]
        if len(below) > MAX_FOLDERS:
            raise DataError(
                f"{self.origin.url}: has no {MANIFEST_NAME} and more than {MAX_FOLDERS} folders: "
                "give the URL of a data set, or of a parent of a few"
            )
        found = {}
        for name in below:
            if only and name not in names:
                continue
            child = self.origin.child(name)
            if child.exists(MANIFEST_NAME):
                found[child.url] = _manifest(child)
        if by_name and not found:
            raise DataError(
                f"{self.origin.url}: no {MANIFEST_NAME} there, nor in {', '.join(below)} below it; "
                "folders cannot be listed over HTTP: give a data set's own URL, or name the data "
                "sets with --set data.datasets=A,B"
            )
        return found

    def open(self, url: str, manifest: Manifest) -> tuple[Index, RemoteStorage]:
        """Index, fetched if it is not kept yet, and storage of a data set.

        Raises
        ------
        StorageError : if the index cannot be had
        FormatError : if it is not the manifest's
        """
        own = url == self.origin.url
        origin = self.origin if own else self.origin.child(url.rpartition("/")[2])
        indexes = self._folder / "indexes"
        index = fetch_index(origin, manifest, indexes, self.config.deadline_s)
        storage = RemoteStorage(origin, self, str(manifest.index["sha256"]))
        self._storages.append(storage)
        return index, storage

    def stats(self) -> dict[str, float]:
        """Requests, bytes received and retries since the start; bytes read from the disk cache."""
        counts: Counter[str] = Counter()
        for storage in self._storages:
            counts += storage.counts()
        return {
            "remote_requests": counts["requests"],
            "remote_retries": counts["retries"],
            "remote_bytes": counts["bytes"],
            "cache_bytes": counts["cached"],
        }

    def stop(self) -> None:
        """Let everybody who waits for bytes fail soon. Nothing can be read afterwards."""
        self.stopped.set()
        for storage in self._storages:
            storage.fail_all()

    def close(self, wait: bool = True) -> None:
        """Stop the threads; a request that goes on for longer is left behind."""
        self.stop()
        self.pool.stop(CLOSE_S if wait else 0.0)
        self.cache.close()


def _may_be(folder: str) -> bool:
    """Tell whether a folder may be a data set's; others may lie beside them."""
    try:
        check_dataset_name(folder)
    except FormatError:
        return False
    return True


def _manifest(origin: Origin) -> Manifest:
    """Read a manifest until two answers agree: it alone has no checksum that is known before."""
    where = f"{origin.url}/{MANIFEST_NAME}"
    seen: set[bytes] = set()
    for _ in range(MANIFEST_READS):
        data = bytes(origin.get(MANIFEST_NAME, 0, max(1, origin.size(MANIFEST_NAME))))
        if data in seen:
            return Manifest.from_json(data, where)
        seen.add(data)
    raise FormatError(
        f"{where}: {MANIFEST_READS} answers, all different: the way there damages bytes, or "
        "somebody is writing it; use https, and try again"
    )


class RemoteStorage:
    """Files of one data set behind a URL, as a `shards.storage.Storage`. Safe for many threads.

    Parameters
    ----------
    origin : of the data set
    remote : what it shares with others
    content : what the bytes of all files depend on; names them in the cache
    """

    def __init__(self, origin: Origin, remote: Remote, content: str) -> None:
        self._origin, self._remote, self._content = origin, remote, content
        self._config, self._cache = remote.config, remote.cache
        self._lock = threading.Lock()
        self._ahead: dict[Range, _Ahead] = {}
        self._held = self._cached = 0  # bytes
        self._cache.use(content)

    def counts(self) -> Mapping[str, int]:
        """See `Remote.stats`."""
        return {**self._origin.counts, "cached": self._cached}

    @property
    def held(self) -> int:
        """Bytes fetched ahead, or on their way."""
        return self._held

    def size(self, file: str) -> int:
        """Size of a file in bytes."""
        return self._origin.size(check_crop_file(file))

    def will_need(self, ranges: Sequence[Range]) -> None:
        """Fetch ahead what the disk cache lacks, as far as memory for it goes."""
        real = (one for one in ranges if one.offset >= 0 and one.size > 0)
        fresh = [one for one in real if not self._cache.has(self._content, one)]
        self._fetch(fresh, ahead=True)

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Bytes of each range, in order, waiting for those that are on their way.

        Raises
        ------
        MissingBytes : if a file of some is not there, or ends before
        StorageError : if some cannot be had within ``deadline_s``
        """
        until = time.monotonic() + self._config.deadline_s
        found: dict[Range, memoryview] = {}
        waiting = {one: taken for one in ranges if (taken := self._take(one)) is not None}
        for one in ranges:
            if one in waiting or one in found:
                continue
            kept = self._local(one)
            if kept is not None:
                found[one] = kept
        missing = [one for one in dict.fromkeys(ranges) if one not in waiting and one not in found]
        waiting.update(self._fetch(missing, ahead=False))
        for one, ahead in waiting.items():
            found[one] = self._wait(one, ahead, until)
        return [found[one] for one in ranges]

    def refetch(self, one: Range) -> memoryview:
        """Bytes of a range from the origin itself, where others that came were not right.

        Raises
        ------
        StorageError : if they cannot be had
        """
        self._cache.forget(self._content, one)
        until = time.monotonic() + self._config.deadline_s
        found = self._origin.get(one.file, one.offset, one.size, until)
        self._cache.write(self._content, one, found)
        return found

    def forget(self, ranges: Sequence[Range]) -> None:
        """Take back what `will_need` was told once for each: nobody will read them."""
        with self._lock:
            for one in ranges:
                ahead = self._ahead.get(one)
                if ahead is not None:
                    self._release(one, ahead)

    def fail_all(self) -> None:
        """Let go of everything fetched ahead; those who wait for it get an error."""
        with self._lock:
            dropped, self._ahead, self._held = self._ahead, {}, 0
        for ahead in dropped.values():
            _fail(ahead, StorageError(f"{self._origin.url}: reading was ended"))

    def _local(self, one: Range) -> memoryview | None:
        """Bytes that need no request: none at all, or those in the disk cache."""
        check_crop_file(one.file)
        if one.offset < 0 or one.size < 0:
            raise StorageError(f"{self._origin.url}/{one.file}: no range: {one.offset}, {one.size}")
        if one.size == 0:
            return memoryview(b"")
        kept = self._cache.read(self._content, one)
        if kept is not None:
            self._cached += one.size
        return kept

    def _fetch(self, ranges: Sequence[Range], ahead: bool) -> dict[Range, _Ahead]:
        """Start requests; those not for reads ahead are forgotten here once they are done."""
        now, started = time.monotonic(), dict[Range, _Ahead]()
        until = now + self._config.deadline_s
        with self._lock:
            if ahead:
                self._drop_stale(now)
            for one in ranges:
                known = self._ahead.get(one) if ahead else None
                if known is not None:
                    known.users += 1
                elif one in started:
                    started[one].users += 1
                elif not ahead or self._held + one.size <= self._config.ahead_mb * 1e6:
                    started[one] = _Ahead(one.size, until)
                    if ahead:
                        self._ahead[one] = started[one]
                        self._held += one.size
        for run in coalesce(started):
            self._submit(run, [started[one] for one in run])
        return started

    def _submit(self, run: list[Range], aheads: list[_Ahead]) -> None:
        try:
            self._remote.pool.submit(self._run, run, aheads)
        except RuntimeError:  # closed
            for ahead in aheads:
                _fail(ahead, StorageError(f"{self._origin.url}: reading was ended"))

    def _drop_stale(self, now: float) -> None:
        """Forget what was announced for reads that never came. The lock is held."""
        limit = self._config.deadline_s
        for one in [one for one, ahead in self._ahead.items() if ahead.until + limit < now]:
            self._held -= self._ahead.pop(one).size

    def _take(self, one: Range) -> _Ahead | None:
        """What was fetched ahead for one read; None if it was not, or failed before."""
        with self._lock:
            ahead = self._ahead.get(one)
            if ahead is None:
                return None
            return None if self._release(one, ahead) else ahead

    def _release(self, one: Range, ahead: _Ahead) -> bool:
        """Let go of a range for one read; tell whether it failed. The lock is held."""
        failed = ahead.future.done() and ahead.future.exception() is not None
        ahead.users -= 1
        if ahead.users == 0 or failed:
            self._held -= self._ahead.pop(one).size
        return failed

    def _wait(self, one: Range, ahead: _Ahead, until: float) -> memoryview:
        while time.monotonic() < until and not over(self._remote.stopped):
            try:
                return ahead.future.result(min(0.5, max(0.0, until - time.monotonic())))
            except FutureTimeout:
                continue  # look whether somebody still waits: the program may be at its end
            except StorageError as error:  # many may wait for one: each gets its own
                kind = MissingBytes if isinstance(error, MissingBytes) else StorageError
                raise kind(str(error)) from error
        raise StorageError(
            f"{self._origin.url}/{one.file}: bytes {one.offset} to {one.offset + one.size} did not "
            f"come within data.remote.deadline_s={self._config.deadline_s:g} s, or reading ended"
        )

    def _run(self, run: list[Range], aheads: list[_Ahead]) -> None:
        """Fetch neighbours by one request, hand them over, then keep them on disk."""
        first = run[0]
        try:
            check_crop_file(first.file)
            size = max(one.offset + one.size for one in run) - first.offset
            data = self._origin.get(first.file, first.offset, size, aheads[0].until)
            parts = [data[one.offset - first.offset :][: one.size] for one in run]
            if len(run) > 1:  # one that waits for long must not keep the others' bytes
                parts = [memoryview(bytes(part)) for part in parts]
        except BaseException as error:  # noqa: BLE001 (who waits for it must hear of it)
            alone = isinstance(error, MissingBytes) and len(run) > 1  # some of them may be there
            for one, ahead in zip(run, aheads, strict=True):
                if alone:
                    self._submit([one], [ahead])
                else:
                    _fail(ahead, error)
            return
        for ahead, part in zip(aheads, parts, strict=True):
            with suppress(InvalidStateError):  # given up at the same moment
                ahead.future.set_result(part)
        for one, part in zip(run, parts, strict=True):
            self._cache.write(self._content, one, part)


def _fail(ahead: _Ahead, error: BaseException) -> None:
    with suppress(InvalidStateError):
        ahead.future.set_exception(error)
