"""What every contestant of one run is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge

__all__ = ["LEAST_ROUNDS", "TAIL_BATCHES", "WORKS", "Case", "Served", "WorkName"]

# What is done with a picture. ``plain``: decode, crop, resize, normalise to float32, which every
# loader can do. ``recipe``: the published augmentation, complete, as uint8.
WorkName = Literal["plain", "recipe"]
WORKS: tuple[WorkName, ...] = ("plain", "recipe")

# Batches planned beyond the last that is counted: readers ahead stay as busy as in the middle of an
# epoch, so what they made before the clock started is paid for by what they make at the end.
TAIL_BATCHES = 12

# Rounds of batches (one of each worker) that a clock with a limit of seconds counts at least:
# workers hand over their batches in bursts, and a clock that stops within one counts too few or
# too many.
LEAST_ROUNDS = 4


class Served(NamedTuple):
    """One batch as a contestant hands it over.

    Attributes
    ----------
    sample : numbers in the epoch of its B pairs
    template, search : (B, 3, S, S) tensors, or None from a contestant that makes no pixels
    """

    sample: list[int]
    template: Any
    search: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One piece of work, the same for all contestants but for `pairs` of the very slow ones.

    Attributes
    ----------
    work : what is done with a picture, see `WORKS`
    data : packed data sets, a folder with a manifest or a parent of such
    derived : folder of what the baselines need (zips, extracted files), see `benchmarks.derived`
    pairs : counted, a multiple of `batch_size`
    warmup_batches : made and dropped before the clock starts
    batch_size : pairs of one batch
    threads : decoding threads of ours, worker processes of the baselines
    template_px, search_px : sides of the crops
    seed : of the sample stream
    url : the same data behind a server, for contestants that read remotely; else empty
    dali : keys of ``data.dali`` that ours are given
    workers : processes that plan and read for ours, ``data.workers``
    limit_s : the clock stops after so many seconds, when each worker has handed over equally many
        batches, at least `LEAST_ROUNDS`; 0: after `pairs`
    """

    data: str
    derived: str
    work: WorkName = "recipe"
    pairs: Annotated[int, Ge(1)] = 1024
    warmup_batches: Annotated[int, Ge(1)] = 6
    batch_size: Annotated[int, Ge(1)] = 32
    threads: Annotated[int, Ge(1)] = 2
    template_px: Annotated[int, Ge(16)] = 255
    search_px: Annotated[int, Ge(16)] = 255
    seed: Annotated[int, Ge(0)] = 7
    url: str = ""
    dali: Mapping[str, Any] = field(default_factory=dict)
    workers: Annotated[int, Ge(0)] = 0
    limit_s: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        if self.pairs % self.batch_size:
            raise ValueError(
                f"pairs {self.pairs} must be a multiple of the batch size {self.batch_size}"
            )

    @property
    def batches(self) -> int:
        """Batches counted."""
        return self.pairs // self.batch_size

    @property
    def planned_batches(self) -> int:
        """Batches that a contestant must be able to make: warm-up, counted, tail."""
        return self.warmup_batches + self.batches + max(TAIL_BATCHES, 2 * self.threads)

    @property
    def planned_pairs(self) -> int:
        """Pairs of all planned batches."""
        return self.planned_batches * self.batch_size

    @property
    def derived_folder(self) -> Path:
        """Folder of the baselines' files."""
        return Path(self.derived)

    def starts(self) -> Iterator[int]:
        """First sample of every planned batch."""
        yield from range(0, self.planned_pairs, self.batch_size)

    def facts(self) -> dict[str, Any]:
        """Every field, as it goes to a contestant's process and into a result."""
        return asdict(self)
