"""Pack all data sets that are there, one after the other; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packer import catalogue
from packer.draft import Progress, silent
from packer.jobs import PackOptions
from packer.report import Report
from packer.run import OnError, pack
from packer.share import Share
from shards.errors import KNOWN_ERRORS, DataError, one_line
from shards.sink import Sink, sink_of

__all__ = ["Result", "State", "pack_all", "table"]

State = Literal["packed", "complete", "planned", "failed", "absent"]
_HEAD = ("data set", "frames", "sequences", "shards", "MB", "left out", "missing", "state")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one data set.

    Attributes
    ----------
    name : of the data set
    state : ``complete`` if it was packed before
    report : unless it is absent or failed
    error : why it failed, as one data set's command would print it
    """

    name: str
    state: State
    report: Report | None = None
    error: str | None = None

    def facts(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "state": self.state,
            "error": self.error,
            "report": None if self.report is None else self.report.facts(),
        }

    def row(self) -> tuple[str, ...]:
        """Cells of its line in the table."""
        report = self.report
        if report is None:
            return (self.name, *["-"] * (len(_HEAD) - 2), self.state)
        counts = (report.frames, report.sequences, report.shards)
        left_out = sum(report.rejected.values())
        return (
            self.name,
            *(f"{count:,}" for count in counts),
            "-" if report.dry_run else f"{report.bytes / 1e6:,.1f}",
            f"{left_out:,}",
            f"{len(report.missing):,}",
            self.state,
        )


def pack_all(
    raw: Path,
    out: Path | Sink,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    share: Share | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Iterator[Result]:
    """Pack every data set below a folder with its default options.

    Parameters
    ----------
    raw, out : parents; data set ``x`` lies in ``raw/x`` and goes to ``out/x``
    workers, executor, share, on_error, dry_run, progress : as in `packer.run.pack`
    options : of `PackOptions`, for all of them

    Raises
    ------
    DataError : if there is none
    """
    names = catalogue.names()
    there = [name for name in names if (raw / name).exists()]
    if not there:
        raise DataError(
            f"no data set below {raw}: expected a folder with one of the names "
            f"{', '.join(names)}; give their parent with --root or as SIAMSTREAM_RAW, or make demo "
            "data with 'python -m packer demo'"
        )
    for name in names:
        if name not in there:
            yield Result(name=name, state="absent")
            continue
        named = _named(progress, f"{name} ({there.index(name) + 1} of {len(there)})")
        try:
            dataset, root = catalogue.default(name, raw / name)
            report = pack(
                dataset,
                root,
                sink_of(out).child(name),
                PackOptions(stride=dataset.STRIDE, min_size=dataset.MIN_SIZE, **options),
                workers=workers,
                executor=executor,
                share=share,
                on_error=on_error,
                dry_run=dry_run,
                progress=named,
            )
        except (*KNOWN_ERRORS, OSError) as error:
            text = str(error) if isinstance(error, KNOWN_ERRORS) else one_line(error)
            yield Result(name=name, state="failed", error=text or type(error).__name__)
            continue
        yield Result(name=name, state=_state(report), report=report)


def _state(report: Report) -> State:
    if report.dry_run:
        return "planned"
    return "complete" if report.resumed_shards == report.shards else "packed"


def _named(progress: Progress, name: str) -> Progress:
    """Progress whose every phase says which data set it is of."""
    return lambda what, unit, total: progress(f"{name}: {what}", unit, total)


def table(results: list[Result]) -> Iterator[str]:
    """Lines of the report: names to the left, numbers to the right."""
    rows = [_HEAD, *(result.row() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    last = len(_HEAD) - 1
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
