"""``python -m packer``: raw data sets to shards, and demo data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from packer import catalogue
from packer.datasets import coco, lasot
from packer.datasets.got10k import Got10k
from packer.datasets.trackingnet import TrackingNet
from packer.demo import MAX_SEQUENCES, render
from packer.everything import pack_all, table
from packer.legacy import LegacyOptions, pack_legacy
from packer.options import (
    PLACE,
    crew,
    crop_options,
    interruptible,
    pack_options,
    parent_of,
    place,
    run_pack,
    say,
    whole,
)
from packer.run import OnError
from packer.sequence import DataSet
from packer.share import Share
from shards.console import KnownErrorsGroup, counter, print_json
from shards.geometry import GRIDS
from shards.legacy import dataset_of
from shards.sink import Sink, sink_at

__all__ = ["main"]

_SHOWN = {"show_default": True}


@click.group(cls=KnownErrorsGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    r"""Pack raw tracking data sets into verified WebDataset shards.

    Running a command again goes on where it stopped.

    \b
    Example:
      python -m packer demo
      python -m packer lasot --stride 3
    """


@main.command("lasot", context_settings=_SHOWN)
@pack_options(lasot)
def lasot_command(**options: Any) -> None:
    r"""Pack LaSOT.

    The root holds <class>/<class>-<n>/ or <class>-<n>/, with img/ and groundtruth.txt, or one
    folder around either; the zips of the classes as they were downloaded will do.

    \b
    Example:
      python -m packer lasot --stride 3
      python -m packer lasot --root /data/LaSOT --split all --dry-run
    """
    run_pack(lasot, **options)


@main.command("got10k", context_settings=_SHOWN)
@pack_options(Got10k)
@click.option(
    "--min-visible",
    type=click.FloatRange(0, 1),
    help="Leave out frames of which a smaller part is visible (cover.label / 8).",
)
@click.option(
    "--keep-known-bad", is_flag=True, help="Pack the sequences that are known to be badly labelled."
)
def got10k_command(min_visible: float | None, keep_known_bad: bool, **options: Any) -> None:
    r"""Pack GOT-10k.

    The root holds train/ or the sequences themselves; the split zips as they were downloaded will
    do.

    \b
    Example:
      python -m packer got10k
      python -m packer got10k --root /data/GOT-10k --min-visible 0.25
    """
    run_pack(Got10k(min_visible=min_visible, keep_known_bad=keep_known_bad), **options)


def _chunks(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Numbers of a text with commas between them, checked by the data set itself."""
    if value is None:
        return None
    try:
        return TrackingNet(chunks=tuple(int(number) for number in value.split(","))).chunks
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: numbers like 0,1,2 needed ({error})") from error


@main.command("trackingnet", context_settings=_SHOWN)
@pack_options(TrackingNet)
@click.option(
    "--chunks",
    metavar="K,K",
    callback=_chunks,
    show_default="all on disk",
    help="Which TRAIN_<k>, as in 0,1,2.",
)
@click.option(
    "--class-info",
    type=click.Path(path_type=Path),
    show_default="the root",
    help="File of the classes, or folder of such.",
)
@click.option("--require-classes", is_flag=True, help="A video without class is an error.")
def trackingnet_command(
    chunks: tuple[int, ...] | None, class_info: Path | None, require_classes: bool, **options: Any
) -> None:
    r"""Pack TrackingNet.

    The root holds TRAIN_<k>/ with anno/ and frames/ or zips/, which are read in place.

    \b
    Example:
      python -m packer trackingnet --chunks 0,1,2
      python -m packer trackingnet --class-info /data/TrackingNet_class_info
    """
    dataset = TrackingNet(chunks=chunks, class_info=class_info, require_classes=require_classes)
    run_pack(dataset, **options)


@main.command("coco", context_settings=_SHOWN)
@pack_options(coco.Coco, of_pictures=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    show_default="train2017/, images/train2017/, images/ or train2017.zip below the root",
    help="Folder or zip of the pictures.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="annotations/instances_train2017.json below the root",
    help="JSON file of the boxes.",
)
def coco_command(root: Path, images: Path | None, annotations: Path | None, **options: Any) -> None:
    r"""Pack COCO: one crop for every annotated object.

    Crowds are no targets, but their boxes go along with the ignore flag.

    \b
    Example:
      python -m packer coco
      python -m packer coco --images train2017.zip --annotations instances_train2017.json
    """
    dataset = coco.locate(root, images, annotations)
    run_pack(dataset, dataset.images, **options)


def _add(dataset: DataSet) -> None:
    """Give a data set without options of its own its command."""

    @main.command(dataset.NAME, context_settings=_SHOWN)
    @pack_options(dataset)
    def command(**options: Any) -> None:
        run_pack(dataset, **options)

    command.help = (
        f"Pack {dataset.NAME}.\n\nExpected: {dataset.LAYOUT}\n\n\b\nExample:\n"
        f"  python -m packer {dataset.NAME} --dry-run"
    )


