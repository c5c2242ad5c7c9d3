"""What ``python -m benchmarks gpu`` needs, looked for before anything is imported.

A machine with a GPU is often lent, bare and without a network: what is absent must be named at
once, and all of it. So this module imports the standard library alone, and finds packages without
importing them.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

__all__ = ["NEEDS", "Found", "Need", "is_complete", "lines", "look", "refuse_incomplete"]

DRIVER = Path("/proc/driver/nvidia/version")


class Need(NamedTuple):
    """A package that some part imports.

    Attributes
    ----------
    module : imported
    package : that has it, as installers name it
    least : oldest version, its first numbers
    parts : that need it
    """

    module: str
    package: str
    least: tuple[int, ...] = ()
    parts: str = "all"


NEEDS = (
    Need("torch", "torch", (2, 11)),
    Need("torchvision", "torchvision", (0, 26), "train"),
    Need("nvidia.dali", "nvidia-dali-cuda120", (2, 0)),
    Need("nvidia.nvimgcodec", "nvidia-nvimgcodec-cu12", (0, 9)),
    Need("nvidia.nvjpeg", "nvidia-nvjpeg-cu12", (), "all on a GPU: nvImageCodec loads it"),
    Need("astunparse", "astunparse", (), "all: DALI imports it"),
    Need("gast", "gast", (), "all: DALI imports it"),
    Need("optree", "optree", (), "all: DALI imports it"),
    Need("six", "six", (), "all: DALI imports it"),
    Need("packaging", "packaging", (), "all: DALI imports it"),
    Need("numpy", "numpy", (2, 0)),
    Need("cv2", "opencv-python-headless", (5, 0)),
    Need("simplejpeg", "simplejpeg", (1, 8)),
    Need("PIL", "pillow", (10, 3)),
    Need("pyarrow", "pyarrow", (17,)),
    Need("pydantic", "pydantic", (2, 8)),
    Need("pydantic_core", "pydantic-core"),
    Need("annotated_types", "annotated-types", (0, 6)),
    Need("typing_inspection", "typing-inspection", (), "all: pydantic imports it"),
    Need("google_crc32c", "google-crc32c", (1, 5)),
    Need("yaml", "PyYAML", (6, 0)),
    Need("click", "click", (8, 1)),
    Need("rich", "rich", (13, 7)),
    Need("jinja2", "jinja2", (3, 1), "the command itself"),
    Need("markupsafe", "markupsafe", (), "the command itself"),
    Need("matplotlib", "matplotlib", (3, 8), "the command itself"),
    Need("safetensors", "safetensors", (0, 4), "train"),
)


class Found(NamedTuple):
    """A need, the version that is there, and what is wrong with that; None: nothing."""

    need: Need
    version: str | None
    wrong: str | None


def _spec_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False  # its parent package is absent


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    found = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def look(needs: tuple[Need, ...] = NEEDS) -> list[Found]:
    """Look for every package; one of another name, with that module, is taken."""
    found = []
    for need in needs:
        version = _version(need.package)
        if not _spec_found(need.module):
            found.append(Found(need, version, "absent"))
        elif version and _numbers(version) < need.least:
            least = ".".join(map(str, need.least))
            found.append(Found(need, version, f"older than {least}"))
        else:
            found.append(Found(need, version, None))
    return found


def is_complete(found: list[Found]) -> bool:
    """Whether nothing is wrong."""
    return all(one.wrong is None for one in found)


def lines(found: list[Found]) -> list[str]:
    """Machine, and one line a package, those that are wrong last."""
    driver = DRIVER.read_text().splitlines()[0] if DRIVER.exists() else "no NVIDIA driver"
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    cores = len(os.sched_getaffinity(0))
    told = [
        f"Python {sys.version.split()[0]}, {cores} usable cores, {free_gb:,.0f} GB free here",
        f"driver: {driver}",
    ]
    for one in sorted(found, key=lambda one: one.wrong is not None):
        state = "ok" if one.wrong is None else one.wrong.upper()
        parts = "" if one.wrong is None else f"  (needed by: {one.need.parts})"
        told.append(f"{one.need.package:24} {one.version or '-':14} {state}{parts}")
    wrong = [one.need.package for one in found if one.wrong]
    if wrong:
        told.append(f"{len(wrong)} of {len(found)} missing or too old: {' '.join(wrong)}")
    else:
        told.append("everything is there")
    return told


def refuse_incomplete() -> None:
    """End the process with status 1, and say what is missing, unless everything is there."""
    found = look()
    if not is_complete(found):
        sys.stderr.write("\n".join(lines(found)) + "\n")
        sys.exit(1)
