"""``python -m packer``: raw data sets to shards, and demo data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from packer.datasets import lasot
from packer.demo import MAX_SEQUENCES, render
from packer.jobs import PackOptions, limits
from packer.run import OnError, pack
from packer.sequence import DataSet, Split
from shards.console import KnownErrorsGroup, counter, print_json
from shards.geometry import CROP_PX, GRIDS

__all__ = ["main"]

INTERRUPTED = 130
_Command = TypeVar("_Command", bound=Callable[..., None])


def _say(text: str) -> None:
    click.echo(text, err=True)


def _whole(option: str) -> click.IntRange:
    """Range of a whole-number option, from `PackOptions`."""
    low, high = limits(option) or (None, None)
    return click.IntRange(low, high)


def _folder(variable: str, parent: str, name: str) -> Callable[[], Path]:
    """Return the default of a data set's folder: below the variable's value, or else `parent`."""
    return lambda: Path(os.environ.get(variable) or parent) / name


@click.group(cls=KnownErrorsGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    r"""Pack raw tracking data sets into verified WebDataset shards.

    \b
    Example:
      python -m packer demo
      python -m packer lasot --stride 3
    """


def _pack_options(name: str, stride: int, min_size: int) -> Callable[[_Command], _Command]:
    """Options that all data sets share, with this one's defaults."""
    whole = _whole
    defaults = PackOptions(stride=stride, min_size=min_size)
    options = [
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            default=_folder("SIAMSTREAM_RAW", "data/raw", name),
            show_default=f"data/raw/{name}, or $SIAMSTREAM_RAW/{name}",
            help="Raw data set.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=_folder("SIAMSTREAM_SHARDS", "data/shards", name),
            show_default=f"data/shards/{name}, or $SIAMSTREAM_SHARDS/{name}",
            help="Folder of the shards: new, empty, or begun by the same command.",
        ),
        click.option(
            "--stride", type=whole("stride"), default=stride, help="Keep every n-th frame."
        ),
        click.option(
            "--size", type=whole("size"), default=CROP_PX, help="Side of a crop in pixels."
        ),
        click.option(
            "--quality", type=whole("quality"), default=defaults.quality, help="JPEG quality."
        ),
        click.option(
            "--min-size",
            type=whole("min_size"),
            default=min_size,
            help="Smallest width and height of a box in pixels.",
        ),
        click.option(
            "--split",
            type=click.Choice(get_args(Split)),
            default=defaults.split,
            help="Sequences outside the official test set, in it, or all.",
        ),
        click.option("--limit", type=whole("limit"), help="Only the first N sequences."),
        click.option(
            "--workers", type=click.IntRange(1), show_default="one a core", help="Processes."
        ),
        click.option(
            "--frames-per-shard",
            type=whole("frames_per_shard"),
            default=defaults.frames_per_shard,
            help="Most frames in a shard.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(get_args(OnError)),
            default="fail",
            help="List all that is malformed and fail, or leave it out frame by frame, counted.",
        ),
        click.option(
            "--grid",
            type=click.Choice(GRIDS),
            default=defaults.grid,
            help="Pixel grid of the crops; corner is that of the published checkpoints.",
        ),
        click.option("--inclusive-boxes", is_flag=True, help="Boxes end at x + w - 1."),
        click.option("--dry-run", is_flag=True, help="Plan and report, write nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object."),
    ]

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _pack(
    dataset: DataSet,
    root: Path,
    out: Path,
    workers: int | None,
    on_error: OnError,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    try:
        report = pack(
            dataset,
            root,
            out,
            PackOptions(**options),
            workers=workers,
            on_error=on_error,
            dry_run=dry_run,
            progress=counter,
        )
    except KeyboardInterrupt:
        _say("interrupted: run the same command again to go on")
        raise click.exceptions.Exit(INTERRUPTED) from None
    for line in report.lines():
        _say(line)
    if as_json:
        print_json(report.facts())


@main.command("lasot", context_settings={"show_default": True})
@_pack_options("lasot", stride=3, min_size=10)
def lasot_command(**options: Any) -> None:
    r"""Pack LaSOT.

    The root holds <class>/<class>-<n>/ or <class>-<n>/, with img/ and groundtruth.txt, or one
    folder around either. Running the same command again goes on where it stopped.

    \b
    Example:
      python -m packer lasot --stride 3
      python -m packer lasot --root /data/LaSOT --split all --dry-run
    """
    _pack(lasot, **options)


@main.command("demo", context_settings={"show_default": True})
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=lambda: Path(os.environ.get("SIAMSTREAM_RAW") or "data/raw"),
    show_default="data/raw, or $SIAMSTREAM_RAW",
    help="Parent of the raw data sets; the demo goes to its folder lasot.",
)
@click.option("--sequences", type=click.IntRange(1, MAX_SEQUENCES), default=8, help="Sequences.")
@click.option("--frames", type=click.IntRange(12, 10_000), default=60, help="Frames of each.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Another seed, other pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
def demo_command(root: Path, sequences: int, frames: int, seed: int, as_json: bool) -> None:
    r"""Render small synthetic sequences in the genuine raw LaSOT layout.

    \b
    Example:
      python -m packer demo
      python -m packer lasot --stride 3
    """
    folder = root / lasot.NAME
    names = render(folder, sequences=sequences, frames=frames, seed=seed)
    _say(f"{len(names)} sequences of {frames} frames in {folder}")
    _say("next: python -m packer lasot --stride 3")
    if as_json:
        print_json({"root": str(folder), "sequences": names, "frames": frames})