def _add_others() -> None:
    """Add the data sets that need no command of their own here."""
    for name in catalogue.names():
        dataset = None if name in main.commands else catalogue.plain(name)
        if dataset is not None:
            _add(dataset)


_add_others()


def _with_crop_options(command: Any) -> Any:
    for option in reversed(crop_options()):
        command = option(command)
    return command


@main.command("all", context_settings=_SHOWN)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=parent_of("SIAMSTREAM_RAW", "data/raw"),
    show_default="data/raw, or $SIAMSTREAM_RAW",
    help="Parent of the raw data sets.",
)
@click.option(
    "--out",
    type=PLACE,
    default=place(),
    show_default="data/shards, or $SIAMSTREAM_SHARDS",
    help="Parent of the folders of shards, or s3://bucket/prefix.",
)
@_with_crop_options
def all_command(
    root: Path,
    out: Sink,
    as_json: bool,
    scheduler: str | None,
    workers: int | None,
    share: Share | None,
    dry_run: bool,
    **options: Any,
) -> None:
    r"""Pack every data set below one folder, each with its default stride and smallest box.

    One that fails does not stop the others; the exit code is 1 then.

    \b
    Example:
      python -m packer all
      python -m packer all --root /data --out /data/shards --dry-run
    """
    results = []
    options |= {"dry_run": dry_run, "share": share}
    with interruptible(), crew(scheduler, workers, share, dry_run) as (executor, at_once):
        for result in pack_all(
            root, out, workers=at_once, executor=executor, progress=counter, **options
        ):
            results.append(result)
            if result.report is not None:
                for cause in result.report.causes:
                    say(f"{result.name}: left out: {cause}")
                for note in result.report.notes:
                    say(f"{result.name}: note: {note}")
            if result.error is not None:
                say(f"{result.name}: {result.error}")
    for line in table(results):
        say(line)
    if as_json:
        failed = sum(result.state == "failed" for result in results)
        print_json(
            {
                "root": str(root),
                "out": str(out),
                "failed": failed,
                "datasets": {result.name: result.facts() for result in results},
            }
        )
    if any(result.state == "failed" for result in results):
        raise click.exceptions.Exit(1)


@main.command(
    "legacy",
    context_settings=_SHOWN,
    epilog="Example: python -m packer legacy --zip COCO.zip --ann coco_clean.pkl --dataset coco",
)
@click.option(
    "--zip",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    help="Old zip of crops, or folder of its members.",
)
@click.option(
    "--ann",
    "annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Its <name>_clean.pkl; read without running anything in it.",
)
@click.option(
    "--dataset", show_default="from the published file names", help="Name of the data set."
)
@click.option(
    "--out",
    type=PLACE,
    show_default="data/shards/<data set>, or $SIAMSTREAM_SHARDS/<data set>",
    help="Folder or bucket of the shards: new, empty, or begun by the same command.",
)
@click.option(
    "--grid",
    type=click.Choice(GRIDS),
    show_default="what an exported zip says of itself, else corner, as published",
    help="Pixel grid of the crops.",
)
@click.option(
    "--kind",
    type=click.Choice(("image", "video")),
    show_default="image where no track has a second frame",
    help="Single pictures or videos.",
)
@click.option(
    "--frames-per-shard",
    type=whole("frames_per_shard"),
    default=LegacyOptions(dataset="x").frames_per_shard,
    help="Most frames in a shard.",
)
@click.option("--workers", type=click.IntRange(1), show_default="one a core", help="Threads.")
@click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    default="fail",
    help="List all that is malformed or missing and fail, or leave it out, counted.",
)
@click.option("--dry-run", is_flag=True, help="Plan and report, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
def legacy_command(
    path: Path,
    annotations: Path,
    dataset: str | None,
    out: Sink | None,
    workers: int | None,
    on_error: OnError,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Copy the crops of an old zip into shards, byte for byte.

    The crops are not made again, so their pixel grid, size and quality stay what they were. To use
    a zip where it is, without a copy: python -m shards index --from-zip.
    """
    name = dataset or dataset_of(path) or dataset_of(annotations)
    if name is None:
        raise click.UsageError(f"{path.name} is no published name: give the name with --dataset")
    with interruptible():
        report = pack_legacy(
            path,
            annotations,
            out or sink_at(place(name)()),
            LegacyOptions(dataset=name, **options),
            workers=workers,
            on_error=on_error,
            dry_run=dry_run,
            progress=counter,
        )
    for line in report.lines():
        say(line)
    if as_json:
        print_json(report.facts())


@main.command("demo", context_settings=_SHOWN)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=parent_of("SIAMSTREAM_RAW", "data/raw"),
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
    say(f"{len(names)} sequences of {frames} frames in {folder}")
    say("next: python -m packer lasot --stride 3")
    if as_json:
        print_json({"root": str(folder), "sequences": names, "frames": frames})
