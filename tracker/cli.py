"""``python -m tracker``: convert checkpoints, follow an object through a video, evaluate, tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from shards.console import KnownErrorsGroup, print_json

if TYPE_CHECKING:
    from tracker.sequences import Convention, Dataset

__all__ = ["main"]


@click.group(
    cls=KnownErrorsGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: python -m tracker track --checkpoint spm_alexnet.safetensors --video clip.mp4 "
    "--box 10,20,30,40 --out out.mp4",
)
def main() -> None:
    """Trackers: convert published weights, follow, evaluate, tune."""


@main.command("convert", context_settings={"show_default": True})
@click.option(
    "--from", "source", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Checkpoint as published (.pth), or latest.pth of a run of train.py.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Model file to write, .safetensors.",
)  # fmt: skip
@click.option("--model", help="Which model it must be.  [default: found from the tensors]")
@click.option("--force", is_flag=True, help="Replace whatever file is at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert_command(source: Path, out: Path, model: str | None, force: bool, as_json: bool) -> None:
    r"""Write a checkpoint as a model file that says what it is.

    The model is found from the names and shapes of the tensors. Published checkpoints are of the
    grid 'corner'; a run's keep their own. Nothing in the file is executed.

    \b
    Example:
      python -m tracker convert --from epoch_50.pth --out spm_alexnet.safetensors
      python -m tracker convert --from runs/spm_alexnet/latest.pth --out mine.safetensors
    """
    from tracker import published

    if model is not None and model not in published.MODELS:
        raise click.BadParameter(
            f"{model!r} is not one of {', '.join(published.MODELS)}", param_hint="--model"
        )
    done = published.convert(source, out, model=model, force=force)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(
        f"{out}: {done.model}, grid {done.grid}, {done.tensors} tensors, "
        f"{done.parameters:,} parameters; from {done.origin}"
    )
    for note in done.notes:
        click.echo(f"Note: {note}")


@main.command("eval", context_settings={"show_default": True})
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Model file (.safetensors), or latest.pth of a run of train.py.",
)  # fmt: skip
@click.option(
    "--dataset", type=click.Choice(["otb", "lasot", "got10k", "trackingnet"]), required=True
)
@click.option(
    "--root", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder of the data set, extracted.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder of results; one for all data sets and trackers that are to be compared.",
)  # fmt: skip
@click.option(
    "--split", show_default=False,
    help="Part of the data set.  [default: otb100, and test, val, test of the others; all: "
    "everything on disk]",
)  # fmt: skip
@click.option(
    "--convention", type=click.Choice(["got10k", "pysot", "reference"]), show_default=False,
    help="Whose rules scores are counted by.  [default: pysot for lasot, got10k for the others]",
)  # fmt: skip
@click.option(
    "--name", show_default=False,
    help="Name of the tracker in tables and folders.  [default: that of the checkpoint's file, or "
    "of the run's folder]",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=1), show_default=False,
    help="Processes; the results do not depend on it.  [default: CPU cores, 1 on a GPU]",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Another value of a key below 'track', such as track.match.window=0.3; repeatable.",
)  # fmt: skip
@click.option("--per-sequence", is_flag=True, help="Print the figures of every sequence too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def eval_command(
    checkpoint: Path, dataset: Dataset, root: Path, out: Path, split: str | None,
    convention: Convention | None, name: str | None, workers: int | None, device: str,
    overrides: tuple[str, ...], per_sequence: bool, as_json: bool,
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
    from tracker import evaluate
    from tracker.metrics import DEFAULT_CONVENTION
    from tracker.sequences import read_sequences

    rule = convention or DEFAULT_CONVENTION[dataset]
    sequences = read_sequences(dataset, root, split, rule)
    made = evaluate.open_checkpoint(checkpoint, overrides, device)
    evaluation, submission = evaluate.evaluate(
        sequences, out, name=name or evaluate.default_name(checkpoint), make=made.make,
        made_by=made.made_by, convention=rule, workers=workers or made.workers,
    )  # fmt: skip
    if as_json:
        places = {"out": str(out), "submission": submission and str(submission)}
        print_json(evaluate.facts(evaluation) | places)
        return
    console = Console()
    for table in evaluate.tables(evaluation, per_sequence) if evaluation.trackers else []:
        console.print(table)
    for note in evaluation.notes:
        click.echo(f"Note: {note}")
    if submission is not None:
        click.echo(f"For the evaluation server: {submission}")
