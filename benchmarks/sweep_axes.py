"""What a sweep varies: one axis after the other, everything else as at its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.case import Case, WorkName

__all__ = [
    "AXES",
    "FACTORS",
    "Axis",
    "AxisName",
    "Point",
    "Sweep",
    "axis_of",
    "counted",
    "size_folder",
]

AxisName = Literal["workers", "batch", "size", "cache", "storage"]
AXES: tuple[AxisName, ...] = ("workers", "batch", "size", "cache", "storage")
BATCH_SIZES = (8, 32, 128)
FACTORS = (1, 2, 4, 8)  # of the smallest data
WARMUP_BATCHES = 6
PAIRS_A_CORE = 1024  # counted at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What is asked for.

    Attributes
    ----------
    data : packed data of the axes that do not make their own
    derived : folder of the baselines' files of `data`
    out : folder for the data of the axes ``size``, ``cache`` and ``storage``, see `size_folder`
    axes, works : which axes; which classes of work
    repeats : of every point
    seconds : that the clock of a run takes
    cores : that this process may use
    size_gb : of the smallest made data; the largest have `FACTORS` times as many
    delay_ms : of the server, before each answer
    """

    data: Path
    derived: Path
    out: Path
    axes: tuple[AxisName, ...] = AXES
    works: tuple[WorkName, ...] = ("recipe",)
    repeats: int = 5
    seconds: float = 0.7
    cores: int = 2
    size_gb: float = 0.1
    delay_ms: float = 30.0

    def base(self, work: WorkName) -> Case:
        """Case that the axes vary."""
        return counted(
            Case(
                data=str(self.data),
                derived=str(self.derived),
                work=work,
                pairs=PAIRS_A_CORE * max(2, self.cores),
                threads=self.cores,
                limit_s=self.seconds,
            )
        )

    @property
    def sizes_gb(self) -> dict[AxisName, tuple[float, ...]]:
        """Sizes of the data that each axis makes, but for those that make none."""
        sizes = tuple(self.size_gb * factor for factor in FACTORS)
        return {"size": sizes, "cache": sizes[-1:], "storage": sizes[-1:]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One place on an axis.

    Attributes
    ----------
    name : in results
    value : on a scale of numbers, else None
    case : what is run there
    cold : the files are put out of the page cache before each run
    remote : the data are read over a slow server
    """

    name: str
    value: float | None
    case: Case
    cold: bool = False
    remote: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis; `title`, `unit` and `scale` are for its picture."""

    name: AxisName
    title: str
    points: Sequence[Point]
    unit: str = ""
    scale: Literal["log2", "names"] = "log2"
    varied: tuple[str, ...] = field(default=())  # fields of the case that differ by point

    def case_facts(self) -> dict[str, Any]:
        """What all points have in common."""
        facts = self.points[0].case.facts()
        return {key: value for key, value in facts.items() if key not in self.varied}


def counted(case: Case) -> Case:
    """Return a case whose warm-up and pairs are whole rounds of the workers' batches."""
    warmup = case.threads * -(-WARMUP_BATCHES // case.threads)
    pairs = -(-case.pairs // case.batch_size) * case.batch_size
    return replace(case, warmup_batches=warmup, pairs=pairs)


def size_folder(out: Path, gb: float) -> Path:
    """Folder of made data of a size: ``data`` and ``derived`` are in it."""
    return out / f"{gb:g}gb"


def _made(sweep: Sweep, gb: float, base: Case) -> Case:
    folder = size_folder(sweep.out, gb)
    return replace(base, data=str(folder / "data"), derived=str(folder / "derived"))


def _workers(sweep: Sweep, base: Case) -> Axis:
    counts = {2**power for power in range(20) if 2**power <= sweep.cores}
    counts |= {sweep.cores, 2 * sweep.cores}
    return Axis(
        name="workers",
        title="decoding threads or worker processes",
        varied=("threads", "warmup_batches"),
        points=[
            Point(name=str(count), value=count, case=counted(replace(base, threads=count)))
            for count in sorted(counts)
        ],
    )


def _batch(_: Sweep, base: Case) -> Axis:
    return Axis(
        name="batch",
        title="pairs of a batch",
        unit="pairs",
        varied=("batch_size", "pairs"),
        points=[
            Point(
                name=str(size),
                value=size,
                case=counted(replace(base, batch_size=size, pairs=-(-base.pairs // size) * size)),
            )
            for size in BATCH_SIZES
        ],
    )


def _size(sweep: Sweep, base: Case) -> Axis:
    return Axis(
        name="size",
        title="size of the data",
        unit="GB",
        varied=("data", "derived"),
        points=[
            Point(name=f"{gb:g} GB", value=gb, case=_made(sweep, gb, base))
            for gb in sweep.sizes_gb["size"]
        ],
    )


def _cache(sweep: Sweep, base: Case) -> Axis:
    case = _made(sweep, sweep.sizes_gb["cache"][-1], base)
    return Axis(
        name="cache",
        title="page cache",
        scale="names",
        points=[
            Point(name="warm", value=None, case=case),
            Point(name="cold", value=None, case=case, cold=True),
        ],
    )


def _storage(sweep: Sweep, base: Case) -> Axis:
    case = _made(sweep, sweep.sizes_gb["storage"][-1], base)
    return Axis(
        name="storage",
        title="where the data lie",
        scale="names",
        varied=("data", "url"),
        points=[
            Point(name="local", value=None, case=case),
            Point(name=f"remote, {sweep.delay_ms:g} ms", value=None, case=case, remote=True),
        ],
    )


_BUILDERS: dict[AxisName, Callable[[Sweep, Case], Axis]] = {
    "workers": _workers,
    "batch": _batch,
    "size": _size,
    "cache": _cache,
    "storage": _storage,
}


def axis_of(sweep: Sweep, name: AxisName, work: WorkName) -> Axis:
    """One axis of a sweep."""
    return _BUILDERS[name](sweep, sweep.base(work))
