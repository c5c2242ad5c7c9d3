"""The shards' JPEG bytes in the peers' own formats, each written once by the peer's own library.

All pictures of all data sets at a place are one form, in the order of data sets and rows. It is
written in the peer's environment by the function ``write(pictures, folder)`` of its contestant's
module, and lies in a folder named by the SHA-256 of the indexes. How long that took and what it
takes on disk is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from benchmarks.child_process import child_env, last_words
from benchmarks.contestants import CONTESTANTS, load
from benchmarks.peers import interpreter
from loaders.work import Crops
from shards.atomic import replace_text
from shards.errors import KNOWN_ERRORS, DataError, one_line
from shards.format import Manifest, dataset_folders
from shards.index import Index
from shards.storage import LocalStorage, storage_error

__all__ = ["PEER_FORMS", "Pictures", "Rows", "conversions", "ensure_form", "form_folder"]

PEER_FORMS = tuple(
    form for entry in CONTESTANTS if entry.group == "peer" for form in entry.needs
)  # each has the name of its contestant
_FACTS = "conversion.json"
_LIMIT_S = 7200  # that a peer may take to write a form
_ABSENT = 3  # exit status of a writer whose package is not installed


class Pictures:
    """Encoded pictures of all data sets at a place, by one number; goes to other processes.

    Parameters
    ----------
    data : packed data set, or parent of such
    """

    def __init__(self, data: Path) -> None:
        self._folders = dataset_folders(data)
        self._open()

    def _open(self) -> None:
        self._manifests = [Manifest.read(folder) for folder in self._folders]
        pairs = list(zip(self._folders, self._manifests, strict=True))
        self._indexes = [Index.checked(folder, manifest) for folder, manifest in pairs]
        self._storages = [LocalStorage(folder) for folder in self._folders]
        self._base = np.cumsum([0, *(len(index) for index in self._indexes)])

    def __getstate__(self) -> list[Path]:
        return self._folders

    def __setstate__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._open()

    @property
    def side(self) -> int:
        """Side of every picture."""
        return self._manifests[0].crop_size

    def __len__(self) -> int:
        return int(self._base[-1])

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        source = int(np.searchsorted(self._base, number, side="right")) - 1
        at = self._indexes[source].range(int(number - self._base[source]))
        (data,) = self._storages[source].read_many([at])
        return bytes(data)


class Rows:
    """Numbers of the pictures of crops in a form.

    Parameters
    ----------
    data : packed data set, or parent of such
    """

    def __init__(self, data: Path) -> None:
        manifests = [Manifest.read(folder) for folder in dataset_folders(data)]
        counts = [int(manifest.counts["frames"]) for manifest in manifests]
        first = np.cumsum([0, *counts]).tolist()
        self._base = {one.name: first[i] for i, one in enumerate(manifests)}

    def number(self, crops: Crops, i: int) -> int:
        """Number of the picture of crop i."""
        source = cast("Any", crops.sources[i])
        return int(self._base[source.manifest.name] + crops.rows[i])

    def reader(self, read: Callable[[int], Any]) -> Callable[[Crops, int], Any]:
        """What reads the picture of crop i, from what reads a number."""
        return lambda crops, i: read(self.number(crops, i))

    def numbers(self, crops: Crops) -> npt.NDArray[np.int64]:
        """Numbers (B,) of all pictures."""
        return np.array([self.number(crops, i) for i in range(len(crops))], np.int64)


class Writer(Protocol):
    """What the module of a contestant with a form of its own offers."""

    def write(self, pictures: Pictures, folder: Path) -> None:
        """Write all pictures, in order, into an empty folder."""


def _home(data: Path, derived: Path, name: str) -> Path:
    manifests = [Manifest.read(folder) for folder in dataset_folders(data)]
    digest = hashlib.sha256()
    for one in manifests:
        digest.update(f"{one.name} {one.index['sha256']}\n".encode())
    names = "+".join(one.name for one in manifests)
    return derived / f"{names}-{digest.hexdigest()[:16]}" / name


def form_folder(data: str, derived: Path, name: str) -> Path:
    """Folder of a form's files."""
    return _home(Path(data), derived, name) / "data"


def ensure_form(name: str, data: Path, derived: Path) -> list[Path]:
    """Write a form if it is not there yet.

    Parameters
    ----------
    name : of the form and its contestant
    data : packed data set, or parent of such
    derived : folder of all forms

    Returns
    -------
    its files; none if the peer is not installed, which its contestant then says of itself

    Raises
    ------
    DataError : if the peer's library cannot write it
    """
    home = _home(data, derived, name)
    if not (home / _FACTS).is_file():
        (entry,) = (one for one in CONTESTANTS if one.name == name)
        python = interpreter(entry.env)
        if python is None or not _written(python, name, data, home):
            return []
    return [path for path in sorted((home / "data").rglob("*")) if path.is_file()]


def _written(python: Path, name: str, data: Path, home: Path) -> bool:
    """Have a form written under a temporary name; False if the peer is not installed."""
    partial = home.with_name(f"{home.name}.part-{os.getpid()}")
    command = [str(python), "-m", "benchmarks.peer_forms", name, str(data), str(partial)]
    try:
        (partial / "data").mkdir(parents=True)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
            env=child_env(),
        )
        if done.returncode == _ABSENT:
            return False
        if done.returncode:
            told = last_words(done.stderr) or "it ended without a word"
            raise DataError(f"{name} cannot write its form of {data}: {told}")
        shutil.rmtree(home, ignore_errors=True)
        partial.replace(home)
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{name} has not written its form of {data} within {_LIMIT_S / 3600:g} h; leave it out "
            "with --only, or name less data"
        ) from error
    except OSError as error:
        raise storage_error(error, home) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def conversions(
    forms: Iterable[str], data: Path, derived: Path
) -> dict[str, Mapping[str, float | int]]:
    """What making each form took: ``seconds``, ``pictures``, ``bytes`` and ``files`` on disk."""
    found = {}
    for name in forms:
        file = _home(data, derived, name) / _FACTS
        if name in PEER_FORMS and file.is_file():
            found[name] = json.loads(file.read_text())
    return found


def main(name: str, data: Path, home: Path) -> int:
    """Write a form in this process; the exit status."""
    try:
        writer = cast("Writer", load(name))
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return _ABSENT
    try:
        pictures = Pictures(data)
        started = time.perf_counter()
        writer.write(pictures, home / "data")
        seconds = time.perf_counter() - started
    except KNOWN_ERRORS as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    sizes = [path.stat().st_size for path in (home / "data").rglob("*") if path.is_file()]
    facts = {
        "seconds": seconds,
        "pictures": len(pictures),
        "files": len(sizes),
        "bytes": sum(sizes),
    }
    replace_text(home / _FACTS, json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
