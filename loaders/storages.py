"""What `data.storage` means: which form a data set must have, and who returns its bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from loaders.config import PairConfig, StorageName
from loaders.threads import Threads
from shards.errors import MismatchError, StorageError
from shards.format import Manifest
from shards.free_memory import available_bytes
from shards.index import Index
from shards.storage import LocalStorage, MemoryStorage, Storage

__all__ = ["check_storage", "open_storage"]

# What the setting asks for, and the form of the data set that it needs; others take any.
_NEEDS: dict[StorageName, str] = {"shards": "tar", "zip": "zip", "files": "folder"}
_FORMS = {
    "tar": (
        "tar shards",
        "pack one with 'python -m packer', or copy an old zip with 'python -m packer legacy --zip "
        "FILE --ann FILE'",
    ),
    "zip": (
        "a zip of crops",
        "index one with 'python -m shards index --from-zip FILE --ann FILE'; 'python -m shards "
        "export DIR --format legacy --out DIR' makes one of tar shards",
    ),
    "folder": (
        "a folder of crops",
        "index one with 'python -m shards index --from-folder DIR --ann FILE'",
    ),
}


def check_storage(name: StorageName, manifests: Mapping[Path, Manifest]) -> None:
    """Refuse what cannot work, before anything is read.

    Parameters
    ----------
    name : ``data.storage``
    manifests : of the data sets in use, by folder

    Raises
    ------
    MismatchError : if a data set has another form
    StorageError : if they do not fit into memory, and are to be read into it
    """
    for folder, manifest in manifests.items():
        _check_form(name, folder, manifest)
    if name == "zip-memory":
        _check_memory(manifests)


def _check_form(name: StorageName, folder: Path, manifest: Manifest) -> None:
    """Refuse a data set of another form than `data.storage` needs."""
    needed = _NEEDS.get(name)
    form = str(manifest.options.get("in_place", "tar"))
    if needed in (None, form):
        return
    (wanted, how), (there, _) = _FORMS[needed], _FORMS[form]
    raise MismatchError(
        f"{folder} holds {there}, and data.storage={name} reads {wanted}; give --set "
        f"data.storage=auto, which reads any form, or {how}"
    )


def _check_memory(manifests: Mapping[Path, Manifest]) -> None:
    """Refuse to read more into memory than there is; processes of a machine load at once.

    The first process of a machine counts them all. The others count themselves alone, for what is
    free when they look depends on how much those beside them have read by then.
    """
    needed = sum(shard.bytes for one in manifests.values() for shard in one.shards)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if first else 1  # set by torchrun
    free = available_bytes()
    if needed * processes > free:
        each = ", ".join(
            f"{one.name} {sum(shard.bytes for shard in one.shards) / 1e9:.3f} GB"
            for one in manifests.values()
        )
        raise StorageError(
            f"data.storage=zip-memory needs {needed * processes / 1e9:.3f} GB of memory ({each}; "
            f"{processes} process(es)), {free / 1e9:.3f} GB are available; give --set "
            "data.storage=auto, which reads from disk as fast once the page cache is warm"
        )


def open_storage(config: PairConfig, folder: Path, index: Index) -> Storage:
    """Open what returns the bytes of one data set.

    Raises
    ------
    StorageError : if it is to be read into memory and cannot, or nothing comes for ``timeout_s``
    """
    if config.storage != "zip-memory":
        return LocalStorage(folder)
    heard = time.monotonic()

    def hear() -> None:
        nonlocal heard
        heard = time.monotonic()

    reader = Threads(1, "preload")
    loading = reader.submit(MemoryStorage, folder, index.files(), hear)
    try:
        while True:
            left_s = heard + config.timeout_s - time.monotonic()
            try:
                return loading.result(max(0.0, left_s))
            except FutureTimeout:
                if heard + config.timeout_s <= time.monotonic():
                    raise StorageError(
                        f"{folder}: nothing came for data.timeout_s={config.timeout_s:g} s while "
                        "its files were read into memory; the storage stalls"
                    ) from None
    finally:
        reader.stop(0.0)
