"""Old zips and pickles for tests, made by hand and not by our export."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import synthetic


def crop(seed: int, side: int = 96) -> bytes:
    """A JPEG of quality 95 as OpenCV writes it."""
    picture = synthetic.picture(seed, side)
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


def annotations(sequences: dict[str, list[int]], side: int = 96) -> dict[str, Any]:
    """Two categories with holes in their numbers, one of them unused; ids as published."""
    seqs = []
    for number, (name, frames) in enumerate(sequences.items()):
        category = (3, 17)[number % 2]
        boxes = []
        for i in range(len(frames)):
            half = 10 + number + i / 8
            middle = side / 2
            target = [middle - half, middle - 12.25, middle + half, middle + 12.25, category, 0]
            crowd = [1.5, 2.25, 90.0, 30.5, 17, 1]
            boxes.append(np.array([target, crowd][: 1 + number % 2], np.float32))
        seqs.append(
            {
                "frame_id": frames,
                "bboxes": boxes,
                "frames": [f"{name}_0_{frame}.jpg" for frame in frames],
                "category": category,
            }
        )
    listed = [
        {"supercategory": "animal", "id": 3, "name": "zebra"},
        {"supercategory": "animal", "id": 9, "name": "anteater"},
        {"supercategory": "vehicle", "id": 17, "name": "car"},
    ]
    return {"categories": listed, "seqs": seqs}


SEQUENCES = {"zebra-1": [1, 4, 10], "-x_0": [0, 1, 2, 3], "car-2": [5, 8], "car 3": [1, 2, 4, 8]}


def write(
    folder: Path,
    *,
    inside: str = "",
    method: int = zipfile.ZIP_STORED,
    sequences: dict[str, list[int]] | None = None,
    zip_name: str = "COCO.zip",
) -> tuple[Path, Path, dict[str, bytes]]:
    """Zip and pickle in a folder; returns both and the crops by name, in the zip's order."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = annotations(SEQUENCES if sequences is None else sequences)
    names = [name for seq in facts["seqs"] for name in seq["frames"]]
    crops = {name: crop(seed) for seed, name in enumerate(names)}
    path = folder / zip_name
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in reversed(names):  # not in the order of the pickle
            archive.writestr(f"{inside}{name}", crops[name])
    pickled = folder / "coco_clean.pkl"
    pickled.write_bytes(pickle.dumps(facts, protocol=2))
    return path, pickled, crops
