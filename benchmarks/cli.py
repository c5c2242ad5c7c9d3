"""``python -m benchmarks``: make data, compare loaders, check limits, write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import report, result, table
from benchmarks.case import Case
from benchmarks.claims import CLAIMS_HEADER, claim_rows
from benchmarks.contestants import CONTESTANTS, UNIT, Entry, named
from benchmarks.data import DataConfig, make
from benchmarks.environment import usable_cores
from shards.console import KnownErrorsGroup, counter
from shards.free_memory import available_bytes

__all__ = ["main"]

DEFAULT_DATA = Path("data/bench")
DEFAULT_REAL = Path("data/bench-real")
DEFAULT_REMOTE = Path("data/bench-remote")
DEFAULT_DERIVED = Path("data/bench-derived")
RESULTS = Path(__file__).parent / "results"
CHECKOUT = Path(__file__).parent.parent
REAL_DATA = click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such.  [default: the pictures of "
    "$SIAMSTREAM_TEST_DATA, packed into data/bench-real; without it data/bench, made if absent]",
)
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
    from benchmarks.limits import measure_limits

    run = measure_limits(out, batches, repeats, _command(), _say)
    _judge(ctx, run, [], check, json_file)


def _judge(
    ctx: click.Context,
    run: dict[str, Any],
    lines: list[str],
    check: bool,
    json_file: Path | None,
) -> None:
    """Show claims and write their result; exit 1 if one fails and `check`."""
    _show(claim_rows(run), CLAIMS_HEADER, lines)
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")
    if check and not all(claim["holds"] for claim in run["claims"]):
        ctx.exit(1)


@main.command(epilog="Example: python -m benchmarks bars --check --json bars.json")
@REAL_DATA
@click.option(
    "--pairs", type=click.IntRange(1), default=1024, show_default=True, help="Counted in a run."
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--derived",
    "derived",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DERIVED,
    show_default=True,
    help="Folder for the zips and shards made for it.",
)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def bars(
    ctx: click.Context,
    data_folder: Path | None,
    pairs: int,
    repeats: int,
    derived: Path,
    check: bool,
    json_file: Path | None,
) -> None:
    """Check the promises about local speed: decode units, both zip baselines, threads, start."""
    from benchmarks.bars import bars_lines, measure_bars

    folder = _real_or_made(data_folder)
    case = Case(data=str(folder), derived=str(derived), pairs=-(-pairs // 32) * 32, threads=2)
    run = measure_bars(case, repeats, _command(), available_bytes() // 2, _say)
    _judge(ctx, run, bars_lines(run), check, json_file)


def _sizes(_: click.Context, __: click.Parameter, value: str) -> list[float]:
    try:
        sizes = sorted({float(part) for part in value.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give numbers, as in 1,4") from error
    if len(sizes) < 2 or not 0 < sizes[0] <= sizes[-1] <= 1000:
        raise click.BadParameter(f"{value!r}: give two different sizes or more, as in 1,4")
    return sizes


def _soak_minutes(_: click.Context, __: click.Parameter, value: float) -> float:
    if not (value == 0 or 0.5 <= value <= 25):
        raise click.BadParameter(f"{value:g}: give 0.5 to 25 minutes, or 0 for no soak")
    return value


@main.command(epilog="Example: python -m benchmarks memory --gb 1,4 --minutes 10 --json m.json")
@click.option(
    "--gb", "sizes_gb", default="1,4", show_default=True, callback=_sizes, help="Sizes of the data."
)
@click.option(
    "--minutes",
    type=float,
    default=10,
    show_default=True,
    callback=_soak_minutes,
    help="Of the soak on the largest, 0.5 to 25; 0: none.",
)
@click.option("--batches", type=click.IntRange(1), default=200, show_default=True, help="Of a run.")
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Of ours, by size."
)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-memory"),
    show_default=True,
    help="Folder for the data, twice the sizes, of its own; what a run makes in it is removed "
    "afterwards.",
)
@click.option("--keep", is_flag=True, help="Leave the data for the next run.")
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def memory(
    ctx: click.Context,
    sizes_gb: list[float],
    minutes: float,
    batches: int,
    repeats: int,
    threads: int,
    out: Path,
    keep: bool,
    check: bool,
    json_file: Path | None,
) -> None:
    """Check the promises about memory: by size of the data, against zip-tuned, over time."""
    from benchmarks.memory import MIN_BATCHES, measure_memory, memory_lines

    if batches <= MIN_BATCHES:
        _say(f"Note: {batches} batches; worker processes reach their peak after {MIN_BATCHES}")
    run = measure_memory(out, sizes_gb, minutes, batches, repeats, threads, keep, _command(), _say)
    _judge(ctx, run, memory_lines(run), check, json_file)


@main.command(epilog="Example: python -m benchmarks costs --json costs.json")
@REAL_DATA
@click.option("--pairs", type=click.IntRange(8), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@JSON_FILE
def costs(data_folder: Path | None, pairs: int, repeats: int, json_file: Path | None) -> None:
    """Measure what each step of a pair costs one thread, in microseconds and decode units."""
    from benchmarks.costs import COSTS_HEADER, costs_lines, costs_rows, measure_costs

    folder = _real_or_made(data_folder)
    case = Case(data=str(folder), derived=str(DEFAULT_DERIVED), pairs=-(-pairs // 32) * 32)
    run = measure_costs(case, repeats, _command(), _say)
    _show(costs_rows(run), COSTS_HEADER, costs_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")


def _real_or_made(given: Path | None) -> Path:
    """Folder of the data: as given, else real pictures where there are some, else made."""
    from benchmarks.bars import real_data

    folder = given or real_data(DEFAULT_REAL)
    if folder is None:
        _say(
            "Note: synthetic pictures, for $SIAMSTREAM_TEST_DATA is not set; let it name a parent "
            "of raw data sets (lasot/, got10k/, trackingnet/, coco/), or give --data with one that "
            "'python -m packer' made, to measure on real ones"
        )
        folder = DEFAULT_DATA
        _make_data(DataConfig(), folder)
    return folder


@main.command(epilog="Example: python -m benchmarks remote --repeats 5 --json remote.json")
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such, of so many pictures that hardly one is read "
    "twice.  [default: data/bench-remote, 2 GB, made if absent]",
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
    from benchmarks.remote import RemoteCase, measure_remote, remote_data, remote_lines

    if data_folder is None:
        data_folder = DEFAULT_REMOTE
        remote_data(data_folder, _say)
    case = RemoteCase(
        data=str(data_folder),
        batches=batches,
        repeats=repeats,
        pairs_per_s=pairs_per_s,
        delay_ms=delay_ms,
        threads=usable_cores(),
    )
    run = measure_remote(case, _command(), _say)
    _judge(ctx, run, remote_lines(run), check, json_file)


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


@main.command(epilog="Example: python -m benchmarks sequential --json sequential.json")
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A packed data set, or a parent of such.  [default: synthetic indexes]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-sequential"),
    show_default=True,
    help="Folder of the synthetic indexes; made once.",
)
@click.option("--pairs", type=click.IntRange(64), default=50_000, show_default=True)
@JSON_FILE
def sequential(data_folder: Path | None, out: Path, pairs: int, json_file: Path | None) -> None:
    """Compare the pairs of sequential storage with the plan's, for windows of 8 to 512 tracks."""
    from benchmarks.sequential import (
        SEQUENTIAL_HEADER,
        measure_sequential,
        sequential_lines,
        sequential_rows,
    )

    run = measure_sequential(out, data_folder, pairs, _command(), _say)
    _show(sequential_rows(run), SEQUENTIAL_HEADER, sequential_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")


def _seeds(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give whole numbers, as in 1,2,3") from error
    if min(seeds) < 0:
        raise click.BadParameter(f"{value!r}: seeds are 0 or more")
    return seeds


@main.command(epilog="Example: python -m benchmarks learn --json learn.json")
@click.option(
    "--seeds", default="1,2,3", show_default=True, callback=_seeds, help="One training a seed."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-learn"),
    show_default=True,
    help="Folder for shards, made once, and runs, made anew.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="PNG of the curves.")
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def learn(
    ctx: click.Context,
    seeds: list[int],
    out: Path,
    plot: Path | None,
    check: bool,
    json_file: Path | None,
) -> None:
    """Prove that a small model learns to track, from random weights, in CPU minutes.

    On the pieces of real data sets in $SIAMSTREAM_TEST_DATA, with its otb/ for judging, or else on
    demo sequences.
    """
    from benchmarks.learn import measure_learning
    from benchmarks.learn_data import material
    from benchmarks.learn_report import CURVE_HEADER, curve_rows, learn_lines, plot_learning

    run = measure_learning(material(out, _say), out / "runs", seeds, _command(), _say)
    _show(curve_rows(run), CURVE_HEADER, [])
    _judge(ctx, run, learn_lines(run), check, json_file)
    if plot is not None:
        plot_learning(run, plot)
        _say(f"{plot}: written")


@main.command(epilog="Example: python -m benchmarks step --check --json step.json")
@click.option("--batch", type=click.IntRange(1, 64), default=8, show_default=True, help="Pairs.")
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def step(ctx: click.Context, batch: int, repeats: int, check: bool, json_file: Path | None) -> None:
    """Compare the training step, but for its backbone, with a Python loop over samples."""
    from benchmarks.step import STEP_HEADER, measure_step, step_lines, step_rows

    run = measure_step(batch, repeats, _command(), _say)
    _show(step_rows(run), STEP_HEADER, step_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        _say(f"{json_file}: written")
    if check and any(one["holds"] is False for one in run["cases"]):
        ctx.exit(1)


@main.command("report", epilog="Example: python -m benchmarks report --check")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=CHECKOUT,
    help="Folder of README.md and docs/.  [default: this checkout]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Folder of results.  [default: benchmarks/results]",
)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a document is stale.")
@click.pass_context
def write_report(ctx: click.Context, root: Path, results: Path, check: bool) -> None:
    """Write the tables of README.md and docs/ from the committed results."""
    stale = report.write(root, results, check)
    for path in stale:
        _say(f"{path}: {'stale, run python -m benchmarks report' if check else 'written'}")
    if not stale:
        _say(f"{root}: the documents are up to date")
    if stale and check:
        ctx.exit(1)
