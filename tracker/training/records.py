"""Records of a run: its resolved configuration, versions, machine, data, and every start."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from shards.atomic import replace_text
from tracker.training.world import World

__all__ = ["commit", "environment", "variables", "write_records"]

PACKAGES = (
    "siamstream", "torch", "torchvision", "numpy", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu12",
    "opencv-python-headless", "simplejpeg", "pillow", "pyarrow", "webdataset", "google-crc32c",
    "pydantic", "safetensors", "tensorboard", "triton",
)  # fmt: skip
# Variables that change results or speed, by how their names begin.
VARIABLES = (
    "CUBLAS_", "CUDA_", "CUDNN_", "DALI_", "GLOO_", "KMP_", "MKL_", "NCCL_", "NVIDIA_TF32_",
    "OMP_", "OPENBLAS_", "PYTORCH_", "SIAMSTREAM_", "TORCH_", "TORCHINDUCTOR_", "TRITON_",
)  # fmt: skip
HIDDEN = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH|_KEY|_COMM_ID$")
GIT_TIMEOUT_S = 20
# What every start keeps, and is compared in with the one before.
COMPARED = ("versions", "commit", "uncommitted_changes", "device", "world_size")


def environment(world: World) -> dict[str, Any]:
    """Commit, versions, machine and processes of this run; no names of hosts or users."""
    cuda = world.device.type == "cuda"
    head, changed = commit(Path(__file__).parent)
    return {
        "commit": head,
        "uncommitted_changes": changed,
        "versions": _versions(cuda),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if cuda else "cpu",
        "gpus": _gpus() if cuda else [],
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "torch_threads": torch.get_num_threads(),
        "world_size": world.size,
        "local_world_size": world.local_size,
        "variables": variables(os.environ),
    }


def commit(folder: Path) -> tuple[str | None, bool | None]:
    """Git commit of the checkout that a folder of code belongs to.

    Parameters
    ----------
    folder : of the code

    Returns
    -------
    commit : 40 digits; None if git does not know this code, or is not there
    changed : whether files that git knows differ from the commit; None as above
    """
    # Hooks of git set variables that would lead to another repository.
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=own, timeout=GIT_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return None
        return None if done.returncode else done.stdout.strip()

    # An installed copy may lie in a checkout of something else, which does not know its files.
    if not git("ls-files", "."):
        return None, None
    head = git("rev-parse", "HEAD")
    state = git("status", "--porcelain", "--untracked-files=no")
    return (None, None) if head is None or state is None else (head, bool(state))


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that change results or speed; nothing that looks like a secret or an address."""
    return {
        name: _without_user(environment[name])
        for name in sorted(environment)
        if name.startswith(VARIABLES) and not HIDDEN.search(name)
    }


def _without_user(text: str) -> str:
    """Value of a variable; of a URL without user name, password and query."""
    if "://" not in text:
        return text
    return re.sub(r"(?<=://)[^/@]*@", "", text).partition("?")[0]


def _versions(cuda: bool) -> dict[str, str | None]:
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    if cuda:
        cudnn: Any = torch.backends.cudnn
        nccl: Any = torch.cuda.nccl
        versions["cudnn"] = str(cudnn.version())
        versions["nccl"] = ".".join(map(str, nccl.version()))
        versions["driver"] = _first_line(Path("/sys/module/nvidia/version"))
    return versions


def _gpus() -> list[dict[str, Any]]:
    """Devices that this process may use."""
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [{"name": one.name, "memory_bytes": one.total_memory} for one in found]


def _cpu() -> str:
    """Model of the CPU; where the kernel does not say, the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return None


def write_records(folder: Path, config: str, record: Mapping[str, Any], start: int) -> list[str]:
    """Write what a run depends on: its resolved config.yaml, and run.json.

    Parameters
    ----------
    folder : of the run; made if need be
    config : dumped configuration
    record : facts of this start: ``data`` with the names ``missing``, first weights, those of
        `environment`
    start : steps done before; run.json lists every start of the run

    Returns
    -------
    Lines that tell what is not as it was at the last start: versions, commit, devices, processes
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = record["data"]["missing"]
    absent = f"# not on disk: {', '.join(missing)}\n" if missing else ""
    replace_text(folder / "config.yaml", f"# Resolved configuration of this run.\n{absent}{config}")
    path = folder / "run.json"
    starts = _starts(path) if start else []  # a start from 0 is another run
    command = shlex.join(sys.orig_argv)
    facts = {"command": command, **record}
    begins = {"step": start, "command": command, **{key: record.get(key) for key in COMPARED}}
    replace_text(
        path, json.dumps({**facts, "starts": [*starts, begins]}, indent=1, default=str) + "\n"
    )
    return _changes(starts[-1], begins) if starts else []


def _starts(path: Path) -> list[dict[str, Any]]:
    """Earlier starts of a run.json; one that is damaged is kept under another name."""
    if not path.is_file():
        return []
    with suppress(ValueError, KeyError, TypeError):
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        if isinstance(starts, list) and all(isinstance(one, dict) for one in starts):
            return starts
    shutil.copy(path, path.with_name("run.json.damaged"))
    return []


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two starts, in a line; nothing that one of them did not record."""
    then, here = _flat(before), _flat(now)
    found = [
        f"{key} {_shown(then[key])} -> {_shown(here[key])}"
        for key in then
        if key in here and then[key] != here[key]
    ]
    return [f"Since the last start: {', '.join(found)}"] if found else []


def _flat(start: Mapping[str, Any]) -> dict[str, Any]:
    found = {key.replace("_", " "): start[key] for key in COMPARED[1:] if key in start}
    versions = start.get("versions")
    return {**(versions if isinstance(versions, dict) else {}), **found}


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:10] if re.fullmatch(r"[0-9a-f]{40}", text) else text
