"""Commands about shards: made by the packer, read over HTTP, read as a stream."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.environment import usable_cores
from benchmarks.options import JSON_FILE, command_line, judge, say, show
from shards.console import KnownErrors

__all__ = ["pack", "remote", "sequential"]

DEFAULT_REMOTE = Path("data/bench-remote")


@click.command(
    cls=KnownErrors, epilog="Example: python -m benchmarks remote --repeats 5 --json remote.json"
)
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
        remote_data(data_folder, say)
    case = RemoteCase(
        data=str(data_folder),
        batches=batches,
        repeats=repeats,
        pairs_per_s=pairs_per_s,
        delay_ms=delay_ms,
        threads=usable_cores(),
    )
    run = measure_remote(case, command_line(), say)
    judge(ctx, run, remote_lines(run), check, json_file)


@click.command(
    cls=KnownErrors, epilog="Example: python -m benchmarks pack --frames 300 --json pack.json"
)
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

    run = measure_pack(out, frames, repeats, raw, command_line(), say)
    show(pack_rows(run), PACK_HEADER, [])
    header, rows = profile_rows(run)
    show(rows, header, [])
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
    if check and not all(one["holds"] for one in run["cases"]):
        ctx.exit(1)


@click.command(
    cls=KnownErrors, epilog="Example: python -m benchmarks sequential --json sequential.json"
)
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

    run = measure_sequential(out, data_folder, pairs, command_line(), say)
    show(sequential_rows(run), SEQUENTIAL_HEADER, sequential_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
