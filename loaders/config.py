"""The ``data:`` section of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from configs.document import Contradiction
from loaders.origin import is_url
from loaders.plan import SamplerConfig
from loaders.recipe import Recipe
from loaders.remote import RemoteConfig
from loaders.window import SequentialConfig

__all__ = [
    "NOT_FOR_WORKERS",
    "PIPE",
    "PIPE_RULE",
    "BackendName",
    "DaliConfig",
    "PairConfig",
    "PixelType",
    "StorageName",
]

BackendName = Literal["auto", "dali", "cpu", "dali-cpu", "reference"]
PixelType = Literal["uint8", "float16", "bfloat16", "float32"]
StorageName = Literal["auto", "shards", "zip", "zip-memory", "files", "sequential"]
# Storages that ``workers`` cannot share, and why.
NOT_FOR_WORKERS: Mapping[str, str] = {
    "sequential": "a stream is read in one process",
    "zip-memory": "each of them would hold a copy of all files",
}

PIPE = "pipe:"
PIPE_RULE = (
    "a 'pipe:' command runs a shell, so it is taken from the command line alone, with train.py "
    "--data 'pipe:COMMAND {}' --allow-pipe, and never from a configuration, manifest or index"
)

PUBLISHED_WEIGHTS = {"coco": 0.15, "got10k": 0.30, "lasot": 0.30, "trackingnet": 0.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class DaliConfig:
    """How the backend ``dali`` decodes. `python -m benchmarks gpu` finds what is best on a GPU.

    Attributes
    ----------
    region : decode the part of a picture that its crop needs, and not the whole. Whole pictures
        are for GPUs or drivers on which regions fail, or are slower
    hw_decoder_load : share of the pictures that the GPU's JPEG engine is given, where it has one;
        the others are decoded by its general cores, with help of ``threads``
    fancy_upsampling : on the GPU interpolate chroma as the CPU's decoder does, so that pixels are
        nearer to the reference's, instead of repeating each value of 4:2:0 chroma. Slower; with
        ``region`` and nvJPEG before 13.2 nvImageCodec leaves such pictures to a decoder on the CPU:
        set ``region`` to false with it
    """

    region: bool = True
    hw_decoder_load: Annotated[float, Ge(0), Le(1)] = 0.65
    fancy_upsampling: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Which data, which pairs, which pixels.

    Attributes
    ----------
    path : a folder with a manifest.json, or a parent of such; by default $SIAMSTREAM_SHARDS or
        data/shards. Also a URL of such, s3://, gs://, az://, http:// or https://
    datasets : names of the data sets to use, all of which must be there; empty: those of `weights`
        that are there
    weights : share of the pairs by data set; renormalised over the data sets used
    require_all : a data set of `weights` that is not there is an error instead of a warning
    storage : how the bytes are read. ``auto``: from the files of whatever form a data set has.
        ``shards``, ``zip``, ``files``: the same, but it must be tar shards, a zip or a folder of
        crops. ``zip-memory``: files of any form, read once into the memory of each process, as the
        published recipe does with zips. ``sequential``: whole shards in order, for sources without
        ranges, with pairs inside a window of tracks
    sequential : bounds of the window of ``storage: sequential``
    backend : what decodes and augments; ``auto``: dali with CUDA, else cpu
    dali : how ``dali`` decodes
    threads : decoding threads of one process; 0: the cores that it may use, in training shared
        among the processes of the machine
    prefetch : batches made ahead
    workers : processes that plan batches and read their pictures ahead, for each process that
        trains; 0: threads of its own do it. For a GPU that decodes faster than one Python process
        can read. For data on this machine's file systems, and not for ``zip-memory``
    timeout_s : waiting longer than this for a batch is an error, never a hang. Decoding in DALI
        and in the reference backend, which only work on bytes already read, is not interrupted
    max_bad_fraction : share of a rank's pairs that may hold a damaged picture and be replaced; 0:
        the first damaged picture is an error. Counted anew when a run resumes (`loaders.faults`)
    pixels : type of the pixels; uint8 is 0..255, the others are normalised
    channels_last : memory layout of the pixels; ``train.channels_last`` switches it on too
    template_px : side of the template's crop; training takes 255
    search_px : side of the search crop; training takes 255
    pairs_per_epoch : samples of one epoch
    seed : of the sample stream
    sampler : which pairs
    recipe : which augmentations
    remote : how data behind a URL are read
    """

    path: str | None = None
    datasets: tuple[str, ...] = ()
    weights: Mapping[str, Annotated[float, Gt(0), Le(1e9)]] = field(
        default_factory=lambda: dict(PUBLISHED_WEIGHTS)
    )
    require_all: bool = False
    storage: StorageName = "auto"
    sequential: SequentialConfig = field(default_factory=SequentialConfig)
    backend: BackendName = "auto"
    dali: DaliConfig = field(default_factory=DaliConfig)
    threads: Annotated[int, Ge(0), Le(1024)] = 0
    prefetch: Annotated[int, Ge(1), Le(1024)] = 4
    workers: Annotated[int, Ge(0), Le(256)] = 0
    timeout_s: Annotated[float, Gt(0), Le(1e6)] = 300.0
    max_bad_fraction: Annotated[float, Ge(0), Le(0.5)] = 0.0
    pixels: PixelType = "uint8"
    channels_last: bool = False
    template_px: Annotated[int, Ge(16), Le(4096)] = 255
    search_px: Annotated[int, Ge(16), Le(4096)] = 255
    pairs_per_epoch: Annotated[int, Ge(1), Le(1 << 48)] = 320_000
    seed: Annotated[int, Ge(0), Lt(1 << 64)] = 7
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    recipe: Recipe = field(default_factory=Recipe)
    remote: RemoteConfig = field(default_factory=RemoteConfig)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.lstrip().startswith(PIPE):
            raise Contradiction(f"path {self.path!r}: {PIPE_RULE}", "path")
        if self.workers and self.storage in NOT_FOR_WORKERS:
            raise Contradiction(
                f"workers is {self.workers} with storage {self.storage!r}: "
                f"{NOT_FOR_WORKERS[self.storage]}; give 0",
                "workers",
                "storage",
            )
        ranges = self.storage != "sequential" and self.path is not None and is_url(self.path)
        if ranges and self.remote.deadline_s >= self.timeout_s:
            raise Contradiction(
                f"remote.deadline_s is {self.remote.deadline_s:g} and timeout_s {self.timeout_s:g}:"
                " bytes that are late would not be named; give --set data.remote.deadline_s="
                f"{self.timeout_s / 2:g}, or raise data.timeout_s",
                "remote.deadline_s",
                "timeout_s",
                "path",
            )
