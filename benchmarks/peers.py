"""Environments of their own for peers that cannot live beside our packages.

An environment is a virtual one below `HOME` that sees every package of ours (torch is not installed
twice), with the peer's own on top. A peer whose environment is not there is absent from a run, and
the reason names the command that makes it. `benchmarks.peers_make` makes them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "BESIDE",
    "ENVIRONMENTS",
    "HOME",
    "INSTALLED",
    "Environment",
    "State",
    "how_to_add",
    "interpreter",
    "is_peer",
    "states",
]

HOME = Path(os.environ.get("SIAMSTREAM_PEERS", "data/bench-peers"))
INSTALLED = "installed.json"  # written last: an environment without it is not complete
HOW_BESIDE = "pip install --editable '.[bench]'"
# Peers of the `bench` extra (webdataset is a dependency of ours), by their distribution.
BESIDE = {
    "webdataset": "webdataset",
    "litdata": "litdata",
    "grain": "grain",
    "spdl": "spdl_core",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What an environment is made of.

    Attributes
    ----------
    peer : requirement of the peer itself
    others : further requirements
    with_dependencies : False: only `peer` and `others` are installed, because the peer asks for
        packages that clash with ours
    module : that can be imported when all is well
    built_from : pkg-config modules that it is built from, with the Debian package of each
    """

    peer: str
    others: tuple[str, ...] = ()
    with_dependencies: bool = True
    module: str
    built_from: Mapping[str, str] = field(default_factory=dict)


ENVIRONMENTS: Mapping[str, Environment] = {
    # Wants numpy below 2.2, and forty packages for stores in the cloud.
    "mosaic-streaming": Environment(peer="mosaicml-streaming==0.13.0", module="streaming"),
    # No wheels. Asks for opencv-python, whose files are those of opencv-python-headless.
    "ffcv": Environment(
        peer="ffcv==1.0.2",
        others=("numba>=0.61", "fastargs", "setuptools", "terminaltables", "tqdm"),
        with_dependencies=False,
        module="ffcv",
        built_from={"opencv4": "libopencv-dev", "libturbojpeg": "libturbojpeg0-dev"},
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """One peer as it is here.

    Attributes
    ----------
    place : ``bench extra``, or the environment's folder
    version : of the peer, or None if it is absent
    command : that adds it
    """

    name: str
    place: str
    version: str | None
    command: str


def interpreter(env: str | None) -> Path | None:
    """Python of a contestant's environment, or None if that has not been made.

    Parameters
    ----------
    env : its name; None: the environment of this process
    """
    if env is None:
        return Path(sys.executable)
    return HOME / env / "bin" / "python" if (HOME / env / INSTALLED).is_file() else None


def is_peer(name: str) -> bool:
    """Tell whether a contestant is one that may have to be added."""
    return name in BESIDE or name in ENVIRONMENTS


def how_to_add(name: str) -> str:
    """Command that adds a peer."""
    return HOW_BESIDE if name in BESIDE else f"python -m benchmarks peers {name}"


def states() -> list[State]:
    """Every peer: where it lives, and whether it is there."""
    found = []
    for name, distribution in BESIDE.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = None
        command = how_to_add(name)
        found.append(State(name=name, place="bench extra", version=version, command=command))
    for name in ENVIRONMENTS:
        file = HOME / name / INSTALLED
        version = json.loads(file.read_text())["version"] if file.is_file() else None
        command = how_to_add(name)
        found.append(State(name=name, place=str(HOME / name), version=version, command=command))
    return found
