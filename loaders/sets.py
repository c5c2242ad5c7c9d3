"""Find the data sets of a run on disk: indexes, weights, what is missing."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg

from configs.layers import hint
from configs.strict import ConfigError
from loaders.config import PairConfig
from loaders.origin import is_url
from loaders.plan import PairTables
from loaders.remote import Remote
from loaders.storages import check_storage, open_storage
from shards.errors import BadSample, DataError, FormatError, MismatchError, MissingBytes
from shards.format import Manifest, dataset_folders
from shards.geometry import Grid
from shards.index import Index
from shards.parts import crc32c
from shards.storage import LocalStorage, MemoryStorage, Range, Refetching, Storage

__all__ = [
    "Chosen",
    "DataSet",
    "DataSets",
    "choose",
    "common_form",
    "default_shards",
    "leaving",
    "may_hold",
    "open_sets",
    "picture_fault",
]

REFETCHES = 3  # of bytes with a wrong checksum, which may only be so on this machine
HOW_TO_GET_DATA = (
    "pack one with 'python -m packer lasot', or make a small demo data set with "
    "'python -m packer demo' and then 'python -m packer lasot --stride 3'"
)


_END_OF_IMAGE = b"\xff\xd9"
Set = TypeVar("Set", bound="Opened", covariant=True)


def default_shards() -> str:
    """Parent of the packed data sets, a folder or a URL: $SIAMSTREAM_SHARDS, or data/shards."""
    return os.environ.get("SIAMSTREAM_SHARDS") or "data/shards"


def modified(path: Path) -> float:
    """When a file was last written to; 0 if it is gone."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def picture_fault(data: memoryview, side: int) -> str | None:
    """What is wrong with a picture that should be a JPEG of `side` x `side` pixels, or None.

    Nothing is decoded, so every backend refuses the same pictures. One that is cut off is found by
    its missing end, which a decoder of regions may never come to.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        return f"not decodable: {error}"
    if (width, height) != (side, side):
        return f"{width}x{height} pixels, {side}x{side} expected"
    # A few bytes may follow the end, as some writers leave them.
    if data[-2:] != _END_OF_IMAGE and _END_OF_IMAGE not in bytes(data[-64:]):
        return "not decodable: it is cut off, a JPEG's end is missing"
    return None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataSet:
    """One packed data set that is open for reading; `folder` is its folder, or its URL."""

    folder: Path | str
    manifest: Manifest
    index: Index
    storage: Storage
    weight: float

    @property
    def place(self) -> str:
        """Where it is."""
        return str(self.folder)

    def ranges(self, rows: npt.NDArray[np.int64]) -> list[Range]:
        """Where the pictures of rows are."""
        index = self.index
        return [index.range(row) for row in rows]

    def read(self, row: int) -> memoryview:
        """Encoded picture of a row, its checksum and the size in its header verified.

        Raises
        ------
        BadSample : if the bytes are not those that were packed, or no JPEG of the right size
        StorageError : if they cannot be read
        """
        index = self.index
        one = index.range(row)
        try:
            (data,) = self.storage.read_many([one])
            found = crc32c(data)
            tries = REFETCHES
            while found != index.crc[row] and tries > 0 and isinstance(self.storage, Refetching):
                data, tries = self.storage.refetch(one), tries - 1
                found = crc32c(data)
        except MissingBytes as error:
            raise self.bad(row, error.reason) from error
        if found != index.crc[row]:
            reason = f"CRC-32C is {found:08x}, the index says {index.crc[row]:08x}"
            raise self.bad(row, f"{reason}{self._changed(one.file)}")
        fault = picture_fault(data, self.manifest.crop_size)
        if fault:
            raise self.bad(row, fault)
        return data

    def _changed(self, file: str) -> str:
        """What has happened to a file, as far as that shows, to be put after a reason."""
        if not isinstance(self.storage, LocalStorage):
            return ""
        text = self.storage.changed(file)
        if not text and modified(Path(self.folder, file)) > modified(self.index.path):
            text = "the file is newer than the index"
        return text and f" ({text})"

    def bad(self, row: int, reason: str) -> BadSample:
        """Error that names a row's sample."""
        file = f"{self.folder}/{self.index.file(row)}"
        return BadSample(file, self.index.key(row), int(self.index.offset[row]), reason)


