"""``python -m benchmarks``: make data, compare loaders, check limits, write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import report, result, table
from benchmarks.case import Case
from benchmarks.contestants import CONTESTANTS, UNIT, Entry, named
from benchmarks.data import DataConfig, make
from benchmarks.environment import available_bytes, usable_cores
from shards.console import KnownErrorsGroup, counter

__all__ = ["main"]

DEFAULT_DATA = Path("data/bench")
DEFAULT_DERIVED = Path("data/bench-derived")
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
JSON_FILE = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write everything, each repeat included, to this file.",
)


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group(cls=KnownErrorsGroup, epilog="Example: python -m benchmarks loaders --only cpu,files")
def main() -> None:
    """Measure our loaders beside the published way and beside what the machine allows."""


@main.command(epilog="Example: python -m benchmarks data --gb 0.1 --out data/bench")
@click.option(
    "--gb",
    type=click.FloatRange(0, min_open=True),
    default=0.1,
    show_default=True,
    help="Size, about.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA,
    show_default=True,
    help="The data set's own folder.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a core]")
def data(gb: float, out: Path, workers: int | None) -> None:
    """Make synthetic shards that cost a decoder what photographs cost; kept if they are there."""
    _make_data(DataConfig(gb=gb), out, workers)


def _make_data(config: DataConfig, out: Path, workers: int | None = None) -> None:
    with counter("make", "shards", config.shards) as shown:
        manifest, there = make(out, config, workers or usable_cores(), shown.update)
    size = sum(shard.bytes for shard in manifest.shards)
    _say(
        f"{out}: {manifest.counts['frames']:,} frames, {size / 1e6:,.1f} MB, "
        f"{'was there already' if there else 'made'}"
    )


def _only(_: click.Context, __: click.Parameter, value: str | None) -> list[Entry]:
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    try:
        return named(names)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command(
    epilog="Example: python -m benchmarks loaders --pairs 1024 --repeats 5 --json loaders.json"
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such.  [default: data/bench, made if absent]",
)
@click.option(
    "--pairs", type=click.IntRange(1), default=1024, show_default=True, help="Counted in a run."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--threads",
    "--workers",
    "threads",
    type=click.IntRange(1),
    help="Threads of ours, worker processes of the others.  [default: usable cores]",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--template-px", type=click.Choice(["127", "255"]), default="255", show_default=True)
@click.option(
    "--only",
    "entries",
    metavar="A,B",
    callback=_only,
    help=f"Only these of: {', '.join(entry.name for entry in CONTESTANTS)}.",
)
@click.option(
    "--derived",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DERIVED,
    show_default=True,
    help="Folder for the zips and files that baselines read; made once for a data set.",
)
@JSON_FILE
def loaders(
    data_folder: Path | None,
    pairs: int,
    repeats: int,
    threads: int | None,
    batch_size: int,
    template_px: str,
    entries: list[Entry],
    derived: Path,
    json_file: Path | None,
) -> None:
    """Compare loaders: the same pairs, sizes and JPEG bytes, each in a fresh process.

    Pairs are rounded up to whole batches.
    """
    from benchmarks.compare import compare

    if data_folder is None:
        data_folder = DEFAULT_DATA
        _make_data(DataConfig(), data_folder)
    case = Case(
        data=str(data_folder),
        derived=str(derived),
        pairs=-(-pairs // batch_size) * batch_size,
        batch_size=batch_size,
        threads=threads or usable_cores(),
        template_px=int(template_px),
    )
    entries = entries + [entry for entry in CONTESTANTS if entry.name == UNIT]
    run = compare(
        list(dict.fromkeys(entries)), case, repeats, _command(), available_bytes() // 2, _say
    )
    _show(table.rows(run), table.HEADER, table.header_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")


def _command() -> str:
    """The command line as it was given."""
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def _show(cells: list[tuple[str, ...]], header: tuple[str, ...], lines: list[str]) -> None:
    """Print a table: with rich on a terminal, else as plain columns."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        shown: Any = Table()
        for i, name in enumerate(header):
            shown.add_column(name, justify="left" if i == 0 else "right")
        for row in cells:
            shown.add_row(*row)
        Console().print(shown)
    else:
        click.echo(table.text(cells, header))
    for line in lines:
        click.echo(line)


