"""The output folder: one packer at a time, one data set with one set of options, resumable.

``plan.json`` is written first and stays; parts and the lock are in a folder that is removed after
the manifest, the very last file, is there.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from shards.errors import MismatchError, StorageError
from shards.format import FORMAT_VERSION, MANIFEST_NAME, Manifest
from shards.storage import FolderSink, storage_error
from shards.writer import PARTS_FOLDER

__all__ = ["PLAN_NAME", "claim", "finished", "tidy", "versions"]

PLAN_NAME = "plan.json"
_LOCK = "lock"
_INPUT = "input (SHA-256 of its annotations)"


def versions() -> dict[str, str]:
    """Versions of what decides bytes."""
    try:
        own = importlib.metadata.version("siamstream")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"  # run from a checkout
    return {
        "siamstream": own,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "simplejpeg": importlib.metadata.version("simplejpeg"),
        "pillow": PIL.__version__,
    }


@contextmanager
def claim(out: Path, name: str, options: Mapping[str, Any], fingerprint: str) -> Iterator[None]:
    """Hold an output folder for this run: make it, or check that it is of the same run.

    Parameters
    ----------
    out : folder
    name, options, fingerprint : data set, options and input of the run

    Raises
    ------
    MismatchError : if it holds something else; says what, and what to do
    StorageError : if another packer holds it, or it cannot be written
    """
    plan = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "options": dict(options),
        "input": fingerprint,
        "versions": versions(),
    }
    _compare(out, plan)
    parts = out / PARTS_FOLDER
    if (out / MANIFEST_NAME).is_file() and not parts.exists():
        yield  # complete and tidy: nothing will be written, and it may be on a read-only disk
        return
    try:
        parts.mkdir(parents=True, exist_ok=True)
        lock = os.open(parts / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise storage_error(error, out) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{out}: another packer is at work in this folder; wait for it, "
                "or give another --out"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{out}: this file system gives no locks ({error.strerror}), so two packers could "
                "meet; give an --out on another one"
            ) from error
        _compare(out, plan)  # another packer may have begun here in between
        for folder in (out, parts):
            FolderSink(folder).clean()
        if not (out / PLAN_NAME).is_file():
            FolderSink(out).write(PLAN_NAME, json.dumps(plan, indent=1).encode() + b"\n")
        yield
    finally:
        os.close(lock)


def _compare(out: Path, plan: Mapping[str, Any]) -> None:
    """Refuse a folder that is not empty and not of this plan."""
    if out.exists() and not out.is_dir():
        raise MismatchError(f"{out} is a file; give a folder with --out")
    path = out / PLAN_NAME
    try:
        found = json.loads(path.read_bytes())
        before, now = _facts(found), _facts(plan)
    except FileNotFoundError:
        strange = sorted(
            entry.name
            for entry in (out.iterdir() if out.is_dir() else ())
            if entry.name != PARTS_FOLDER and not entry.name.startswith(".part-")
        )
        if strange:
            raise MismatchError(
                f"{out} is not empty and was not begun by this packer (it holds {strange[0]} and "
                f"no {PLAN_NAME}); give an empty or new folder with --out"
            ) from None
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(
            f"{path} is damaged ({error}); delete {out} and pack again, or give another --out"
        ) from error
    if (out / MANIFEST_NAME).is_file():  # complete; by which libraries no longer matters
        before |= {key: now[key] for key in now if key.startswith("version of ")}
    differs = [key for key in dict.fromkeys((*before, *now)) if before.get(key) != now.get(key)]
    if differs != [_INPUT] and _INPUT in differs:
        differs.remove(_INPUT)  # other options pick other frames
    differences = [f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in differs]
    if differences:
        raise MismatchError(
            f"{out} was begun with other settings: {'; '.join(differences)}. Give another --out, "
            "use the former settings to go on, or delete the folder to pack it anew"
        )


def _facts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that must agree, by the name that a message uses."""
    return {
        "format": plan["format_version"],
        "data set": plan["name"],
        **{f"--{key.replace('_', '-')}": value for key, value in plan["options"].items()},
        _INPUT: plan["input"][:16],
        **{f"version of {key}": value for key, value in plan["versions"].items()},
    }


def finished(out: Path) -> Manifest | None:
    """Manifest of a folder that is complete, or None if packing must go on.

    Raises
    ------
    StorageError : if it was complete, but shards are gone or have another size since
    """
    if not (out / MANIFEST_NAME).is_file():
        return None
    manifest = Manifest.read(out)
    sizes = {shard.name: shard.bytes for shard in manifest.shards}
    sizes[manifest.index["name"]] = manifest.index["bytes"]
    for name, size in sizes.items():
        path = out / name
        on_disk = path.stat().st_size if path.is_file() else None
        if on_disk != size:
            found = "missing" if on_disk is None else f"{on_disk} bytes"
            raise StorageError(
                f"{path}: {found}, the manifest says {size} bytes; restore it, or delete "
                f"{out / MANIFEST_NAME} and run the same command again to pack the folder anew"
            )
    return manifest


def tidy(out: Path) -> None:
    """Remove the parts of a complete folder."""
    try:
        if (out / PARTS_FOLDER).exists():
            shutil.rmtree(out / PARTS_FOLDER)
    except OSError as error:
        raise storage_error(error, out / PARTS_FOLDER) from error
