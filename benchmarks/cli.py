"""``python -m benchmarks``: make data, compare loaders, check limits, write the report."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import report, result, table
from benchmarks.case import WORKS, Case, WorkName
from benchmarks.cli_diff import COMPARE
from benchmarks.cli_gpu import gpu
from benchmarks.cli_model import learn, step, train
from benchmarks.cli_peers import peers
from benchmarks.cli_quick import quick
from benchmarks.cli_scale import scale
from benchmarks.cli_shards import pack, remote, sequential
from benchmarks.cli_sweep import sweep
from benchmarks.contestants import CONTESTANTS, UNIT, Entry
from benchmarks.data import DataConfig
from benchmarks.environment import usable_cores
from benchmarks.options import (
    DEFAULT_DATA,
    DEFAULT_DERIVED,
    JSON_FILE,
    REAL_DATA,
    command_line,
    contestants,
    judge,
    make_data,
    real_or_made,
    say,
    show,
)
from benchmarks.sweep_axes import counted
from shards.console import KnownErrorsGroup
from shards.free_memory import available_bytes

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
CHECKOUT = Path(__file__).parent.parent


@click.group(cls=KnownErrorsGroup, epilog="Example: python -m benchmarks loaders --only cpu,files")
@COMPARE
def main() -> None:
    """Measure our loaders beside the published way and beside what the machine allows."""


for one in (gpu, learn, pack, peers, quick, remote, scale, sequential, step, sweep, train):
    main.add_command(one)


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
    make_data(DataConfig(gb=gb), out, workers)


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
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--threads",
    "--workers",
    "threads",
    type=click.IntRange(1),
    help="Threads of ours, worker processes of the others.  [default: usable cores]",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--work",
    type=click.Choice(WORKS),
    default="recipe",
    show_default=True,
    help="plain: decode, crop, resize, normalise to float32. recipe: all augmentation, uint8.",
)
@click.option("--template-px", type=click.Choice(["127", "255"]), default="255", show_default=True)
@click.option(
    "--only",
    "entries",
    metavar="A,B",
    callback=contestants,
    help=f"Only these of: {', '.join(entry.name for entry in CONTESTANTS)}.",
)
@click.option(
    "--derived",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DERIVED,
    show_default=True,
    help="Folder for the zips and files that baselines read; made once for a data set.",
)
@COMPARE
@JSON_FILE
def loaders(
    data_folder: Path | None,
    pairs: int,
    repeats: int,
    threads: int | None,
    batch_size: int,
    work: WorkName,
    template_px: str,
    entries: list[Entry],
    derived: Path,
    json_file: Path | None,
) -> None:
    """Compare loaders: the same pairs, sizes and JPEG bytes, each in a fresh process.

    Pairs are rounded up to whole batches.
    """
    from benchmarks.compare import compare
    from benchmarks.runner import refuse_failed

    if data_folder is None:
        data_folder = DEFAULT_DATA
        make_data(DataConfig(), data_folder)
    case = counted(
        Case(
            data=str(data_folder),
            derived=str(derived),
            work=work,
            pairs=-(-pairs // batch_size) * batch_size,
            batch_size=batch_size,
            threads=threads or usable_cores(),
            template_px=int(template_px),
        )
    )
    entries = entries + [entry for entry in CONTESTANTS if entry.name == UNIT]
    run = compare(
        list(dict.fromkeys(entries)), case, repeats, command_line(), available_bytes() // 2, say
    )
    lines = [*table.header_lines(run), *table.column_lines(run)]
    show(table.rows(run), table.HEADER, lines)
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
    refuse_failed(run["absent"])


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

    run = measure_limits(out, batches, repeats, command_line(), say)
    judge(ctx, run, [], check, json_file)


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

    folder = real_or_made(data_folder)
    case = Case(data=str(folder), derived=str(derived), pairs=-(-pairs // 32) * 32, threads=2)
    run = measure_bars(case, repeats, command_line(), available_bytes() // 2, say)
    judge(ctx, run, bars_lines(run), check, json_file)


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
        say(f"Note: {batches} batches; worker processes reach their peak after {MIN_BATCHES}")
    run = measure_memory(
        out, sizes_gb, minutes, batches, repeats, threads, keep, command_line(), say
    )
    judge(ctx, run, memory_lines(run), check, json_file)


@main.command(epilog="Example: python -m benchmarks costs --json costs.json")
@REAL_DATA
@click.option("--pairs", type=click.IntRange(8), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@JSON_FILE
def costs(data_folder: Path | None, pairs: int, repeats: int, json_file: Path | None) -> None:
    """Measure what each step of a pair costs one thread, in microseconds and decode units."""
    from benchmarks.costs import COSTS_HEADER, costs_lines, costs_rows, measure_costs

    folder = real_or_made(data_folder)
    case = Case(data=str(folder), derived=str(DEFAULT_DERIVED), pairs=-(-pairs // 32) * 32)
    run = measure_costs(case, repeats, command_line(), say)
    show(costs_rows(run), COSTS_HEADER, costs_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")


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
        say(f"{path}: {'stale, run python -m benchmarks report' if check else 'written'}")
    if not stale:
        say(f"{root}: the documents are up to date")
    if stale and check:
        ctx.exit(1)