@main.command(epilog="Example: python -m benchmarks limits --json limits.json")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-limits"),
    show_default=True,
    help="Folder for the indexes and shards that are measured; made once.",
)
@click.option(
    "--batches",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="That a loader makes before its memory is read.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def limits(
    ctx: click.Context,
    out: Path,
    batches: int,
    repeats: int,
    check: bool,
    json_file: Path | None,
) -> None:
    """Check the promises in numbers: index, plan, memory, first batch, each with its bar."""
    from benchmarks.limits import LIMITS_HEADER, limits_rows, measure_limits

    run = measure_limits(out, batches, repeats, _command(), _say)
    _show(limits_rows(run), LIMITS_HEADER, [])
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")
    if check and not all(claim["holds"] for claim in run["claims"]):
        ctx.exit(1)


@main.command(epilog="Example: python -m benchmarks remote --repeats 5 --json remote.json")
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such.  [default: data/bench, made if absent]",
)
@click.option("--batches", type=click.IntRange(1), default=30, show_default=True, help="Counted.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--pairs-per-s", type=click.FloatRange(1), default=100.0, show_default=True)
@click.option("--delay-ms", type=click.FloatRange(0), default=30.0, show_default=True)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def remote(
    ctx: click.Context,
    data_folder: Path | None,
    batches: int,
    repeats: int,
    pairs_per_s: float,
    delay_ms: float,
    check: bool,
    json_file: Path | None,
) -> None:
    """Read over a slow server that refuses 1 % of the requests, beside reading from disk."""
    from benchmarks.limits import limits_rows
    from benchmarks.remote import REMOTE_HEADER, RemoteCase, measure_remote

    if data_folder is None:
        data_folder = DEFAULT_DATA
        _make_data(DataConfig(), data_folder)
    case = RemoteCase(
        data=str(data_folder),
        batches=batches,
        repeats=repeats,
        pairs_per_s=pairs_per_s,
        delay_ms=delay_ms,
        threads=usable_cores(),
    )
    run = measure_remote(case, _command(), _say)
    _show(limits_rows(run), REMOTE_HEADER, [])
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")
    if check and not all(claim["holds"] for claim in run["claims"]):
        ctx.exit(1)


@main.command(epilog="Example: python -m benchmarks pack --frames 300 --json pack.json")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-pack"),
    show_default=True,
    help="Folder for raw trees and shards that are made and removed again.",
)
@click.option("--frames", type=click.IntRange(12), default=300, show_default=True, help="A case.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--raw",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Parent of real raw data sets, measured in place of the synthetic pictures.",
)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def pack(
    ctx: click.Context,
    out: Path,
    frames: int,
    repeats: int,
    raw: Path | None,
    check: bool,
    json_file: Path | None,
) -> None:
    """Compare packing with the obvious loop, and show where its time goes."""
    from benchmarks.pack import PACK_HEADER, measure_pack, pack_rows, profile_rows

    run = measure_pack(out, frames, repeats, raw, _command(), _say)
    _show(pack_rows(run), PACK_HEADER, [])
    header, rows = profile_rows(run)
    _show(rows, header, [])
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")
    if check and not all(one["holds"] for one in run["cases"]):
        ctx.exit(1)


@main.command("report", epilog="Example: python -m benchmarks report --check")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, dir_okay=False),
    default=README,
    help="File with the markers.  [default: the checkout's README.md]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Folder of results.  [default: benchmarks/results]",
)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the README is stale.")
@click.pass_context
def write_report(ctx: click.Context, readme: Path, results: Path, check: bool) -> None:
    """Write the README's tables from the committed results."""
    fresh = report.write(readme, results, check)
    if check and not fresh:
        _say(f"{readme} is stale: run 'python -m benchmarks report'")
        ctx.exit(1)
    _say(f"{readme}: {'up to date' if fresh else 'written'}")
