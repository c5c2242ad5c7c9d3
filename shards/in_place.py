"""Index crops that others made, used where they are: a zip of stored members, or a folder of files.

The data set's folder gets an index, a manifest and, where the crops lie elsewhere, a link to them,
so that all names in the index are names in that folder. Nothing is copied or changed.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.crop_files import Crop, FolderCrops, ZipCrops
from shards.errors import DataError, MismatchError, StorageError
from shards.format import (
    MANIFEST_NAME,
    Kind,
    Manifest,
    Sample,
    ShardInfo,
    check_dataset_name,
    check_file_name,
)
from shards.geometry import Grid
from shards.legacy import LEGACY_CATEGORIES, Comment, open_legacy
from shards.legacy_tracks import Chosen, Legacy, choose, tracks_of
from shards.parts import Part, table_of
from shards.sink import storage_error
from shards.writer import finish
from shards.zip_members import comment

__all__ = ["UNKNOWN_SOURCE", "index_folder", "index_zip"]

UNKNOWN_SOURCE = (
    "crops of others, their bytes unchanged: the mean colour, size and path of the source frames "
    "and the regions that the crops show are not known"
)
SHOWN_PROBLEMS = 1000
_CHUNK_ROWS = 4096
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def _listed(headline: str, problems: Sequence[str]) -> DataError:
    """Error with every problem on a line of its own; the first 1,000 are spelt out."""
    lines = [f"{headline}:", *(f"  {one}" for one in problems[:SHOWN_PROBLEMS])]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(problems) - SHOWN_PROBLEMS:,} more")
    return DataError("\n".join(lines))


def index_zip(
    path: Path,
    annotations: Path,
    out: Path,
    *,
    name: str,
    grid: Grid | None = None,
    kind: Kind | None = None,
    skip: bool = False,
    progress: Progress = _silent,
) -> Manifest:
    """Index the stored members of a zip, used in place.

    The whole zip is read once, for the checksums.

    Parameters
    ----------
    path : the zip; members may lie in a folder
    annotations : its ``_clean.pkl``
    out : the data set's folder; gets a link to the zip unless that lies in it
    name : of the data set
    grid : of the crops; by default what the zip's comment says, else ``corner``, as published
    kind : by default ``image`` where no track has a second frame
    skip : leave malformed and missing crops out, counted
    progress : called with crops done and crops in all

    Raises
    ------
    DataError : if annotations or crops are malformed and not to be left out, or none is left
    FormatError : if the zip or the pickle is damaged or refused, or members are not stored
    MismatchError : if `out` holds something else
    """
    try:
        crops = ZipCrops(path)
        facts = Comment.from_bytes(comment(path))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _index(crops, annotations, out, name, grid, facts, kind, skip, progress)


def index_folder(
    path: Path,
    annotations: Path,
    out: Path,
    *,
    name: str,
    grid: Grid | None = None,
    kind: Kind | None = None,
    skip: bool = False,
    progress: Progress = _silent,
) -> Manifest:
    """Index a folder of crops, used in place; parameters and errors as in `index_zip`."""
    try:
        crops = FolderCrops(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be listed: {error.strerror or error}") from error
    return _index(crops, annotations, out, name, grid, Comment(), kind, skip, progress)


def _index(
    crops: ZipCrops | FolderCrops,
    annotations: Path,
    out: Path,
    name: str,
    grid: Grid | None,
    facts: Comment,
    kind: Kind | None,
    skip: bool,
    progress: Progress,
) -> Manifest:
    link = _claim(out, check_dataset_name(name), crops.path)
    legacy = tracks_of(*open_legacy(annotations))
    kind = kind or legacy.kind
    grid = grid or facts.grid or "corner"
    chosen = choose(legacy, kind, crops.names)
    _refuse(chosen.problems, f"{annotations} and {crops.path}", skip)
    wanted = [legacy.pictures[frame] for frame in np.flatnonzero(chosen.kept).tolist()]
    crops.check(wanted, _repack(crops.path, annotations, name))
    try:
        read = crops.read(wanted, link, lambda done: progress(done, len(wanted)))
    except OSError as error:
        raise StorageError(f"{crops.path}: cannot be read: {error.strerror or error}") from error
    side_px = _one_size(read.crops)
    named = zip(wanted, read.crops, strict=True)
    unread = [f"{picture}: {crop.reason}" for picture, crop in named if crop.reason]
    _refuse(unread, str(crops.path), skip)
    rows = _rows(legacy, chosen, kind, read.crops)
    if not rows.num_rows:
        counted = ", ".join(f"{why} {n:,}" for why, n in chosen.left_out.counts.items())
        raise DataError(f"{crops.path}: no crop is left to index; left out: {counted or 'none'}")
    _make_link(crops.path, out, link)
    info = ShardInfo(name=link, bytes=read.bytes, frames=rows.num_rows, sha256=read.sha256)
    return finish(
        out,
        [Part(info=info, rows=rows, facts={})],
        name=name,
        grid=grid,
        crop_size=side_px,
        quality=facts.quality,
        stride=facts.stride,
        options={
            "in_place": crops.form,
            "grid": grid,
            "kind": kind,
            LEGACY_CATEGORIES: [dict(one) for one in legacy.listed],
        },
        rejected=chosen.left_out.counts,
        rejected_examples=chosen.left_out.examples,
        notes=(UNKNOWN_SOURCE,),
    )


def _refuse(problems: Sequence[str], where: str, skip: bool) -> None:
    if problems and not skip:
        raise _listed(
            f"{len(problems):,} problem(s) in {where}; nothing was written. "
            "Leave the frames out with --on-error skip",
            problems,
        )


def _repack(path: Path, annotations: Path, name: str) -> str:
    words = ["python", "-m", "packer", "legacy", "--zip", str(path), "--ann", str(annotations)]
    return shlex.join([*words, "--dataset", name])


def _one_size(crops: Sequence[Crop]) -> int:
    """Side that most crops have; those of another are marked."""
    sides = Counter(crop.side_px for crop in crops if not crop.reason)
    side_px = sides.most_common(1)[0][0] if sides else 0
    for crop in crops:
        if not crop.reason and crop.side_px != side_px:
            crop.reason = f"{crop.side_px} pixels wide, most crops have {side_px}"
    return side_px


def _rows(legacy: Legacy, chosen: Chosen, kind: Kind, crops: Sequence[Crop]) -> pa.Table:
    """Rows of the index; what cannot be used is counted with what was left out before."""
    where = iter(crops)
    tables: list[pa.Table] = []
    rows: list[tuple[Sample, str, int, int, int]] = []
    for track in legacy.tracks:
        left = []
        for row in chosen.rows(track).tolist():
            crop = next(where)
            if crop.reason:
                chosen.left_out.add_row("unreadable", track, row)
            else:
                left.append((row, crop))
        if kind == "video" and len(left) == 1:
            chosen.left_out.add_row("short_track", track, left.pop()[0])
        rows += [
            (track.sample(row, kind), crop.file, crop.offset, crop.size, crop.crc32c)
            for row, crop in left
        ]
        if len(rows) >= _CHUNK_ROWS:
            tables.append(table_of(rows))
            rows = []
    return pa.concat_tables([*tables, table_of(rows)])


def _claim(out: Path, name: str, crops: Path) -> str:
    """What the folder calls the zip or folder of crops, if it is free or of the same crops.

    Raises
    ------
    MismatchError : if it holds something else
    FormatError : if the name is none that an index may hold
    """
    link = check_file_name(crops.absolute().name)
    if out.resolve() == crops.resolve():
        raise MismatchError(f"{out} is the folder of the crops itself; give another --out")
    if (out / MANIFEST_NAME).is_file():
        found = Manifest.read(out)
        if found.name != name or [shard.name for shard in found.shards] != [link]:
            held = ", ".join(shard.name for shard in found.shards[:3])
            raise MismatchError(
                f"{out} holds data set {found.name!r} in {held}; give another --out, one folder "
                "for each data set"
            )
    packed = next(out.glob("*.tar"), None) or next(out.glob("plan.json"), None)
    if packed is not None:
        raise MismatchError(f"{out} holds packed shards ({packed.name}); give another --out")
    place = out / link
    if (place.is_symlink() or place.exists()) and place.resolve() != crops.resolve():
        raise MismatchError(
            f"{place} is there already and is not {crops}; remove it or give another --out"
        )
    return link


def _make_link(crops: Path, out: Path, link: str) -> None:
    """Link the crops into the data set's folder, unless they lie in it."""
    place = out / link
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(crops.resolve())
    except OSError as error:
        raise storage_error(error, place) from error
