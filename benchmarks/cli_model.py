"""Commands about training: does the model learn, and how fast is its step."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.case import Case
from benchmarks.environment import usable_cores
from benchmarks.options import (
    DEFAULT_DERIVED,
    JSON_FILE,
    REAL_DATA,
    command_line,
    judge,
    real_or_made,
    say,
    show,
)
from shards.console import KnownErrors
from shards.free_memory import available_bytes

__all__ = ["learn", "step", "train"]


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


def _widths(_: click.Context, __: click.Parameter, value: str | None) -> list[float]:
    try:
        widths = [float(part) for part in (value or "").split(",") if part.strip()]
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give numbers, as in 0.125,0.5,1") from error
    if len(set(widths)) < len(widths) or not all(0.01 <= width <= 1 for width in widths):
        raise click.BadParameter(f"{value!r}: give different widths of 0.01 to 1, as in 0.125,1")
    return widths


@click.command(
    cls=KnownErrors, epilog="Example: python -m benchmarks train --check --json train.json"
)
@REAL_DATA
@click.option(
    "--widths",
    metavar="A,B",
    callback=_widths,
    help="Of the model, a share of the published channels; settings are measured for the first.  "
    "[default: 0.125,1 on a CPU; 1,0.5,0.125 on a GPU]",
)
@click.option("--batch", type=click.IntRange(1), help="Pairs.  [default: 4 on a CPU; 16 on a GPU]")
@click.option(
    "--steps", type=click.IntRange(1), help="Of a block.  [default: some seconds of them]"
)
@click.option(
    "--repeats", type=click.IntRange(1), help="[default: 5; 3 where a step takes many seconds]"
)
@click.option(
    "--derived",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DERIVED,
    show_default=True,
    help="Folder of the zips that the published way reads; made once for a data set.",
)
@click.option("--check", is_flag=True, help="Exit 1 unless all bars are judged and kept.")
@JSON_FILE
@click.pass_context
def train(
    ctx: click.Context,
    data_folder: Path | None,
    widths: list[float],
    batch: int | None,
    steps: int | None,
    repeats: int | None,
    derived: Path,
    check: bool,
    json_file: Path | None,
) -> None:
    """Measure training with our loader beside ready-made batches and the published way.

    On the GPU if there is one. Where decode can keep up, our loader must reach 0.95 of the steps/s
    with ready-made batches; on a CPU, 0.95 of what decode leaves of the cores. Figures of a busy
    machine are not judged. Also the settings of the step: fused optimiser, channels-last,
    torch.compile, bf16.
    """
    import torch

    from benchmarks.train import Plan, default_batch, default_widths, measure_train
    from benchmarks.train_report import (
        FEEDS_HEADER,
        SETTINGS_HEADER,
        feeds_rows,
        settings_lines,
        settings_rows,
        train_lines,
    )

    folder, device = real_or_made(data_folder), "cuda" if torch.cuda.is_available() else "cpu"
    batch = batch or default_batch(device)
    case = Case(
        data=str(folder),
        derived=str(derived),
        pairs=batch,
        batch_size=batch,
        threads=usable_cores(),
    )
    plan = Plan(
        case=case,
        widths=widths or default_widths(device),
        repeats=repeats,
        steps=steps,
        device=device,
    )
    run = measure_train(plan, command_line(), available_bytes() // 2, say)
    show(feeds_rows(run), FEEDS_HEADER, [])
    show(settings_rows(run), SETTINGS_HEADER, settings_lines(run))
    judge(ctx, run, train_lines(run), check, json_file)
