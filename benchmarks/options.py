"""What commands of ``python -m benchmarks`` share: options, default data, showing a result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import result, table
from benchmarks.claims import CLAIMS_HEADER, claim_rows
from benchmarks.contestants import Entry, named
from benchmarks.data import DataConfig, make
from benchmarks.environment import usable_cores
from shards.console import counter

__all__ = [
    "DEFAULT_DATA",
    "DEFAULT_DERIVED",
    "JSON_FILE",
    "REAL_DATA",
    "command_line",
    "contestants",
    "judge",
    "make_data",
    "real_or_made",
    "say",
    "show",
]

DEFAULT_DATA = Path("data/bench")
DEFAULT_REAL = Path("data/bench-real")
DEFAULT_DERIVED = Path("data/bench-derived")
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


def contestants(_: click.Context, __: click.Parameter, value: str | None) -> list[Entry]:
    """Callback of an option with names of contestants, separated by commas; none: all."""
    try:
        return named([name.strip() for name in (value or "").split(",") if name.strip()])
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def say(line: str) -> None:
    """Tell progress, apart from results."""
    click.echo(line, err=True)


def command_line() -> str:
    """The command line as it was given."""
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def make_data(config: DataConfig, out: Path, workers: int | None = None) -> None:
    """Make synthetic shards that are not there yet, and tell their size."""
    with counter("make", "shards", config.shards) as shown:
        manifest, there = make(out, config, workers or usable_cores(), shown.update)
    size = sum(shard.bytes for shard in manifest.shards)
    say(
        f"{out}: {manifest.counts['frames']:,} frames, {size / 1e6:,.1f} MB, "
        f"{'was there already' if there else 'made'}"
    )


def real_or_made(given: Path | None) -> Path:
    """Folder of the data: as given, else real pictures where there are some, else made."""
    from benchmarks.bars import real_data

    folder = given or real_data(DEFAULT_REAL)
    if folder is None:
        say(
            "Note: synthetic pictures, for $SIAMSTREAM_TEST_DATA is not set; let it name a parent "
            "of raw data sets (lasot/, got10k/, trackingnet/, coco/), or give --data with one that "
            "'python -m packer' made, to measure on real ones"
        )
        folder = DEFAULT_DATA
        make_data(DataConfig(), folder)
    return folder


def show(cells: list[tuple[str, ...]], header: tuple[str, ...], lines: list[str]) -> None:
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


def judge(
    ctx: click.Context,
    run: dict[str, Any],
    lines: list[str],
    check: bool,
    json_file: Path | None,
) -> None:
    """Show claims and write their result; if `check`, exit 1 unless there are some and all hold."""
    show(claim_rows(run), CLAIMS_HEADER, lines)
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
    if check and not (run["claims"] and all(claim["holds"] for claim in run["claims"])):
        ctx.exit(1)
