"""The output folder or bucket: one data set with one set of options, resumable.

``plan.json`` is written first and stays; parts and the lock are in a folder that is removed after
the manifest, the very last file, is there.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from shards.errors import FormatError, MismatchError
from shards.finish import LOCK_NAME, finished, tidy
from shards.format import MANIFEST_NAME
from shards.plan import PLAN_NAME, Plan
from shards.sink import Sink, sink_of
from shards.writer import PARTS_FOLDER

__all__ = ["PLAN_NAME", "claim", "finished", "tidy", "versions"]

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
def claim(where: Path | Sink, plan: Plan, *, together: bool = False) -> Iterator[Plan]:
    """Hold an output place for this run: make it, or check that it is of the same run.

    A lock keeps other packers of this machine out (and those of others, where the file system
    passes locks on). With `together`, and in a bucket, there may be others of the same plan at
    once: whoever comes first writes the plan, all write the same bytes.

    Parameters
    ----------
    where : folder or bucket
    plan : data set, options and input of the run
    together : share the place with other jobs of the same plan

    Returns
    -------
    the plan as it was first written there

    Raises
    ------
    MismatchError : if it holds something else; says what, and what to do
    StorageError : if another packer holds it, or it cannot be written
    """
    sink = sink_of(where)
    found = _compare(sink, plan)
    parts = sink.child(PARTS_FOLDER)
    if sink.read(MANIFEST_NAME) is not None and not parts.exists():
        yield found or plan  # complete and tidy: nothing will be written; it may be read-only
        return
    with parts.hold(LOCK_NAME, shared=together) as alone:
        found = _compare(sink, plan)  # another packer may have begun here in between
        sink.clean()
        parts.clean()
        if found is None:
            if alone or PLAN_NAME in sink.sizes():
                sink.write(PLAN_NAME, plan.to_json())
            elif not sink.write_new(PLAN_NAME, plan.to_json()):
                found = _compare(sink, plan)
        yield found or plan


def _compare(sink: Sink, plan: Plan) -> Plan | None:
    """Refuse a place that is not empty and not of this plan; the plan found there, if it is whole.

    Libraries no longer matter where all is complete.
    """
    place, there = f"{sink}/{PLAN_NAME}", sink.entries()
    data = sink.read(PLAN_NAME) if PLAN_NAME in there else None
    if data is None:
        strange = [name for name in there if name != PARTS_FOLDER]
        if strange:
            raise MismatchError(
                f"{sink} is not empty and was not begun by this packer (it holds {strange[0]} and "
                f"no {PLAN_NAME}); give an empty or new folder with --out"
            )
        return None
    try:
        before = _facts(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(
            f"{place} is damaged ({error}); delete {sink} and pack again, or give another --out"
        ) from error
    now = _facts(json.loads(plan.to_json()))
    if MANIFEST_NAME in there:
        before |= {key: now[key] for key in now if key.startswith("version of ")}
    differs = [key for key in dict.fromkeys((*before, *now)) if before.get(key) != now.get(key)]
    if differs != [_INPUT] and _INPUT in differs:
        differs.remove(_INPUT)  # other options pick other frames
    differences = [f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in differs]
    if differences:
        raise MismatchError(
            f"{sink} was begun with other settings: {'; '.join(differences)}. Give another --out, "
            "use the former settings to go on, or delete the folder to pack it anew"
        )
    try:
        return Plan.from_json(data, place)
    except FormatError:
        return None  # of a former release: equal in what matters, and written anew


def _facts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that must agree, by the name that a message uses."""
    return {
        "format": plan["format_version"],
        "data set": plan["name"],
        **{f"--{key.replace('_', '-')}": value for key, value in plan["options"].items()},
        _INPUT: plan["input"][:16],
        **{f"version of {key}": value for key, value in plan["versions"].items()},
    }
