"""``python -m tracker``: convert checkpoints, follow an object through a video, evaluate, tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from shards.console import KnownErrorsGroup, print_json

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
