"""The command that varies one thing after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from benchmarks import result
from benchmarks.case import WORKS
from benchmarks.cli_diff import COMPARE
from benchmarks.contestants import CONTESTANTS, Entry
from benchmarks.data import DataConfig
from benchmarks.environment import usable_cores
from benchmarks.options import (
    DEFAULT_DATA,
    DEFAULT_DERIVED,
    JSON_FILE,
    command_line,
    contestants,
    make_data,
    say,
    show,
)
from benchmarks.sweep_axes import AXES, AxisName
from shards.console import KnownErrors

__all__ = ["sweep"]


def _names(known: tuple[str, ...]) -> Any:
    """Callback of an option with some of the names, separated by commas."""

    def chosen(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise click.BadParameter(f"{value!r}: give some of {', '.join(known)}")
        return names

    return chosen


@click.command(
    cls=KnownErrors,
    epilog="Example: python -m benchmarks sweep --axis workers,cache --json sweep.json",
)
@click.option(
    "--axis",
    "axes",
    default=",".join(AXES),
    show_default=True,
    callback=_names(get_args(AxisName)),
    help="What is varied, in this order.",
)
@click.option(
    "--only",
    "entries",
    metavar="A,B",
    default="cpu,zip-tuned,zip-published,files",
    show_default=True,
    callback=contestants,
    help=f"Contestants, of: {', '.join(entry.name for entry in CONTESTANTS)}.",
)
@click.option(
    "--work",
    "works",
    default="recipe",
    show_default=True,
    callback=_names(WORKS),
    help="Classes of work, one or both: plain,recipe. See 'loaders --help'.",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 600),
    default=0.7,
    show_default=True,
    help="Counted in a run, after its warm-up.",
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such, for the axes workers and batch; the others make "
    "their own.  [default: data/bench, made if absent]",
)
@click.option(
    "--derived",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DERIVED,
    show_default=True,
    help="Folder for the zips and files of --data that baselines read.",
)
@click.option(
    "--size-gb",
    type=click.FloatRange(0, 100, min_open=True),
    default=0.1,
    show_default=True,
    help="Of the smallest data that are made; the largest are eight times as large.",
)
@click.option(
    "--delay-ms",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Of the server, before each answer.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-sweep"),
    show_default=True,
    help="Folder for the data that are made, of its own; they are removed afterwards.",
)
@click.option("--keep", is_flag=True, help="Leave them for the next run.")
@COMPARE
@JSON_FILE
def sweep(
    axes: tuple[AxisName, ...],
    entries: list[Entry],
    works: tuple[Any, ...],
    repeats: int,
    seconds: float,
    data_folder: Path | None,
    derived: Path,
    size_gb: float,
    delay_ms: float,
    out: Path,
    keep: bool,
    json_file: Path | None,
) -> None:
    """Compare loaders along axes: workers, batch size, data size, page cache, storage.

    The file of --json is written after each axis. The defaults take about 20 minutes on two cores
    and 5 GB of disk.
    """
    from benchmarks.runner import refuse_failed
    from benchmarks.sweep import measure_sweep
    from benchmarks.sweep_axes import Sweep
    from benchmarks.sweep_table import axis_header, axis_lines, axis_rows

    if data_folder is None:
        data_folder = DEFAULT_DATA
        make_data(DataConfig(), data_folder)
    wanted = Sweep(
        data=data_folder,
        derived=derived,
        out=out,
        axes=axes,
        works=works,
        repeats=repeats,
        seconds=seconds,
        cores=usable_cores(),
        size_gb=size_gb,
        delay_ms=delay_ms,
    )

    def save(run: Mapping[str, Any]) -> None:
        axis = run["axes"][-1]
        show(axis_rows(axis), axis_header(axis), axis_lines(axis, repeats))
        if json_file is not None:
            result.write(json_file, run)
            say(f"{json_file}: written")

    run = measure_sweep(wanted, entries, keep, command_line(), say, save)
    refuse_failed(one for axis in run["axes"] for one in axis["absent"])
