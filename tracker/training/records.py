"""Records of a run: its resolved configuration, versions, machine, data, and every start."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from shards.atomic import replace_text
from tracker.training.world import World

__all__ = ["environment", "write_records"]


def environment(world: World) -> dict[str, Any]:
    """Versions, machine and processes of this run."""
    packages = ("siamstream", "torch", "numpy", "nvidia-dali-cuda120", "opencv-python-headless")
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    cuda = world.device.type == "cuda"
    return {
        "versions": versions,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if cuda else "cpu",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "world_size": world.size,
    }


def write_records(folder: Path, config: str, record: Mapping[str, Any], start: int) -> None:
    """Write what a run depends on: its resolved config.yaml, and run.json.

    Parameters
    ----------
    folder : of the run; made if need be
    config : dumped configuration
    record : facts of this start: ``data`` with the names ``missing``, first weights, versions ...
    start : steps done before; run.json lists every start of the run
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = record["data"]["missing"]
    absent = f"# not on disk: {', '.join(missing)}\n" if missing else ""
    replace_text(folder / "config.yaml", f"# Resolved configuration of this run.\n{absent}{config}")
    path = folder / "run.json"
    starts: Sequence[Any] = []
    if start and path.is_file():
        try:
            starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        except (ValueError, KeyError, TypeError):
            shutil.copy(path, folder / "run.json.damaged")
    command = shlex.join(sys.orig_argv)
    begins = {"step": start, "command": command, "world_size": record["world_size"]}
    if change := record.get("data_change"):
        begins["data_change"] = list(change)
    facts = {"command": command, **record, "starts": [*starts, begins]}
    replace_text(path, json.dumps(facts, indent=1, default=str) + "\n")
