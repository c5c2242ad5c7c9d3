"""Make the index of a folder of shards from the tars alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from shards import pixels
from shards.errors import FormatError
from shards.format import MANIFEST_NAME, Manifest
from shards.geometry import Grid
from shards.parts import scan
from shards.plan import PLAN_NAME, Plan
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
    pattern = "[!.]*-[0-9][0-9][0-9][0-9][0-9][0-9].tar"  # no temporary files of packers
    shards = sorted(folder.glob(pattern))
    if not shards and (folder / MANIFEST_NAME).is_file() and Manifest.read(folder).in_place:
        raise FormatError(
            f"{folder}: its crops are used in place; make its index again with the same "
            "'python -m shards index --from-zip' or '--from-folder' as before"
        )
    if not shards:
        raise FormatError(f"{folder}: no shards; they are named <data set>-000000.tar and so on")
    plan = _plan(folder, {path.name for path in shards})
    parts = []
    for path in shards:
        with path.open("rb") as handle:
            parts.append(scan(handle, path.name))
    if not any(part.info.frames for part in parts):
        raise FormatError(f"{folder}: there is no crop in its shards")
    if plan is not None:
        kept = {field.name: getattr(plan, field.name) for field in fields(plan)}
        for other in ("input", "shards", "reasons", "format_version"):
            del kept[other]
        note = "manifest made again from plan and shards; it does not count unreadable pictures"
        return finish(folder, parts, **{**kept, "notes": (*plan.notes, note)})
    if not (folder / MANIFEST_NAME).is_file():
        names = {path.name.rpartition("-")[0] for path in shards}
        if name is None and len(names) > 1:
            raise FormatError(f"{folder}: shards of {', '.join(sorted(names))}: give --name")
        first = next(i for i, part in enumerate(parts) if part.info.frames)
        crop_size = _crop_size(shards[first], int(parts[first].rows["offset"][0].as_py()))
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


def _plan(folder: Path, there: set[str]) -> Plan | None:
    """Plan of a folder without manifest, if a packer began it; refused while shards are missing."""
    path = folder / PLAN_NAME
    if (folder / MANIFEST_NAME).is_file() or not path.is_file():
        return None
    plan = Plan.from_json(path.read_bytes(), str(path))
    absent = [name for name in plan.shard_names if name not in there]
    if absent:
        raise FormatError(
            f"{folder}: packing was not finished, {len(absent)} of {plan.shards} shards are not "
            f"there, the first is {absent[0]}; run the packer's command again (it goes on), or "
            f"delete {PLAN_NAME} to index only the shards that are there"
        )
    return plan


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
