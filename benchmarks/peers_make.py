"""Make a peer's environment: a virtual one that sees our packages, with the peer's on top."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers import BESIDE, ENVIRONMENTS, HOW_BESIDE, INSTALLED, Environment
from shards.atomic import replace_text
from shards.errors import SiamstreamError

__all__ = ["PeerError", "Run", "make"]

Run = Callable[[Sequence[str]], str]
_OURS = "siamstream-ours.pth"
_TAIL_LINES = 5


class PeerError(SiamstreamError):
    """An environment cannot be made."""


def run(command: Sequence[str]) -> str:
    """Run a command to its end and return what it wrote to standard output.

    Raises
    ------
    PeerError : if it fails, with the last lines of its complaint
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PeerError(f"{command[0]}: cannot be run: {error.strerror}") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = " | ".join(said[-_TAIL_LINES:])
        raise PeerError(f"'{' '.join(command)}' failed with status {done.returncode}: {told}")
    return done.stdout


def make(name: str, home: Path, again: bool, told: Callable[[str], None], run: Run = run) -> bool:
    """Make an environment.

    Parameters
    ----------
    name : of the peer
    home : parent of the environments
    again : also if it is there
    told : called with lines of progress
    run : runs a command

    Returns
    -------
    whether it was made; False: it was there

    Raises
    ------
    PeerError : if there is no such environment, something is missing, or a command fails
    """
    environment = _environment(name)
    folder = home / name
    if (folder / INSTALLED).is_file() and not again:
        return False
    _check_built_from(name, environment, run)
    told(f"{name}: environment in {folder}")
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    python = str(folder / "bin" / "python")
    _show_ours(
        folder, run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    )
    requirements = [*environment.others]
    if environment.with_dependencies:
        requirements.append(environment.peer)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    told(f"{name}: installing {environment.peer}; this takes minutes")
    if requirements:
        run([*pip, *requirements])
    if not environment.with_dependencies:
        run([*pip, "--no-deps", environment.peer])
    run([python, "-c", f"import {environment.module}"])
    listed = run([python, "-m", "pip", "list", "--local", "--format", "json"])
    packages = {one["name"]: one["version"] for one in json.loads(listed)}
    facts = {
        "peer": environment.peer,
        "version": environment.peer.partition("==")[2],
        "python": platform.python_version(),
        "packages": packages,
    }
    replace_text(folder / INSTALLED, json.dumps(facts, indent=1))
    return True


def _environment(name: str) -> Environment:
    if name in BESIDE:
        raise PeerError(f"{name} lives beside our packages; add it with {HOW_BESIDE}")
    if name not in ENVIRONMENTS:
        raise PeerError(f"no environment {name}; there are {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name]


def _check_built_from(name: str, environment: Environment, run: Run) -> None:
    """Find what a peer is built from, before minutes are spent on it."""
    if not environment.built_from:
        return
    tools = {"pkg-config": "pkg-config", "g++": "g++"}
    absent = [package for tool, package in tools.items() if shutil.which(tool) is None]
    for module, package in environment.built_from.items():
        if shutil.which("pkg-config") is None:
            absent.append(package)
            continue
        try:
            run(["pkg-config", "--exists", module])
        except PeerError:
            absent.append(package)
    if absent:
        raise PeerError(
            f"{name} is built from source and needs {', '.join(absent)}; as root: "
            f"apt-get install {' '.join(absent)}"
        )


def _show_ours(folder: Path, site_packages: str) -> None:
    """Let an environment see the packages of ours, after its own."""
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    place = Path(site_packages.strip())
    if not place.is_dir():
        raise PeerError(f"{folder}: venv made no {place}; remove the folder and try again")
    (place / _OURS).write_text("".join(f"{path}\n" for path in ours))
