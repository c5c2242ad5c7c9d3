"""The commands ``eval`` and ``sweep``; `tracker.cli` has the group that they belong to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from shards.console import KnownErrors, print_json, warn
from shards.errors import ConfigError
from tracker.options import CHECKPOINT, CONVENTION, DATASET, DEVICE, JSON, ROOT, SET, WORKERS

if TYPE_CHECKING:
    from tracker.entrants import Opened
    from tracker.scores import Evaluation
    from tracker.sequences import Convention, Dataset, Sequences

__all__ = ["eval_command", "sweep_command"]

SETTINGS = {"show_default": True}


@click.command("eval", cls=KnownErrors, context_settings=SETTINGS)
@CHECKPOINT
@DATASET
@ROOT
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder of results; one for all data sets and trackers that are to be compared.",
)  # fmt: skip
@click.option(
    "--split", show_default=False,
    help="Part of the data set.  [default: otb100, and test, val, test of the others; all: "
    "everything on disk]",
)  # fmt: skip
@CONVENTION
@click.option(
    "--name", show_default=False,
    help="Name of the tracker in tables and folders.  [default: that of the checkpoint's file, or "
    "of the run's folder]",
)  # fmt: skip
@WORKERS
@DEVICE
@SET
@click.option(
    "--replace", is_flag=True,
    help="Begin anew where results of that name were made by another checkpoint, other settings or "
    "another kind of device, which is otherwise refused.",
)  # fmt: skip
@click.option("--per-sequence", is_flag=True, help="Print the figures of every sequence too.")
@JSON
def eval_command(
    checkpoint: Path, dataset: Dataset, root: Path, out: Path, split: str | None,
    convention: Convention | None, name: str | None, workers: int | None, device: str,
    overrides: tuple[str, ...], replace: bool, per_sequence: bool, as_json: bool,
) -> None:  # fmt: skip
    r"""Follow every sequence of a data set from its first box, and score the boxes.

    Result files are written as the got10k toolkit and pysot read them. Run again, the command
    follows only what is not there yet. All trackers in --out are in the table; 'keep-first-box',
    which never moves, is the floor. For test sets whose ground truth is not public, a zip file for
    the evaluation server is written instead.

    \b
    Example:
      python -m tracker eval --checkpoint spm_alexnet.safetensors --dataset otb \
          --root data/raw/otb --out results
    """
    from tracker import entrants, evaluate, evaluation_text
    from tracker.ledger import drop_other
    from tracker.metrics import DEFAULT_CONVENTION
    from tracker.results import check_tracker_name
    from tracker.sequences import read_sequences

    rule = convention or DEFAULT_CONVENTION[dataset]
    sequences = read_sequences(dataset, root, split, rule)
    made = entrants.open_checkpoint(checkpoint, overrides, device)
    name = check_tracker_name(name or entrants.default_name(checkpoint))
    if replace and drop_other(out, dataset, name, made.made_by):
        click.echo(f"Note: results of {name} made by something else were removed", err=True)
    evaluation, submission = evaluate.evaluate(
        sequences, out, name=name, make=made.make,
        made_by=made.made_by, convention=rule, workers=workers or made.workers,
    )  # fmt: skip
    report = _write_report(evaluation, sequences, out, made)
    if as_json:
        places = {
            "out": str(out),
            "report": report and str(report),
            "submission": submission and str(submission),
        }
        print_json(evaluation_text.facts(evaluation) | places)
        return
    console = Console()
    for table in evaluation_text.tables(evaluation, per_sequence) if evaluation.trackers else []:
        console.print(table)
    for note in evaluation.notes:
        click.echo(f"Note: {note}")
    if submission is not None:
        click.echo(f"For the evaluation server: {submission}")
    if report is not None:
        click.echo(f"Report with the worst sequences: {report}")


def _write_report(
    evaluation: Evaluation, sequences: Sequences, out: Path, made: Opened
) -> Path | None:
    """Write the page of an evaluation; None where no ground truth is public."""
    from tracker import evaluate
    from tracker.config import LACKS
    from tracker.report import write_report

    if not evaluation.trackers:
        return None
    boxes = evaluate.boxes_of(sequences, out, evaluation.trackers[0].tracker)
    folder = evaluate.report_folder(out, sequences.dataset, sequences.split)
    config = made.config
    settings = {
        key: value
        for key, value in made.made_by.items()
        if not any(f"{key}.".startswith(f"{lack}.") for lack in LACKS[config.name])
    }
    about = {"model": config.name, "grid": config.grid} | settings
    return write_report(evaluation, folder, sequences.sequences, boxes, about=about)


def _values(ctx: click.Context, parameter: click.Parameter, text: str | None) -> object:
    """Values of one axis of the grid; a usage error if they are none."""
    from tracker.grid import parse_values

    if text is None:
        return None
    try:
        return parse_values(parameter.opts[0], text)
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from error


@click.command("sweep", cls=KnownErrors, context_settings=SETTINGS)
@CHECKPOINT
@DATASET
@ROOT
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder of the sweep: results of every setting, sweep.json, a map of two parameters.",
)  # fmt: skip
@click.option(
    "--split", show_default=False,
    help="Part of the data set, one for validation.  [default: val of got10k; of the others it "
    "must be given]",
)  # fmt: skip
@click.option(
    "--window", metavar="A,B", callback=_values, help="Shares of the cosine window, as in .2,.3,.4."
)
@click.option(
    "--nms", metavar="A,B", callback=_values, help="IoU above which SPM's proposals are dropped."
)
@click.option(
    "--penalty", metavar="A,B", callback=_values,
    help="penalty_k of SPM and SiamRPN; penalty of SiamFC's scales.",
)  # fmt: skip
@click.option(
    "--inter-rate", metavar="A,B", callback=_values, help="Shares of the new size in the box."
)
@CONVENTION
@WORKERS
@DEVICE
@SET
@JSON
def sweep_command(
    checkpoint: Path, dataset: Dataset, root: Path, out: Path, split: str | None,
    convention: Convention | None, workers: int | None, device: str, overrides: tuple[str, ...],
    as_json: bool, **values: tuple[float, ...] | None,
) -> None:  # fmt: skip
    r"""Try a grid of tracking settings on a validation set.

    The published figures were chosen on the test set, so they cannot be compared with honest ones;
    a sweep on a test set says so loudly. Run again, the command does only the settings and
    sequences that are not there yet.

    \b
    Example:
      python -m tracker sweep --checkpoint spm_alexnet.safetensors --dataset got10k --split val \
          --root data/raw/got10k --out sweeps/spm --window .2,.3,.4 --nms .5,.6
    """
    from tracker import entrants, evaluate, grid, sweep, sweep_text
    from tracker.config import LACKS
    from tracker.metrics import DEFAULT_CONVENTION
    from tracker.sequences import read_sequences

    given = {key: tried for key, tried in values.items() if tried is not None}
    if not given:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in values)
        raise click.UsageError(f"nothing to try: give values to at least one of {options}")
    if split is None and dataset != "got10k":
        raise click.UsageError(f"--split is needed for {dataset}: its first split is a test set")
    rule = convention or DEFAULT_CONVENTION[dataset]
    sequences = read_sequences(dataset, root, split, rule)
    for warning in sweep_text.warnings_of(dataset, sequences.split):
        warn(warning)
    made = entrants.open_checkpoint(checkpoint, overrides, device)
    name = made.config.name
    axes = grid.axes_of(name, LACKS[name], given)
    settings = grid.settings_of(axes, made.config)
    found = sweep.sweep(
        sequences, out, contestants=sweep.contestants_of(made, settings), axes=axes,
        convention=rule, workers=workers or made.workers, tell=partial(click.echo, err=True),
    )  # fmt: skip
    if as_json:
        print_json(sweep_text.facts(found))
        return
    Console().print(sweep_text.table(found))
    for line in sweep_text.advice(found):
        click.echo(line)
    for note in found.notes:
        click.echo(f"Note: {note}")
    folder = evaluate.report_folder(out, sequences.dataset, sequences.split)
    written = [folder / name for name in (sweep.SUMMARY, sweep.MAP) if (folder / name).is_file()]
    click.echo(f"Written: {', '.join(map(str, written))}")
    click.echo(f"The best: {sweep_text.best_options(found)}")
