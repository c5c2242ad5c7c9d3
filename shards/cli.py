"""``python -m shards``: look at packed data sets, check them, rebuild their index, export them."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shards.console import KnownErrorsGroup, counter, counter_on_demand, print_json
from shards.errors import DataError
from shards.format import MANIFEST_NAME, Kind, Manifest, dataset_folders
from shards.geometry import GRIDS, Grid

__all__ = ["main"]

FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
MAX_SHOWN = 200  # damaged samples listed on a terminal; --json lists all


def _folders(path: Path) -> list[Path]:
    found = dataset_folders(path)
    if not found:
        state = (
            f"has no {MANIFEST_NAME}, nor has a folder in it" if path.is_dir() else "is no folder"
        )
        raise DataError(
            f"{path} {state}; pack a data set with 'python -m packer lasot', or index tars with "
            "'python -m shards index DIR'"
        )
    return found


def _one_folder(path: Path) -> Path:
    found = _folders(path)
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise DataError(f"{path} holds several data sets ({names}): name one of them")
    return found[0]


@click.group(cls=KnownErrorsGroup, epilog="Example: python -m shards info data/shards/lasot")
def main() -> None:
    """Packed data sets: what is in them, whether they are whole, what they look like."""


def info_of(folder: Path) -> dict[str, Any]:
    """Facts of one data set, as ``info --json`` prints them; sizes in bytes and pixels."""
    return facts_of(Manifest.read(folder))


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """Facts that a manifest holds, as ``info --json`` prints them."""
    counts = manifest.counts
    return {
        "name": manifest.name,
        "format_version": manifest.format_version,
        "shards": len(manifest.shards),
        "frames": counts["frames"],
        "tracks": counts["tracks"],
        "sequences": counts["sequences"],
        "categories": counts["categories"],
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "crop_size": manifest.crop_size,
        "quality": manifest.quality,
        "stride": manifest.stride,
        "grid": manifest.grid,
        "rejected": dict(manifest.rejected),
        "missing": len(manifest.missing),
        "notes": list(manifest.notes),
    }


@main.command(epilog="Example: python -m shards info data/shards --plot plot.png")
@FOLDER
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path),
    help="Draw categories, box sizes and frame gaps to this picture.",
)
@AS_JSON
def info(folder: Path, plot_file: Path | None, as_json: bool) -> None:
    """Say what DIR holds: a data set, or (without --json) all data sets in it."""
    if plot_file is not None:
        _plot([_one_folder(folder)] if as_json else _folders(folder), plot_file)
    if as_json:
        print_json(info_of(_one_folder(folder)))
        return
    for found in _folders(folder):
        facts = info_of(found)
        click.echo(f"{facts['name']} ({found})")
        click.echo(
            f"  {facts['frames']:,} frames of {facts['tracks']:,} tracks in {facts['sequences']:,} "
            f"sequences, {facts['categories']} categories"
        )
        click.echo(
            f"  {facts['shards']} shards, {facts['bytes'] / 1e6:,.1f} MB, format "
            f"{facts['format_version']}, crops of {facts['crop_size']} px, quality "
            f"{facts['quality']}, stride {facts['stride']}, {facts['grid']} grid"
        )
        rejected = ", ".join(f"{reason} {n:,}" for reason, n in facts["rejected"].items())
        click.echo(
            f"  left out: {rejected or 'nothing'}; sequences not on disk: {facts['missing']}"
        )
        for note in facts["notes"]:
            click.echo(f"  note: {note}")


def _plot(folders: list[Path], path: Path) -> None:
    from shards.index import Index
    from shards.plots import plot, statistics

    sets = []
    for folder in folders:
        manifest = Manifest.read(folder)
        sets.append(statistics(Index.checked(folder, manifest), manifest.crop_size))
    plot(sets, path)
    click.echo(f"{path}: plots of {', '.join(one.name for one in sets)}", err=True)


@main.command(epilog="Example: python -m shards verify data/shards/lasot")
@FOLDER
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: all cores]")
@AS_JSON
@click.pass_context
def verify(ctx: click.Context, folder: Path, workers: int | None, as_json: bool) -> None:
    """Check every CRC, size and hash and decode every picture. Exit 1 and the bad keys if any."""
    from shards.verify import verify as run

    found = _one_folder(folder)
    total = Manifest.read(found).counts.get("frames", 0)
    with counter("verify", "frames", total) as shown:
        report = run(found, workers, lambda done, _: shown.update(done))
    if as_json:
        facts = asdict(report)
        print_json({"ok": report.ok, **facts})
    for damage in report.damage[:MAX_SHOWN]:
        where = f"{damage.shard}: {damage.key}" if damage.key else damage.shard
        click.echo(f"bad: {where}: {damage.reason}", err=True)
    more = len(report.damage) - MAX_SHOWN
    if more > 0:
        click.echo(f"... and {more:,} more (--json lists all)", err=True)
    if not as_json:
        state = "all good" if report.ok else f"{len(report.damage):,} problems"
        click.echo(
            f"{report.name}: {report.shards} shards, {report.frames:,} frames, "
            f"{report.bytes / 1e6:,.1f} MB: {state}"
        )
    if not report.ok:
        click.echo(
            "Error: damaged; pack it again into an empty folder, or fetch the named files again",
            err=True,
        )
        ctx.exit(1)


@main.command(epilog="Example: python -m shards index --from-zip COCO.zip --ann coco_clean.pkl")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--from-zip", type=click.Path(path_type=Path), help="Zip of crops, used in place.")
@click.option(
    "--from-folder", type=click.Path(path_type=Path), help="Folder of crops, used in place."
)
@click.option(
    "--ann",
    "annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    help="<name>_clean.pkl of the zip or folder; read without running anything in it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The data set's folder, which gets a link to the zip or folder.  "
    "[default: data/shards/<name>, or $SIAMSTREAM_SHARDS/<name>]",
)
@click.option(
    "--name", help="Name of the data set.  [default: the shards', or from the published file names]"
)
@click.option(
    "--grid",
    type=click.Choice(GRIDS),
    help="Pixel grid of the crops, where no manifest tells.  [default: edge; of a zip or folder "
    "what an exported zip says of itself, else corner, as published]",
)
@click.option(
    "--kind",
    type=click.Choice(("image", "video")),
    help="Of a zip or folder.  [default: image where no track has a second frame]",
)
@click.option(
    "--on-error",
    type=click.Choice(("fail", "skip")),
    default="fail",
    show_default=True,
    help="List malformed and missing crops of a zip or folder and fail, or leave them out.",
)
@AS_JSON
def index(
    folder: Path | None,
    from_zip: Path | None,
    from_folder: Path | None,
    annotations: Path | None,
    out: Path | None,
    name: str | None,
    grid: Grid | None,
    kind: Kind | None,
    on_error: str,
    as_json: bool,
) -> None:
    """Index the shards of DIR again, or crops that others made, where they are.

    Where DIR has no manifest, it gets one too.
    """
    from shards.rebuild import rebuild

    crops = from_zip or from_folder
    if sum(path is not None for path in (folder, from_zip, from_folder)) != 1:
        raise click.UsageError("give one of DIR, --from-zip and --from-folder")
    if folder is None:
        if crops is None or annotations is None:
            raise click.UsageError("--from-zip and --from-folder need --ann")
        folder, manifest = _index_in_place(
            crops, from_zip is not None, annotations, out, name, grid, kind, on_error == "skip"
        )
    else:
        if annotations is not None or out is not None or kind is not None:
            raise click.UsageError("--ann, --out and --kind go with --from-zip or --from-folder")
        manifest = rebuild(folder, name=name, grid=grid or "edge")
    if as_json:
        print_json(info_of(folder))
        return
    counts, held = manifest.counts, manifest.shards
    what = held[0].name if manifest.in_place else f"{len(held)} shards"
    click.echo(f"{folder}: indexed {counts['frames']:,} frames of {what}")
    if manifest.in_place:
        for reason, count in manifest.rejected.items():
            click.echo(f"left out: {reason} {count:,}")
        click.echo(f"{manifest.grid} grid; next: python -m shards verify {folder}")


def _index_in_place(
    crops: Path,
    is_zip: bool,
    annotations: Path,
    out: Path | None,
    name: str | None,
    grid: Grid | None,
    kind: Kind | None,
    skip: bool,
) -> tuple[Path, Manifest]:
    from shards.in_place import index_folder, index_zip
    from shards.legacy import dataset_of, existing

    crops = existing(crops)
    name = name or dataset_of(crops) or dataset_of(annotations)
    if name is None:
        raise click.UsageError(f"{crops.name} is no published name: give the name with --name")
    place = out or Path(os.environ.get("SIAMSTREAM_SHARDS") or "data/shards") / name
    run = index_zip if is_zip else index_folder
    with counter_on_demand("index", "crops") as shown:
        manifest = run(
            crops, annotations, place, name=name, grid=grid, kind=kind, skip=skip, progress=shown
        )
    return place, manifest


@main.command(
    epilog="Example: python -m shards relabel data/shards/trackingnet --class-info classes/"
)
@FOLDER
@click.option(
    "--class-info",
    "class_info",
    type=click.Path(path_type=Path),
    required=True,
    help="TRAIN_k_classinfo.txt (id,number), a file of id<tab>class lines, or a folder of such.",
)
@AS_JSON
def relabel(folder: Path, class_info: Path, as_json: bool) -> None:
    """Give the sequences of DIR their classes; pictures keep their bytes.

    Sequences that are not listed keep the class they have. Needs free space for the changed shards
    until it is done; stopped at any moment, the same command completes it.
    """
    from shards.classinfo import files, merge
    from shards.relabel import relabel as run

    found, classes = _one_folder(folder), merge(files(class_info))
    with counter("relabel", "shards", len(Manifest.read(found).shards)) as shown:
        done = run(found, classes, shown.update)
    if as_json:
        print_json(asdict(done))
        return
    if done.completed:
        click.echo("completed what an earlier call had begun")
    changed = f"{done.sequences:,} sequences in {done.shards} shards relabelled"
    click.echo(f"{done.name}: {changed if done.sequences else 'nothing to change'}")
    click.echo(
        f"{done.unknown:,} sequences are still without a class; "
        f"{done.unused:,} listed ones are not in this data set"
    )


@main.command(epilog="Example: python -m shards finish data/shards/lasot")
@click.argument("place", metavar="DIR")
@AS_JSON
def finish(place: str, as_json: bool) -> None:
    """Make index and manifest of DIR (or s3://bucket/prefix) when all packer jobs are done.

    Refused while shards are missing; names them. The bytes are those of a run without jobs.
    """
    from shards.finish import finish_place
    from shards.sink import sink_at

    manifest = finish_place(sink_at(place))
    if as_json:
        print_json(facts_of(manifest))
    else:
        click.echo(
            f"{place}: {manifest.name} is complete, {manifest.counts['frames']:,} frames in "
            f"{len(manifest.shards)} shards"
        )


@main.command(epilog="Example: python -m shards show data/shards --category car --out cars.png")
@FOLDER
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write.")
@click.option("--sequence", help="Only frames of this sequence.")
@click.option("--category", help="Only targets of this class.")
@click.option("--rejected", is_flag=True, help="Frames and boxes that were left out, by reason.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Raw data set for --rejected, or with several data sets their parent.  "
    "[default: data/raw/<name>, or $SIAMSTREAM_RAW/<name>]",
)
@click.option(
    "--count",
    type=click.IntRange(1, 400),
    default=24,
    show_default=True,
    help="Crops on the sheet.",
)
@click.option("--columns", type=click.IntRange(1, 40), default=6, show_default=True)
def show(
    folder: Path,
    out: Path,
    sequence: str | None,
    category: str | None,
    rejected: bool,
    root: Path | None,
    count: int,
    columns: int,
) -> None:
    """Draw crops of a data set, or of all in DIR, with their boxes, evenly spread.

    With --rejected draw examples of what packing left out, from the raw pictures.
    """
    from shards.draw import save, sheet
    from shards.show import Choice, crop_tiles, rejected_tiles

    folders = _folders(folder)
    if rejected and (sequence is not None or category is not None):
        raise click.UsageError("--rejected shows examples of all reasons, not by name")
    if root is not None and not rejected:
        raise click.UsageError("--root is for --rejected")
    if rejected:
        tiles, total, lines = rejected_tiles(folders, root, count)
        for line in lines:
            click.echo(line, err=True)
        what = "frames and boxes that were left out"
    else:
        choice = Choice(sequence=sequence, category=category, count=count)
        tiles, total = crop_tiles(folders, choice)
        what = "crops"
    save(sheet(tiles, min(columns, len(tiles))), out)
    click.echo(f"{out}: {len(tiles)} of {total:,} {what}")


@main.command(
    epilog="Example: python -m shards export data/shards/lasot --format legacy --out data/zips"
)
@FOLDER
@click.option(
    "--format",
    "form",
    type=click.Choice(["legacy", "dali"]),
    required=True,
    help="legacy: <Name>.zip of crops and <name>_clean.pkl, as PySiamTracking loads them. "
    "dali: <shard>.idx files for fn.readers.webdataset.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the files; needed for legacy.  [default for dali: DIR, beside the shards]",
)
@AS_JSON
def export(folder: Path, form: str, out: Path | None, as_json: bool) -> None:
    """Write a packed data set in another form, crops byte for byte."""
    from shards.dali_index import export_dali
    from shards.legacy import export_legacy

    found = _one_folder(folder)
    if form == "dali":
        indexes = export_dali(found, out or found)
        facts = {
            "frames": indexes.frames,
            "tars": [str(path) for path in indexes.tars],
            "indexes": [str(path) for path in indexes.indexes],
        }
        lines = [f"{out or found}: {len(indexes.indexes)} .idx files, {indexes.frames:,} samples"]
    else:
        if out is None:
            raise click.UsageError("--format legacy needs --out")
        made = export_legacy(found, out)
        facts = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(made).items()}
        lines = [f"{made.zip}: {made.frames:,} crops", f"{made.pickle}: {made.tracks:,} tracks"]
    if as_json:
        print_json({"format": form, **facts})
        return
    for line in lines:
        click.echo(line)
