"""Make the index of a folder of shards from the tars alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from shards import pixels
from shards.errors import FormatError
from shards.format import MANIFEST_NAME, Manifest
from shards.geometry import Grid
from shards.index import scan
from shards.writer import finish

__all__ = ["rebuild"]


def rebuild(folder: Path, *, name: str | None = None, grid: Grid = "edge") -> Manifest:
    """Read all shards and write index and manifest; the same bytes as the packer's.

    Parameters
    ----------
    folder : of the data set
    name, grid : facts that only a manifest holds, for folders that have none; the name is
        otherwise that of the shards

    Raises
    ------
    FormatError : if there are no shards, one is damaged, or it is not the manifest's
    """
    shards = sorted(folder.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar"))
    if not shards:
        raise FormatError(f"{folder}: no shards; they are named <data set>-000000.tar and so on")
    parts = []
    for path in shards:
        with path.open("rb") as handle:
            parts.append(scan(handle, path.name))
    if not (folder / MANIFEST_NAME).is_file():
        names = {path.name.rpartition("-")[0] for path in shards}
        if name is None and len(names) > 1:
            raise FormatError(f"{folder}: shards of {', '.join(sorted(names))}: give --name")
        crop_size = _crop_size(shards[0], int(parts[0].rows["offset"][0].as_py()))
        return finish(folder, parts, name=name or names.pop(), grid=grid, crop_size=crop_size)
    old = Manifest.read(folder)
    differ = {part.info for part in parts} ^ set(old.shards)
    if differ:
        listed = ", ".join(sorted({info.name for info in differ}))
        raise FormatError(
            f"{folder}: not the shards that the manifest names: {listed}; "
            f"fetch them again, or delete {MANIFEST_NAME} to index what is there"
        )
    kept = {field.name: getattr(old, field.name) for field in fields(old)}
    for made in ("counts", "shards", "index", "format_version"):
        del kept[made]
    return finish(folder, parts, **kept)


def _crop_size(shard: Path, offset: int) -> int:
    """Side of the first picture of a shard."""
    with shard.open("rb") as handle:
        handle.seek(offset)
        head = pixels.header(handle.read(1 << 20))
    if head.width != head.height:
        raise FormatError(
            f"{shard}: crops must be square, the first has {head.width}x{head.height}"
        )
    return head.width
