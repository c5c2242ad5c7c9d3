"""``python -m benchmarks scale``."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.options import JSON_FILE, command_line, say, show
from benchmarks.scale_case import FULL_EPOCHS, NODES, ScaleCase
from shards.console import KnownErrors

__all__ = ["scale"]


def _nodes(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        nodes = sorted({int(part) for part in value.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give whole numbers, as in 1,8,64") from error
    if not 1 <= nodes[0] <= nodes[-1] <= 1024:
        raise click.BadParameter(f"{value!r}: give 1 to 1024 nodes")
    return tuple(nodes)


@click.command(cls=KnownErrors, epilog="Example: python -m benchmarks scale --json scale.json")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-scale-index"),
    show_default=True,
    help="Folder of the indexes without pictures; made once, 0.7 GB.",
)
@click.option(
    "--check-data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-scale"),
    show_default=True,
    help="Folder of the shards that the simulator is checked on; made once, 0.3 GB.",
)
@click.option(
    "--demand",
    type=click.FloatRange(1),
    default=ScaleCase().demand,
    show_default=True,
    help="Pairs a second that a GPU takes, assumed; a quarter and four times it are shown too.",
)
@click.option(
    "--nodes",
    default=",".join(map(str, NODES)),
    show_default=True,
    callback=_nodes,
    help="Numbers of nodes of 8 GPUs.",
)
@click.option("--epochs", type=click.IntRange(1), default=FULL_EPOCHS, show_default=True)
@click.option(
    "--memory-gb",
    type=click.FloatRange(0),
    default=ScaleCase().memory_gb,
    show_default=True,
    help="Memory of a node for data, in every mode: page cache, windows, zips.",
)
@click.option(
    "--usd-per-1000-get",
    type=click.FloatRange(0),
    default=ScaleCase().usd_per_1000_get,
    show_default=True,
    help="Price of requests to S3.",
)
@click.option(
    "--check-against-measured/--no-check",
    "checked",
    default=True,
    help="Also run small real cases beside their simulation; --no-check: only measure the rates "
    "of this machine that the simulator takes.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Of a case.")
@JSON_FILE
def scale(
    out: Path,
    check_data: Path,
    demand: float,
    nodes: tuple[int, ...],
    epochs: int,
    memory_gb: float,
    usd_per_1000_get: float,
    checked: bool,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Simulate 1 to 64 nodes on disks, file systems and S3: bytes, stalls, requests, cost."""
    from benchmarks.scale import simulate
    from benchmarks.scale_check import check
    from benchmarks.scale_report import (
        ADVICE_HEADER,
        CHECK_HEADER,
        SCALE_HEADER,
        advice_rows,
        check_rows,
        demand_header,
        demand_rows,
        scale_lines,
        scale_rows,
    )

    shown = (*(e for e in ScaleCase().shown if e < epochs), epochs)
    case = ScaleCase(
        demand=demand,
        nodes=nodes,
        epochs=epochs,
        shown=shown,
        memory_gb=memory_gb,
        usd_per_1000_get=usd_per_1000_get,
        usd_source=(
            ScaleCase().usd_source
            if usd_per_1000_get == ScaleCase().usd_per_1000_get
            else "as given on the command line"
        ),
    )
    node, checks = check(check_data, repeats if checked else 0, say)
    run = simulate(out, case, node, checks, command_line(), say)
    show(scale_rows(run), SCALE_HEADER, [])
    show(advice_rows(run), ADVICE_HEADER, scale_lines(run))
    show(demand_rows(run), demand_header(run), [])
    if checks:
        show(check_rows(run), CHECK_HEADER, [])
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
