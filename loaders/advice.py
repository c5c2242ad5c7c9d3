"""What the figures of ``loaders doctor`` mean: the bottleneck, and the setting to change.

A pair passes storage, decode and augment in the same pool of threads, so their times add up there;
planning and handing over happen beside it, each in a thread of its own. The loader is as fast as
the slowest of the three. Pure functions: figures in, words out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loaders.config import NOT_FOR_WORKERS

__all__ = [
    "Setting",
    "Stage",
    "StageName",
    "advice",
    "bottleneck",
    "expected_pairs_per_s",
    "facts_of",
    "notes",
]

StageName = Literal["storage", "decode", "augment", "plan", "hand-over"]
POOLED: tuple[StageName, ...] = ("storage", "decode", "augment")
_FEW_PICTURES, _FEW_BYTES = 1_000, 200_000_000
_SCALES = 1.3  # two threads that bring less than this factor do not help


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What one stage can do, alone.

    Attributes
    ----------
    name : of the stage
    one_thread, all_threads : pairs a second with one thread and with the configured number; the
        same for a stage that has one thread
    """

    name: StageName
    one_thread: float
    all_threads: float

    @property
    def ms(self) -> float:
        """Milliseconds a pair with the configured threads."""
        return 1e3 / self.all_threads


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What an advice depends on.

    Attributes
    ----------
    backend, pixels, template_px, threads : of the configuration, resolved
    cores : that this process may use
    cuda : there is a CUDA device
    cold : the pictures came from disk, not from memory, or over the network, not from the disk
        cache; None where that is not known
    pictures, data_bytes : of the data sets
    memory_bytes : that programs and page cache can still take
    storage, workers : of the configuration
    connections, ahead_mb, cache_gb : of remote data; 0 connections: the data are not behind a URL
    """

    backend: str
    pixels: str
    template_px: int
    threads: int
    cores: int
    cuda: bool
    cold: bool | None
    pictures: int
    data_bytes: int
    memory_bytes: int
    connections: int = 0
    ahead_mb: float = 0.0
    cache_gb: float = 0.0
    storage: str = "auto"
    workers: int = 0


def _pool_ms(stages: Sequence[Stage]) -> float:
    return sum(one.ms for one in stages if one.name in POOLED)


def expected_pairs_per_s(stages: Sequence[Stage]) -> float:
    """Pairs a second that a loader can make of these stages."""
    return 1e3 / max(_pool_ms(stages), *(one.ms for one in stages if one.name not in POOLED))


def bottleneck(stages: Sequence[Stage]) -> Stage:
    """Return the stage that decides how fast the loader is.

    A thread beside the pool decides if it is slower than the whole pool; else the stage that takes
    most of the pool's time.
    """
    beside = max((one for one in stages if one.name not in POOLED), key=lambda one: one.ms)
    if beside.ms > _pool_ms(stages):
        return beside
    return max((one for one in stages if one.name in POOLED), key=lambda one: one.ms)


def advice(stage: StageName, setting: Setting) -> list[str]:
    """Say what to change if a stage is the bottleneck, the cheapest first."""
    match stage:
        case "storage":
            return _storage_advice(setting)
        case "decode" | "augment":
            return _pixel_advice(stage, setting)
        case "plan":
            told = ["larger batches: a batch is planned at once, at a nearly constant price"]
            shared = setting.storage not in NOT_FOR_WORKERS
            if shared and not setting.connections and not setting.workers:
                told.append("data.workers=4: processes that plan, and read, beside this one")
            return told
        case "hand-over":
            return _hand_over_advice(setting)


def _remote_advice(setting: Setting) -> list[str]:
    """Of data behind a URL: more requests at once, memory for what they bring, and keeping it."""
    data_gb = setting.data_bytes / 1e9
    if not setting.cold:
        return [
            "data.remote.cache_dir on a faster disk: the pictures came from the disk cache, and "
            "yet reading is slow"
        ]
    told = [
        f"data.remote.connections={min(512, 2 * setting.connections)}: more requests under way at "
        "once, against a long latency",
        f"data.remote.ahead_mb={2 * setting.ahead_mb:g}, with a larger data.prefetch: what is "
        f"beyond {setting.ahead_mb:g} MB is fetched only when it is read",
        "a place nearer to the data, or a copy of them on a local disk (data.path)",
    ]
    if data_gb <= setting.cache_gb:
        kept = (
            f"nothing, perhaps: data.remote.cache_gb={setting.cache_gb:g} holds all of the data "
            f"({data_gb:,.1f} GB), and the next epoch finds there what this one fetched"
        )
        return [kept, *told]
    more = (
        f"data.remote.cache_gb={1.1 * data_gb:.3g}, where there is disk for it: "
        f"{setting.cache_gb:g} GB do not hold the data, the rest is fetched in every epoch"
    )
    return [*told, more]


def _storage_advice(setting: Setting) -> list[str]:
    if setting.connections:
        return _remote_advice(setting)
    more_reads = f"data.threads={2 * setting.threads}: more reads under way at once"
    if not setting.cold:
        return [
            more_reads,
            "a local disk: nothing was read from a disk of this machine, and yet reading is slow; "
            "a network file system may answer slowly (data.path)",
        ]
    told = [more_reads, "a faster disk, or a copy on a local one (data.path)"]
    if 0 < setting.data_bytes < setting.memory_bytes / 2:
        told.insert(
            0,
            f"nothing, perhaps: the data ({setting.data_bytes / 1e9:,.1f} GB) fit into memory, and "
            "once read they stay there",
        )
    return told


def _pixel_advice(stage: StageName, setting: Setting) -> list[str]:
    told = []
    if setting.cuda and setting.backend != "dali":
        told.append("data.backend=dali: decode and augment on the GPU")
    if not setting.cuda and setting.backend in ("reference", "dali-cpu"):
        told.append(
            f"data.backend=cpu: '{setting.backend}' is there to be compared with, and several "
            "times as slow"
        )
    if setting.backend != "reference" and setting.threads < setting.cores:
        told.append(f"data.threads={setting.cores}: this process may use {setting.cores} cores")
    if setting.template_px > 127:
        told.append(
            "data.template_px=127, if the model does not cut its template from 255 px: a smaller "
            "region to decode and to warp"
        )
    what = "decoding JPEG" if stage == "decode" else "warp and colour"
    left = "a faster or further GPU" if setting.backend == "dali" else "more cores, or a GPU"
    return [*told, f"{left}: {what} is work that has to be done"]


def _hand_over_advice(setting: Setting) -> list[str]:
    if setting.pixels == "uint8" or (setting.backend == "cpu" and not setting.cuda):
        return ["fewer bytes: a smaller data.search_px or data.template_px; data.channels_last"]
    return [
        f"data.pixels=uint8, and loaders.batch.normalise on the device: {setting.pixels} is made "
        "in the training thread"
    ]


def notes(
    setting: Setting, measured: float, stages: Sequence[Stage], scaling: float
) -> tuple[str, ...]:
    """Say what makes the figures less certain than they look.

    Parameters
    ----------
    setting : of the run
    measured : pairs a second of the whole loader
    stages : each alone
    scaling : pairs a second of the whole loader, all threads against one
    """
    told = []
    if setting.backend == "dali":
        told.append("decode stands for decode and augment, which are one graph on the GPU")
    if setting.pictures < _FEW_PICTURES or setting.data_bytes < _FEW_BYTES:
        told.append(
            f"the data set is too small to tell how its storage behaves: {setting.pictures:,} "
            f"pictures, {setting.data_bytes / 1e6:,.1f} MB stay in memory once they were read"
        )
    if setting.threads > setting.cores:
        told.append(
            f"data.threads is {setting.threads}, this process may use {setting.cores} core(s): the "
            "rest only waits"
        )
    has_pool = setting.backend != "reference" and 1 < setting.threads <= setting.cores
    if has_pool and scaling < _SCALES:
        told.append(
            f"{setting.threads} threads make {scaling:.2f} times the pairs of one: are other "
            "programs busy on these cores?"
        )
    expected = expected_pairs_per_s(stages)
    if measured < 0.6 * expected:
        told.append(
            f"the loader makes {measured:,.0f} pairs/s where its stages alone allow "
            f"{expected:,.0f}: other programs take the cores, or the run was too short (--seconds)"
        )
    return tuple(told)


def facts_of(stage: Stage) -> Mapping[str, float | str]:
    """JSON values of a stage."""
    return {
        "stage": stage.name,
        "pairs_per_s_one_thread": stage.one_thread,
        "pairs_per_s": stage.all_threads,
        "ms_per_pair": stage.ms,
    }
