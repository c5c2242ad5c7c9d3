"""Raw LaSOT trees made for tests, and what a packed folder holds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from packer.source import FolderSource
from shards.pixels import encode_jpeg

FRAMES = 12


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> bytes:
    """JPEG of a smooth picture, width and height."""
    whole = synthetic.picture(seed, max(size))
    return encode_jpeg(np.ascontiguousarray(whole[: size[1], : size[0]]), 90)


def boxes_of(frames: int) -> list[tuple[int, int, int, int]]:
    return [(20 + i % 9, 15 + i % 5, 24 + i % 3, 18 + i % 4) for i in range(frames)]


def sequence(
    base: Path,
    name: str,
    frames: int = FRAMES,
    *,
    boxes: str | bytes | None = None,
    occluded: str | None = "",
    out_of_view: str | None = "",
    flat: bool = False,
    extension: str = "jpg",
) -> Path:
    """Write one sequence below `base`; flags default to all visible, None leaves a file out."""
    folder = base / name if flat else base / name.rpartition("-")[0] / name
    (folder / "img").mkdir(parents=True)
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    for i in range(frames):
        (folder / "img" / f"{i + 1:08d}.{extension}").write_bytes(picture(seed + i))
    if boxes is None:
        boxes = "".join(f"{x},{y},{w},{h}\n" for x, y, w, h in boxes_of(frames))
    (folder / "groundtruth.txt").write_bytes(boxes.encode() if isinstance(boxes, str) else boxes)
    for file, flags in (("full_occlusion.txt", occluded), ("out_of_view.txt", out_of_view)):
        if flags is not None:
            (folder / file).write_text(flags or ",".join("0" * frames))
    return folder


def small_tree(base: Path) -> Path:
    """Five sequences: enough for several shards of 16 frames, one track over two of them."""
    sequence(base, "car-1", 12)
    sequence(base, "car-3", 40)
    sequence(base, "dog-2", 12, occluded=",".join("001110000000"))
    sequence(base, "dog-10", 12)
    sequence(base, "dog-3", 5)
    return base


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def packed_frames(folder: Path) -> list[dict[str, Any]]:
    """Descriptions of all samples in the order of the shards."""
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    handle = tar.extractfile(member)
                    assert handle is not None
                    found.append(json.loads(handle.read()))
    return found


@dataclass(frozen=True)
class KillingSource(FolderSource):
    """Reading one picture kills the process, as the kernel does when memory runs out."""

    victim: str = ""

    def read(self, path: str) -> bytes:
        if path.endswith(self.victim):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(path)
