"""What the baselines read: the same JPEG bytes as the shards, as zip and pickle or as files.

Also the index files that DALI's own reader wants beside the shards.

Made once for a data set, in a folder named by the SHA-256 of its index, so that files of another
packing are never taken for these.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peer_forms import PEER_FORMS, ensure_form
from shards.dali_index import export_dali
from shards.errors import DataError, StorageError
from shards.format import Manifest, dataset_folders
from shards.index import Index
from shards.legacy import export_legacy, legacy_names
from shards.storage import LocalStorage, storage_error

__all__ = ["FORMS", "crop_path", "dali_folder", "ensure", "files_folder", "legacy_folder", "warm"]

FORMS = ("legacy", "files", "dali")


def _home(derived: Path, manifest: Manifest) -> Path:
    return derived / f"{manifest.name}-{str(manifest.index['sha256'])[:16]}"


def legacy_folder(derived: Path, manifest: Manifest) -> Path:
    """Folder of a data set's zip and pickle."""
    return _home(derived, manifest) / "legacy"


def files_folder(derived: Path, manifest: Manifest) -> Path:
    """Folder of a data set's extracted crops."""
    return _home(derived, manifest) / "files"


def dali_folder(derived: Path, manifest: Manifest) -> Path:
    """Folder of the index files of a data set's shards for DALI's own reader."""
    return _home(derived, manifest) / "dali"


def crop_path(index: Index, row: int) -> str:
    """Path of a row's crop below `files_folder`."""
    return f"{index.key(row)}.jpg"


def ensure(data: Path, derived: Path, forms: tuple[str, ...] = FORMS) -> list[Path]:
    """Make those forms of all data sets at `data` that are not there yet.

    Returns
    -------
    every file that contestants read: shards, their indexes and DALI's, zips; of extracted crops the
    folder

    Raises
    ------
    DataError : if there is no packed data set, or no form of a name
    StorageError, BadSample : if something cannot be read or written
    """
    unknown = sorted(set(forms) - {*FORMS, *PEER_FORMS})
    if unknown:
        raise DataError(
            f"no form of the data is named {', '.join(unknown)}; "
            f"there are {', '.join((*FORMS, *PEER_FORMS))}"
        )
    folders = dataset_folders(data)
    if not folders:
        raise DataError(
            f"{data}: no packed data set; name one with --data, or make one with "
            "'python -m benchmarks data'"
        )
    read: list[Path] = []
    for folder in folders:
        manifest = Manifest.read(folder)
        read += [folder / shard.name for shard in manifest.shards]
        read.append(folder / str(manifest.index["name"]))
        if "legacy" in forms:
            target = legacy_folder(derived, manifest)
            zip_name, pickle_name = legacy_names(manifest.name)
            if not (target / pickle_name).is_file():
                export_legacy(folder, target)
            read += [target / zip_name, target / pickle_name]
        if "files" in forms:
            target = files_folder(derived, manifest)
            if not target.is_dir():
                _extract(folder, manifest, target)
            read.append(target)
        if "dali" in forms:
            target = dali_folder(derived, manifest)
            if not target.is_dir():
                with _complete(target) as partial:
                    export_dali(folder, partial)
            read += sorted(target.iterdir())
    for name in sorted(set(forms) & set(PEER_FORMS)):
        read += ensure_form(name, data, derived)
    return read


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """A folder to write to, which has its name only when it is complete."""
    partial = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(folder: Path, manifest: Manifest, target: Path) -> None:
    """Write every crop as a file."""
    index = Index.checked(folder, manifest)
    storage = LocalStorage(folder)
    with _complete(target) as partial:
        for row in range(len(index)):
            at = index.range(row)
            path = partial / crop_path(index, row)
            path.parent.mkdir(parents=True, exist_ok=True)
            (data,) = storage.read_many([at])
            path.write_bytes(data)


def warm(paths: list[Path], limit_bytes: int) -> int | None:
    """Read files once, so that every contestant finds them in the page cache.

    Parameters
    ----------
    paths : files, and folders of files
    limit_bytes : more than this is not read

    Returns
    -------
    bytes read, or None if there were more than the limit and nothing was read
    """
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.jpg"))]
    try:
        total = sum(file.stat().st_size for file in files)
        if total > limit_bytes:
            return None
        for file in files:
            with file.open("rb", buffering=0) as handle:
                while handle.read(1 << 20):
                    pass
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return total
