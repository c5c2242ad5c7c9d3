"""``python -m shards``: look at packed data sets, check them, rebuild their index, export them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from shards.console import KnownErrorsGroup, counter, print_json
from shards.errors import DataError, FormatError
from shards.format import MANIFEST_NAME, Manifest, dataset_folders
from shards.geometry import GRIDS, Grid

__all__ = ["main"]

FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
MAX_SHOWN = 20  # damaged samples listed on a terminal; --json lists all


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
    manifest = Manifest.read(folder)
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


@main.command(epilog="Example: python -m shards info data/shards/lasot --json")
@FOLDER
@AS_JSON
def info(folder: Path, as_json: bool) -> None:
    """Say what DIR holds: a data set, or (without --json) all data sets in it."""
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


@main.command(epilog="Example: python -m shards index data/shards/lasot")
@FOLDER
@click.option("--name", help="Name of the data set, where there is no manifest.")
@click.option(
    "--grid",
    type=click.Choice(GRIDS),
    default="edge",
    show_default=True,
    help="Pixel grid of the crops, where there is no manifest.",
)
@AS_JSON
def index(folder: Path, name: str | None, grid: Grid, as_json: bool) -> None:
    """Make the index (and, where it is absent, the manifest) of a folder of shards again."""
    from shards.rebuild import rebuild

    manifest = rebuild(folder, name=name, grid=grid)
    if as_json:
        print_json(info_of(folder))
    else:
        facts = manifest.counts
        click.echo(f"{folder}: indexed {facts['frames']:,} frames of {len(manifest.shards)} shards")


@main.command(epilog="Example: python -m shards show data/shards/lasot --out sheet.png")
@FOLDER
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write.")
@click.option("--sequence", help="Only frames of this sequence.")
@click.option(
    "--count",
    type=click.IntRange(1, 400),
    default=24,
    show_default=True,
    help="Crops on the sheet.",
)
@click.option("--columns", type=click.IntRange(1, 40), default=6, show_default=True)
def show(folder: Path, out: Path, sequence: str | None, count: int, columns: int) -> None:
    """Draw crops with their boxes, evenly spread over the data set or one sequence."""
    from shards import pixels
    from shards.draw import Tile, save, sheet
    from shards.index import Index, crc32c
    from shards.storage import LocalStorage, Range

    found = _one_folder(folder)
    table = Index.checked(found, Manifest.read(found))
    rows = np.arange(len(table))
    if sequence is not None:
        rows = table.rows_of(sequence)
        if not len(rows):
            close = ", ".join(table.sequences_like(sequence))
            hint = f"; similar: {close}" if close else ""
            raise DataError(f"{found}: no sequence {sequence!r}{hint}")
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    storage = LocalStorage(found)
    tiles = []
    for row in rows.tolist():
        one = Range(table.file(row), int(table.offset[row]), int(table.size[row]))
        (data,) = storage.read_many([one])
        if crc32c(data) != table.crc[row]:
            raise FormatError(
                f"{found}: {table.key(row)} is damaged; run 'python -m shards verify'"
            )
        sample = table.sample(row)
        flags = "" if sample.visible is None else f" visible {sample.visible:g}"
        text = f"{sample.sequence} {sample.frame}\n{sample.category}{flags}"
        tiles.append(Tile(picture=pixels.decode(data), boxes=sample.boxes, text=text))
    save(sheet(tiles, min(columns, len(tiles))), out)
    click.echo(f"{out}: {len(tiles)} crops of {len(table):,}")
