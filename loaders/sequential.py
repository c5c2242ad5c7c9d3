"""``data.storage: sequential``: the one mode outside the plan, for sources without ranges.

Whole shards of every data set are streamed in shuffled order, split by rank, and pairs are drawn in
a window of tracks (`loaders.window`). Numbers are counter-based as in the plan, so the stream is a
pure function of data, configuration, seed, epoch, rank and world size. An epoch begins with empty
windows: its first batch comes when they are full. Every rank gives as many batches as any other,
whatever its shards: where they end, they begin again in another order.

A position is reached by streaming up to it from the beginning of its epoch, without decoding, so
resume costs the reading that led there (``frames_per_pair`` frames for every pair of this rank). It
is exact at the same world size and refused at another, whose ranks would hold other windows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from configs.strict import ConfigError
from loaders.config import PairConfig
from loaders.dealing import Stream, shard_order, stream
from loaders.plan import Plan, SamplerConfig
from loaders.sets import HOW_TO_GET_DATA, Chosen, choose, common_form, default_shards, leaving
from loaders.sources import Source, find_manifests, open_source
from loaders.stream_index import open_index
from loaders.streaming import Picture, Progress, ShardStream
from loaders.threads import Threads
from loaders.window import Drawn, Window, choose_dataset, pair_uniforms
from loaders.work import Stored, Work, augment, padded
from loaders.works import NO_ATTEMPTS, Attempts
from shards.errors import DataError, SiamstreamError, StorageError
from shards.format import INDEX_NAME, MANIFEST_NAME, Manifest, dataset_folders

__all__ = ["Sequential", "StreamSet", "make_plan"]

_RULE = ("image", "video", "max_gap", "category_cap")  # of data.sampler, known to the window


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamSet:
    """One packed data set that is read in order."""

    place: str
    manifest: Manifest
    shards: ShardStream
    weight: float


def open_source_streams(
    config: PairConfig, command: str | None, progress: Progress
) -> tuple[Source, Chosen[StreamSet]]:
    """Find the data sets of a configuration, waiting for none of its files for too long.

    Raises
    ------
    StorageError : also if nothing comes for ``timeout_s``; others as `open_streams`
    """
    _check_rule(config.sampler)
    source = open_source(config.path or default_shards(), config.timeout_s, command)
    progress.heard = time.perf_counter()
    opener = Threads(1, "opener")
    opening = opener.submit(open_streams, config, source, progress)
    try:
        while True:
            left_s = progress.heard + config.timeout_s - time.perf_counter()
            try:
                return source, opening.result(max(0.0, left_s))
            except FutureTimeout:
                if progress.heard + config.timeout_s <= time.perf_counter():
                    raise StorageError(
                        f"{source.where(MANIFEST_NAME)}: manifests and indexes did not come: "
                        f"nothing for data.timeout_s={config.timeout_s:g} s; the storage stalls"
                    ) from None
    except BaseException:
        progress.stop.set()
        source.abort()
        raise
    finally:
        opener.stop(0.0)


def open_streams(config: PairConfig, source: Source, progress: Progress) -> Chosen[StreamSet]:
    """Find the data sets of a source.

    Raises
    ------
    ConfigError : if the sampler asks for what a window cannot do, or the path is not readable so
    DataError, FormatError, MismatchError : as `loaders.sets.open_sets`
    StorageError : if the source does not answer
    """
    path = source.where("").rstrip("/")
    names = config.datasets or tuple(config.weights)
    manifests = find_manifests(source, names, config.datasets)
    found = {manifest.name: prefix for prefix, manifest in manifests.items()}
    if len(found) != len(manifests):
        raise DataError(f"{path}: two folders hold the same data set: {', '.join(sorted(found))}")
    if not found and not dataset_folders(Path(path)):
        raise DataError(f"{path}: no manifest.json there: {HOW_TO_GET_DATA}")
    places = {name: source.where(prefix).rstrip("/") for name, prefix in found.items()}
    use, missing, warnings = choose(config, path, places)
    used = [manifests[found[name]] for name in sorted(use)]
    for manifest in used:
        if manifest.in_place:
            raise DataError(
                f"{path}: {manifest.name} lies in a zip or in single files; sequential storage "
                "streams tar shards: pack it with 'python -m packer legacy'"
            )
    grid, crop_size = common_form(config, path, used)
    indexes = {
        manifest.name: open_index(source, found[manifest.name], manifest, progress)
        for manifest in used
    }
    without = [name for name, index in indexes.items() if index is None]
    if without:
        warnings.append(
            f"no {INDEX_NAME} of {', '.join(without)} in {path}: a damaged picture is found only "
            "at the end of its shard, after it was used; put the index beside the shards"
        )
    sets = tuple(
        StreamSet(
            place=places[manifest.name],
            manifest=manifest,
            shards=ShardStream(
                source,
                found[manifest.name],
                manifest,
                indexes[manifest.name],
                progress,
            ),
            weight=use[manifest.name] / sum(use.values()),
        )
        for manifest in used
    )
    return Chosen(
        sets=sets,
        missing=tuple(missing),
        warnings=(*warnings, *leaving(config, crop_size)),
        grid=grid,
        crop_size=crop_size,
    )


def _check_rule(rule: SamplerConfig) -> None:
    """A rule that the window would not follow is refused, not ignored."""
    default = SamplerConfig()
    for field in fields(rule):
        if field.name not in _RULE and getattr(rule, field.name) != getattr(default, field.name):
            raise ConfigError(
                f"data.sampler.{field.name}: data.storage 'sequential' draws in a window of "
                "tracks and knows only the published rule; leave it out, or use another storage"
            )


def make_plan(
    drawn: list[Drawn], dataset: list[int], sample: np.ndarray[Any, np.dtype[np.int64]]
) -> Plan:
    """Pairs as the plan has them."""
    return Plan(
        sample=sample,
        dataset=np.array(dataset, np.int64),
        template_row=np.array([one.template.row for one in drawn], np.int64),
        search_row=np.array([one.search.row for one in drawn], np.int64),
        kind=np.array([one.kind for one in drawn], np.int64),
        positive=np.array([one.template.track == one.search.track for one in drawn]),
        is_image=np.array([one.template.is_image for one in drawn]),
    )


def _stored(drawn: list[Drawn]) -> Stored:
    """Pictures and boxes of pairs; descriptions are read only now, of those that are drawn."""
    z: list[Picture] = [one.template.content for one in drawn]
    x: list[Picture] = [one.search.content for one in drawn]
    boxes = [one.sample().boxes.astype(np.float32) for one in x]
    others, mask = padded([run[1:] for run in boxes])
    return Stored(
        template=tuple(z),
        search=tuple(x),
        template_box=np.stack([one.sample().boxes[0] for one in z]).astype(np.float32),
        search_box=np.stack([run[0] for run in boxes]),
        other_boxes=others,
        other_mask=mask,
    )


class _Epoch:
    """The windows of one epoch, and how far it has come."""

    def __init__(
        self, config: PairConfig, sets: Chosen[StreamSet], epoch: int, rank: int, world_size: int
    ) -> None:
        self.epoch, self.consumed = epoch, 0
        self._streams: list[Stream] = []
        self.windows: list[Window] = []
        numbers = [len(one.shards.shards) for one in sets.sets]
        for at, one in enumerate(sets.sets):
            order = shard_order(config.seed, epoch, sum(numbers[:at]), numbers[at], sum(numbers))
            self._streams.append(
                stream(one.shards.read, order, rank, world_size, one.manifest.name)
            )
            frames = one.manifest.counts["frames"]
            self.windows.append(
                Window(self._streams[-1], config.sequential, config.sampler, one.weight, frames)
            )

    def close(self) -> None:
        """Close the shards that are open."""
        for one in self._streams:
            one.close()  # type: ignore[attr-defined]


class Sequential:
    """Batches of one rank from streams; see the module.

    Parameters
    ----------
    config : the ``data:`` section
    rank, world_size, batch_size : which samples are this rank's
    command : from the command line, in place of ``config.path``
    """

    def __init__(
        self,
        config: PairConfig,
        rank: int,
        world_size: int,
        batch_size: int,
        command: str | None = None,
    ) -> None:
        self._config, self._rank, self._world_size = config, rank, world_size
        self._batch_size, self._progress = batch_size, Progress()
        self._source, self.sets = open_source_streams(config, command, self._progress)
        for one in self.sets.sets:  # on every rank, so that none waits for one that has failed
            tracks = one.manifest.counts["tracks"]
            if tracks < world_size:
                raise DataError(
                    f"{one.place}: {tracks} tracks cannot be dealt out to {world_size} processes; "
                    "start fewer, or leave the data set out with --set data.datasets=..."
                )
        weights = np.cumsum([one.weight for one in self.sets.sets])
        self._bounds = weights[:-1] / weights[-1]
        self._epoch: _Epoch | None = None
        self._failure: tuple[tuple[int, int], SiamstreamError] | None = None

    def make(self, epoch: int, consumed: int, attempts: Attempts = NO_ATTEMPTS) -> Work:
        """Read on, or from the beginning of the epoch, and draw a batch; nothing is replaced.

        Raises
        ------
        StorageError, FormatError : if a shard cannot be read or is not what was packed; later
            batches then fail with the same error
        """
        assert not attempts, "open_works refuses data.max_bad_fraction"
        if self._failure and (epoch, consumed) > self._failure[0]:
            raise self._failure[1].with_traceback(None)
        self._failure = None
        try:
            return self._make(epoch, consumed)
        except BaseException as error:
            if isinstance(error, SiamstreamError):
                self._failure = (epoch, consumed), error
            self.close()
            raise

    def _make(self, epoch: int, consumed: int) -> Work:
        now = self._epoch
        if now is None or now.epoch != epoch or now.consumed > consumed:
            self.close()
            now = self._epoch = _Epoch(self._config, self.sets, epoch, self._rank, self._world_size)
        while now.consumed < consumed:
            self._skip(now, consumed)
        start, step = consumed + self._rank, self._world_size
        number = len(range(self._rank, self._batch_size, step))
        u = pair_uniforms(self._config.seed, epoch, start, number, step)
        dataset = choose_dataset(self._bounds, u)
        drawn = []
        for which, row in zip(dataset, u.tolist(), strict=True):
            now.windows[which].advance()
            drawn.append(now.windows[which].draw(row))
        now.consumed += self._batch_size
        sample = start + step * np.arange(number, dtype=np.int64)
        plan = make_plan(drawn, dataset, sample)
        return augment(self.sets, self._config, epoch, plan, _stored(drawn), step)

    def _skip(self, now: _Epoch, consumed: int) -> None:
        """Read on as a batch would, at most to a position, without drawing."""
        size = min(self._batch_size, consumed - now.consumed)
        start, step = now.consumed + self._rank, self._world_size
        number = len(range(self._rank, size, step))
        u = pair_uniforms(self._config.seed, now.epoch, start, number, step)
        for which in choose_dataset(self._bounds, u):
            now.windows[which].advance()
        now.consumed += size

    def announce(self, work: Work) -> None:
        """Nothing: its pictures have come already."""

    def forget(self, work: Work) -> None:
        """Nothing, as well."""

    def state(self) -> dict[str, Any]:
        """What the windows depend on beyond what the plan does."""
        return {
            "sequential": {
                "world_size": self._world_size,
                "batch_size": self._batch_size,
                **asdict(self._config.sequential),
            }
        }

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        """Pairs of the plan, of another world or of other windows are others."""
        if "sequential" not in state:
            return [
                "the state is not that of data.storage=sequential, whose pairs are others than the "
                "plan's (to go on with them: go on with the storage that it was made with)"
            ]
        before, now = state["sequential"], self.state()["sequential"]
        changed = [
            f"{key} was {before.get(key)}, now {value}"
            for key, value in now.items()
            if before.get(key) != value
        ]
        if not changed:
            return []
        return [
            f"{', '.join(changed)}, and with data.storage=sequential every rank draws from what it "
            "has streamed itself, which depends on these numbers (start again with the old ones)"
        ]

    def heard(self) -> float:
        """When bytes last came."""
        return self._progress.heard

    def stop(self) -> None:
        """End reading."""
        self._progress.stop.set()
        self._source.abort()

    def close(self, wait: bool = True) -> None:
        """Close the shards that are open, unless somebody may still read them."""
        if wait and self._epoch is not None:
            self._epoch.close()
            self._epoch = None
        self.sets.close(wait)
