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

from configs import strict
from configs.plain import plain
from shards.atomic import replace_text
from shards.secrets import hidden, without_user
from tracker.training.config import TrainConfig
from tracker.training.world import World

__all__ = ["commit", "dumped", "environment", "header", "variables", "write_records"]

PACKAGES = (
    "siamstream", "torch", "torchvision", "numpy", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu12",
    "opencv-python-headless", "simplejpeg", "pillow", "pyarrow", "webdataset", "triton",
)  # fmt: skip
# Variables that change results or speed, by how their names begin.
VARIABLES = (
    "CUBLAS_", "CUDA_", "CUDNN_", "DALI_", "GLOO_", "KMP_", "MKL_", "NCCL_", "NVIDIA_TF32_",
    "OMP_", "OPENBLAS_", "PYTORCH_", "SIAMSTREAM_", "TORCH_", "TORCHINDUCTOR_", "TRITON_",
)  # fmt: skip
HIDDEN = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH|_KEY|_COMM_ID$")
GIT_TIMEOUT_S = 20
# What is kept of every start.
KEPT = ("versions", "commit", "uncommitted_changes", "device", "world_size")


def environment(world: World) -> dict[str, Any]:
    """Commit, versions, machine and processes of this run; no names of hosts or users."""
    cuda = world.device.type == "cuda"
    # Rank 0 alone writes records, and need not share the disk with all others for that.
    head, changed = commit(Path(__file__).parent) if world.first else (None, None)
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
        name: _shown(environment[name])
        for name in sorted(environment)
        if name.startswith(VARIABLES) and not HIDDEN.search(name)
    }


def _shown(text: str) -> str:
    """Value of a variable; of a URL without user name, password and query."""
    return without_user(text).partition("?")[0] if "://" in text else text


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


def header(model: str, config: TrainConfig, record: Mapping[str, Any]) -> list[str]:
    """Lines that a run begins with: its data, first weights and devices, and their warnings.

    Parameters
    ----------
    model : its name
    config : of the run
    record : as of `write_records`
    """
    data, init = record["data"], record["init"]
    shares = ", ".join(f"{name} {one['weight']:.3g}" for name, one in data["datasets"].items())
    places = f"storage {data['storage']}, backend {data['backend']}, grid {data['grid']}"
    return [
        f"data     {shares}; {places}",
        f"model    {model}; first weights: {init['source']}",
        f"devices  {record['world_size']} x {record['device']}, batch {config.batch_size}, "
        f"precision {config.amp}, torch threads {record['torch_threads']}",
        *(f"Warning: {text}" for text in data["warnings"]),
        *([f"Warning: {init['warning']}"] if init["warning"] else []),
        *(f"Warning: {text}" for text in _without_effect(config)),
    ]


def dumped(config: Any) -> str:
    """YAML text of a run's configuration for its records and checkpoints, without passwords."""
    return strict.dump(hidden(plain(config)))


def _without_effect(config: TrainConfig) -> list[str]:
    """What of the schedule lies beyond the last epoch."""
    found, epochs = [], config.epochs
    steps = config.lr_steps if config.lr_schedule == "steps" else ()
    if steps and min(steps) >= epochs:
        numbers = ", ".join(map(str, steps))
        found.append(
            f"train.lr_steps {numbers} are beyond the {epochs} epochs: the rate does not fall"
        )
    if config.heads_only_epochs >= epochs:
        found.append(
            f"the backbone is not trained: train.heads_only_epochs {config.heads_only_epochs}, "
            f"train.epochs {epochs}"
        )
    return found


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
    Lines that tell if the code is of another commit than at the last start, and what could not be
    written; passwords are not recorded

    Raises
    ------
    OSError : if the disk takes nothing at a first start; a run that goes on does so
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = record["data"]["missing"]
    absent = f"# not on disk: {', '.join(missing)}\n" if missing else ""
    path = folder / "run.json"
    starts, told = _starts(path) if start else ([], [])  # a start from 0 is another run
    command = shlex.join(map(hidden, sys.orig_argv))
    begins = {"step": start, "command": command, **{key: record.get(key) for key in KEPT}}
    if change := record.get("data_change"):
        begins["data_change"] = list(change)
    facts = {"command": command, **hidden(record), "starts": [*starts, begins]}
    texts = {
        folder / "config.yaml": f"# Resolved configuration of this run.\n{absent}{config}",
        path: json.dumps(facts, indent=1, default=str) + "\n",
    }
    for place, text in texts.items():
        try:
            replace_text(place, text)
        except OSError as error:
            if not start:
                raise
            told.append(f"{place} could not be written and is of an earlier start: {_why(error)}")
    return [*told, *(_other_code(starts[-1], begins) if starts else [])]


def _starts(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Earlier starts of a run.json; one that is damaged is kept under another name. Warnings."""
    if not path.is_file():
        return [], []
    try:
        with suppress(ValueError, KeyError, TypeError):
            starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
            if isinstance(starts, list) and all(isinstance(one, dict) for one in starts):
                return starts, []
        shutil.copy(path, path.with_name("run.json.damaged"))
    except OSError as error:
        return [], [f"{path}: its earlier starts are lost: {_why(error)}"]
    return [], []


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _other_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line if the code is not that of the start before, as far as both have recorded it."""
    if "commit" not in before:
        return []
    then, here = _code(before), _code(now)
    return [] if then == here else [f"the code was {then} at the last start, now it is {here}"]


def _code(start: Mapping[str, Any]) -> str:
    if start.get("commit") is None:
        return "of no known commit"
    changed = " with uncommitted changes" if start.get("uncommitted_changes") else ""
    return f"commit {str(start['commit'])[:10]}{changed}"
