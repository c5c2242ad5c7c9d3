"""Facts about the machine and the software of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["WAIT_POLICY", "describe", "machine_class", "usable_cores"]

# Of contestants, where it is not set: threads of a torch operation that wait for each other give
# their core away instead of spinning. Every core has other work, and what spins is counted.
WAIT_POLICY = {"OMP_WAIT_POLICY": "PASSIVE"}
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "nvidia-dali-cuda120",
    "nvidia-nvimgcodec-cu12",
    "pillow",
    "pyarrow",
    "webdataset",
    "grain",
    "litdata",
    "spdl-core",
)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _from_proc(file: str, key: str) -> str | None:
    try:
        lines = Path("/proc", file).read_text().splitlines()
    except OSError:
        return None
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(found, None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that the code comes from, and whether files differ from it."""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        state = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None, None
    if head.returncode or state.returncode:
        return None, None
    return head.stdout.strip(), bool(state.stdout.strip())


def _gpus() -> list[str]:
    """Names of NVIDIA GPUs as the driver lists them; needs no CUDA context."""
    names = []
    for facts in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = facts.read_text().splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return names


def machine_class() -> dict[str, Any]:
    """What decides how much faster one way of working is than another: cores, vector units."""
    flags = (_from_proc("cpuinfo", "flags") or "").split()
    vectors = {"avx512bw": "AVX-512", "avx2": "AVX2"}
    simd = next((name for flag, name in vectors.items() if flag in flags), "no AVX2")
    return {
        "architecture": platform.machine(),
        "cores_usable": usable_cores(),
        "simd": simd,
    }


def describe() -> dict[str, Any]:
    """Machine, system, versions and commit."""
    commit, changed = _commit(Path(__file__).parent)
    return {
        "cpu": _from_proc("cpuinfo", "model name") or platform.machine(),
        "cores_usable": usable_cores(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_1min_at_start": os.getloadavg()[0],
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "omp_wait_policy_of_contestants": {**WAIT_POLICY, **os.environ}["OMP_WAIT_POLICY"],
        "commit": commit,
        "uncommitted_changes": changed,
    }
