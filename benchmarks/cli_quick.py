"""Command that guards against regressions of speed."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.case import Case
from benchmarks.data import DataConfig
from benchmarks.environment import usable_cores
from benchmarks.options import (
    DEFAULT_DATA,
    DEFAULT_DERIVED,
    JSON_FILE,
    command_line,
    make_data,
    say,
    show,
)
from shards.console import KnownErrors
from shards.free_memory import available_bytes

__all__ = ["quick"]

COMMITTED = Path(__file__).parent / "results" / "quick-cpu.json"


@click.command(cls=KnownErrors, epilog="Example: python -m benchmarks quick --strict")
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=COMMITTED,
    help="Result to compare with.  [default: benchmarks/results/quick-cpu.json]",
)
@click.option("--no-compare", is_flag=True, help="Compare with nothing, as for a new baseline.")
@click.option(
    "--strict",
    is_flag=True,
    help="Exit 1 if a ratio fell by over 20 % or is missing; with --no-compare, if one spreads so "
    "wide that it guards nothing.",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-quick"),
    show_default=True,
    help="Folder for an index and raw pictures that are made at need.",
)
@JSON_FILE
@click.pass_context
def quick(
    ctx: click.Context,
    against: Path,
    no_compare: bool,
    strict: bool,
    repeats: int,
    out: Path,
    json_file: Path | None,
) -> None:
    """Compare a few ratios of speed with the committed ones, in under three minutes.

    Warns where one fell by more than 20 %. The first run also makes data/bench.
    """
    from benchmarks.quick import Setup, measure_quick
    from benchmarks.quick_check import (
        QUICK_HEADER,
        check,
        quick_lines,
        quick_rows,
        read_committed,
        warnings,
        wide,
    )

    committed = None if no_compare else read_committed(against)  # before minutes of measuring
    make_data(DataConfig(), DEFAULT_DATA)
    case = Case(data=str(DEFAULT_DATA), derived=str(DEFAULT_DERIVED), threads=usable_cores())
    setup = Setup(case=case, out=out, repeats=repeats, warm_limit_bytes=available_bytes() // 2)
    run = measure_quick(setup, command_line(), say)
    verdicts = check(run, committed or {"ratios": []})
    show(quick_rows(verdicts), QUICK_HEADER, quick_lines(run, committed, str(against)))
    unsteady = wide(run if committed is None else committed)
    for line in [*(warnings(verdicts) if committed is not None else []), *unsteady]:
        say(line)
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
    failed = any(one.state in ("fell", "missing") for one in verdicts)
    if strict and (failed or (committed is None and unsteady)):
        ctx.exit(1)