class Opened(Protocol):
    """What a run's records need to know of a data set."""

    @property
    def manifest(self) -> Manifest:
        """Of the data set."""

    @property
    def weight(self) -> float:
        """Share of the pairs."""

    @property
    def place(self) -> str:
        """Where it is."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chosen(Generic[Set]):
    """The data sets of a run.

    Attributes
    ----------
    sets : with weights that sum to 1, in the order of their names
    missing : names with a weight that are not there
    warnings : one line each
    grid, crop_size : of all stored crops
    remote : what data behind a URL are read with, else None
    """

    sets: tuple[Set, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    grid: Grid
    crop_size: int
    remote: Remote | None = None

    def stop(self) -> None:
        """Let those who wait for bytes of a remote storage fail soon."""
        if self.remote is not None:
            self.remote.stop()

    def close(self, wait: bool = True) -> None:
        """End the threads of a remote storage, if there is one."""
        if self.remote is not None:
            self.remote.close(wait)

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the index by data set: changes with any sample."""
        return {one.manifest.name: str(one.manifest.index["sha256"]) for one in self.sets}

    def describe(self) -> dict[str, Any]:
        """Facts for a run's records."""
        return {
            "datasets": {
                one.manifest.name: {
                    "folder": one.place,
                    "weight": one.weight,
                    "index_sha256": one.manifest.index["sha256"],
                    "manifest_sha256": hashlib.sha256(one.manifest.to_json()).hexdigest(),
                    **one.manifest.counts,
                }
                for one in self.sets
            },
            "missing": list(self.missing),
            "grid": self.grid,
            "crop_size": self.crop_size,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataSets(Chosen[DataSet]):
    """The data sets of a run that draws from their indexes; `tables` are for the plan."""

    tables: PairTables

    def close(self, wait: bool = True) -> None:
        """Close files, unless somebody may still read them, and a remote storage."""
        for one in self.sets if wait else ():
            if isinstance(one.storage, LocalStorage | MemoryStorage):
                one.storage.close()
        Chosen.close(self, wait)


def choose(
    config: PairConfig, path: Path | str, found: Mapping[str, Path | str]
) -> tuple[dict[str, float], list[str], list[str]]:
    """Weights of the data sets to use, those missing, and warnings.

    Parameters
    ----------
    config : names and weights
    path : the data set, or a parent of some
    found : their places by name

    Raises
    ------
    DataError : if one is missing that must be there, or none is left
    """
    warnings: list[str] = []
    if not (config.datasets or config.require_all) and list(found.values()) == [path]:
        return dict.fromkeys(found, 1.0), [], []
    names = config.datasets or tuple(config.weights)
    missing = [name for name in names if name not in found]
    use = {name: config.weights.get(name, 0.0) for name in names if name in found}
    unweighted = [name for name, weight in use.items() if weight == 0]
    if unweighted:
        raise DataError(
            f"data.datasets names {', '.join(unweighted)} without a weight; add "
            + ", ".join(f"--set data.weights.{name}=1.0" for name in unweighted)
        )
    if missing and (config.datasets or config.require_all):
        places = {Path(place) for place in found.values()}
        others = [one.name for one in dataset_folders(Path(path)) if one not in places]
        there = sorted({*found, *others})
        guess = next(filter(None, (hint(name, there) for name in missing)), "")
        raise DataError(
            f"no packed data set {', '.join(missing)} in {path}; there are "
            f"{', '.join(there) or 'none'}{guess or f'; {HOW_TO_GET_DATA}'}"
        )
    if not use:
        raise DataError(
            f"{path} has {', '.join(found)}, but none of them has a weight in data.weights; add "
            f"--set data.weights.{next(iter(found))}=1.0"
        )
    if missing:
        total = sum(use.values())
        used = ", ".join(f"{name} {weight / total:.3g}" for name, weight in use.items())
        warnings.append(
            f"no {', '.join(missing)} in {path}: going on with {used} "
            "(data.require_all=true makes this an error)"
        )
    ignored = [name for name in found if name not in use and not config.datasets]
    if ignored:
        warnings.append(
            f"{path} also has {', '.join(ignored)}, not used: without a weight in data.weights"
        )
    return use, missing, warnings


def may_hold(folder: Path, names: tuple[str, ...]) -> bool:
    """Tell whether a folder's data set may be one of these; a damaged one goes by its folder."""
    try:
        return Manifest.read(folder).name in names
    except FormatError:
        return folder.name in names


def leaving(config: PairConfig, crop_size: int) -> list[str]:
    """Warn about augmentations that reach outside the stored crops."""
    recipe, worst = config.recipe, 0.0
    for augment, px in (
        (recipe.image_z, config.template_px),
        (recipe.video_z, config.template_px),
        (recipe.image_x, config.search_px),
        (recipe.video_x, config.search_px),
    ):
        turn = math.radians(min(45.0, augment.rotation.delta)) if augment.rotation.p else 0.0
        reach = px / 2 * math.exp(augment.scale) + augment.shift
        worst = max(worst, reach * (math.cos(turn) + math.sin(turn)))
    if worst <= crop_size / 2:
        return []
    return [
        f"data.recipe reaches up to {worst:.0f} px from the centre, the stored crops only "
        f"{crop_size / 2:.0f}: outside, their edge pixels are repeated; pack larger crops (--size) "
        "or lower scale and shift"
    ]


def common_form(
    config: PairConfig, path: Path | str, manifests: Sequence[Manifest]
) -> tuple[Grid, int]:
    """Grid and side of the stored crops of all data sets.

    Raises
    ------
    MismatchError : if they differ, or are smaller than what is cut from them
    """
    forms = {(one.grid, one.crop_size) for one in manifests}
    if len(forms) > 1:
        listed = ", ".join(f"{one.name}: {one.grid}, {one.crop_size} px" for one in manifests)
        raise MismatchError(f"{path}: crops of different grid or size ({listed}); pack them alike")
    grid, crop_size = forms.pop()
    if max(config.template_px, config.search_px) > crop_size:
        raise MismatchError(
            f"{path}: stored crops have {crop_size} px, data.search_px is {config.search_px} and "
            f"data.template_px {config.template_px}; pack larger crops (--size) or ask for smaller"
        )
    return grid, crop_size


def open_sets(config: PairConfig) -> DataSets:
    """Open the data sets that a configuration names.

    Raises
    ------
    DataError : if none, or not all that were named, are there
    MismatchError : if their crops differ in size or grid
    FormatError : if one is damaged
    StorageError : if it is a URL whose store gives no answer
    """
    given = config.path or default_shards()
    if not is_url(given):
        return _open(config, Path(given), _local_manifests(config, Path(given)), None)
    remote = Remote(given, config.remote)
    try:
        names = config.datasets or tuple(config.weights)
        manifests = remote.manifests(names, only=bool(config.datasets))
        return _open(config, remote.origin.url, manifests, remote)
    except BaseException:
        remote.close()
        raise


def _local_manifests(config: PairConfig, path: Path) -> dict[Path, Manifest]:
    folders = dataset_folders(path)
    if config.datasets and len(folders) > 1:  # one that is not wanted may well be damaged
        folders = [folder for folder in folders if may_hold(folder, config.datasets)]
    return {folder: Manifest.read(folder) for folder in folders}


def _open(
    config: PairConfig,
    path: Path | str,
    manifests: Mapping[Any, Manifest],
    remote: Remote | None,
) -> DataSets:
    """Open data sets of a path or URL, whose manifests are given by their folders or URLs."""
    found = {manifest.name: folder for folder, manifest in manifests.items()}
    if len(found) != len(manifests):
        names = ", ".join(sorted(manifest.name for manifest in manifests.values()))
        raise DataError(f"{path}: two folders hold the same data set: {names}")
    if not found and not dataset_folders(Path(path)):
        there = isinstance(path, str) or path.is_dir()
        state = "has no packed data set" if there else "does not exist"
        raise DataError(f"{path} {state} (no manifest.json): {HOW_TO_GET_DATA}")
    use, missing, warnings = choose(config, path, found)
    total = sum(use.values())
    chosen = {found[name]: manifests[found[name]] for name in sorted(use)}
    if remote is not None and config.storage == "zip-memory":
        raise ConfigError(
            f"data.storage=zip-memory reads files of this machine into memory, and {path} is a "
            "URL; give --set data.storage=auto, which keeps what it reads in data.remote.cache_dir"
        )
    check_storage(config.storage, chosen)
    sets = []
    storage: Storage
    for folder, manifest in chosen.items():
        if remote is not None:
            index, storage = remote.open(folder, manifest)
        else:
            index = Index.checked(folder, manifest)
            storage = open_storage(config, folder, index)
        sets.append(
            DataSet(
                folder=folder,
                manifest=manifest,
                index=index,
                storage=storage,
                weight=use[manifest.name] / total,
            )
        )
    grid, crop_size = common_form(config, path, [one.manifest for one in sets])
    tables = PairTables([one.index for one in sets], [one.weight for one in sets], config.sampler)
    return DataSets(
        sets=tuple(sets),
        tables=tables,
        missing=tuple(missing),
        warnings=(*warnings, *leaving(config, crop_size)),
        grid=grid,
        crop_size=crop_size,
        remote=remote,
    )
