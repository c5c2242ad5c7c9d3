"""Small synthetic sequences in the genuine raw layouts, to try everything with no data.

What they show is in `packer.demo_scenes`. The same arguments and library versions give the same
bytes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from packer.datasets import lasot
from packer.demo_scenes import SHAPES, Scene, Shot, scene
from shards.errors import MismatchError
from shards.pixels import encode_jpeg
from shards.storage import storage_error

__all__ = ["MARKER", "MAX_SEQUENCES", "demo_sequences", "names", "render"]

MARKER = "DEMO.txt"
_QUALITY = 90
_SEQUENCE_FILES = ("groundtruth.txt", "full_occlusion.txt", "out_of_view.txt", "nlp.txt")


def names(count: int) -> list[str]:
    """Names of the first demo sequences: the four classes in turn, numbers of the train split."""
    by_class = [
        [name for name in lasot.official("train") if name.rpartition("-")[0] == shape]
        for shape in SHAPES
    ]
    return [by_class[i % len(SHAPES)][i // len(SHAPES)] for i in range(count)]


MAX_SEQUENCES = len(SHAPES) * 16


def render(folder: Path, *, sequences: int = 8, frames: int = 60, seed: int = 0) -> list[str]:
    """Write the demo in the raw LaSOT layout; an earlier demo there is replaced.

    Parameters
    ----------
    folder : raw data set, ``<folder>/<class>/<class>-<n>/``
    sequences, frames, seed : how much, and which

    Returns
    -------
    names of the sequences

    Raises
    ------
    MismatchError : if the folder holds anything but an earlier demo
    StorageError : if it cannot be written
    """
    wanted = names(sequences)
    try:
        for earlier in _earlier(folder):
            shutil.rmtree(folder / earlier, ignore_errors=False)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(_marker_text(wanted, frames, seed))
        for number, name in enumerate(wanted):
            _write(folder / name.rpartition("-")[0] / name, scene(number, frames, seed))
    except OSError as error:
        raise storage_error(error, folder) from error
    return wanted


def demo_sequences(folder: Path) -> set[str] | None:
    """Names of the demo's sequences in a raw folder, or None if no demo was rendered there."""
    marker = folder / MARKER
    if not marker.is_file():
        return None
    listed = re.search(r"^sequences: (.*)$", marker.read_text(errors="replace"), re.MULTILINE)
    return set(listed[1].split()) if listed else set()


def _marker_text(wanted: list[str], frames: int, seed: int) -> str:
    return (
        "Synthetic sequences in the raw LaSOT layout, drawn by 'python -m packer demo'. They are\n"
        "no part of LaSOT. This folder may be deleted, and the same command replaces it.\n"
        f"frames: {frames}\nseed: {seed}\nsequences: {' '.join(wanted)}\n"
    )


def _earlier(folder: Path) -> list[str]:
    """Class folders of an earlier demo; refuses a folder that holds anything else."""
    if not folder.exists():
        return []
    present = [path.relative_to(folder) for path in folder.rglob("*")]
    if not present:
        return []
    marker = folder / MARKER
    text = marker.read_text(errors="replace") if marker.is_file() else ""
    listed = re.search(r"^sequences: (.*)$", text, re.MULTILINE)
    known = set(listed[1].split()) & set(names(MAX_SEQUENCES)) if listed else set()
    for path in present:
        if not _is_ours(path.parts, known) or (folder / path).is_symlink():
            raise MismatchError(
                f"{folder} holds {path}, which is no part of an earlier demo, so nothing was "
                "touched; give another --root, or move that away"
            )
    return sorted(
        {name.rpartition("-")[0] for name in known if (folder / _class_of(name)).exists()}
    )


def _class_of(name: str) -> str:
    return name.rpartition("-")[0]


def _is_ours(parts: tuple[str, ...], known: set[str]) -> bool:
    """Tell whether a path below the demo's folder is one that `render` writes."""
    match parts:
        case (marker,) if marker == MARKER:
            return bool(known)
        case (shape,):
            return any(_class_of(name) == shape for name in known)
        case (shape, name, *rest):
            return (
                name in known
                and _class_of(name) == shape
                and (
                    rest in ([], ["img"])
                    or (len(rest) == 1 and rest[0] in _SEQUENCE_FILES)
                    or (
                        len(rest) == 2
                        and rest[0] == "img"
                        and re.fullmatch(r"\d{8}\.jpg", rest[1]) is not None
                    )
                )
            )
    return False


def _write(folder: Path, scene: Scene) -> None:
    """One sequence folder."""
    (folder / "img").mkdir(parents=True)
    shots: list[Shot] = []
    for number, shot in enumerate(scene.shots(), start=1):
        (folder / "img" / f"{number:08d}.jpg").write_bytes(encode_jpeg(shot.picture, _QUALITY))
        shots.append(shot._replace(picture=np.empty((0, 0, 3), np.uint8)))
    boxes = "".join(",".join(map(str, shot.box)) + "\n" for shot in shots)
    (folder / "groundtruth.txt").write_text(boxes)
    for name, flags in (
        ("full_occlusion", [shot.occluded for shot in shots]),
        ("out_of_view", [shot.out_of_view for shot in shots]),
    ):
        (folder / f"{name}.txt").write_text(",".join(str(int(flag)) for flag in flags) + "\n")
    (folder / "nlp.txt").write_text(f"a drawn {scene.shape} over a moving background\n")
