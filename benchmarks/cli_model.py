"""Commands about training: does the model learn, and how fast is its step."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.options import JSON_FILE, command_line, judge, say, show
from shards.console import KnownErrors

__all__ = ["learn", "step"]


def _seeds(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give whole numbers, as in 1,2,3") from error
    if min(seeds) < 0:
        raise click.BadParameter(f"{value!r}: seeds are 0 or more")
    return seeds


@click.command(cls=KnownErrors, epilog="Example: python -m benchmarks learn --json learn.json")
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

    run = measure_learning(material(out, say), out / "runs", seeds, command_line(), say)
    show(curve_rows(run), CURVE_HEADER, [])
    judge(ctx, run, learn_lines(run), check, json_file)
    if plot is not None:
        plot_learning(run, plot)
        say(f"{plot}: written")


@click.command(
    cls=KnownErrors, epilog="Example: python -m benchmarks step --check --json step.json"
)
@click.option("--batch", type=click.IntRange(1, 64), default=8, show_default=True, help="Pairs.")
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--check", is_flag=True, help="Exit 1 if a bar is missed.")
@JSON_FILE
@click.pass_context
def step(ctx: click.Context, batch: int, repeats: int, check: bool, json_file: Path | None) -> None:
    """Compare the training step, but for its backbone, with a Python loop over samples."""
    from benchmarks.step import STEP_HEADER, measure_step, step_lines, step_rows

    run = measure_step(batch, repeats, command_line(), say)
    show(step_rows(run), STEP_HEADER, step_lines(run))
    if json_file is not None:
        result.write(json_file, run)
        say(f"{json_file}: written")
    if check and any(one["holds"] is False for one in run["cases"]):
        ctx.exit(1)
