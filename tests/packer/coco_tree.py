"""A miniature COCO made for tests: three pictures with boxes, one without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lasot_tree import picture

SIZE = (96, 72)
FILES = {17: "000000000017.jpg", 5: "000000000005.jpg", 40: "000000000040.jpg", 8: "8.jpg"}


def facts() -> dict[str, Any]:
    """Annotations in COCO's form; ids of categories have holes."""
    boxes = [
        (900, 17, 3, [10.5, 20.25, 30, 25], 0),
        (901, 5, 90, [5, 6, 20, 30], 0),
        (902, 17, 1, [40, 10, 25, 30], 0),
        (903, 17, 1, [0, 0, 80, 60], 1),  # a crowd
        (904, 17, 3, [60, 40, 4, 30], 0),  # just not over 4 pixels
        (905, 5, 3, [50, 20, 0, 10], 0),  # no width
        (906, 5, 1, [30, 30, 4.01, 4.01], 0),
        (907, 40, 1, [-10, -10, 40, 40], 0),  # partly outside
        (908, 40, 1, [200, 10, 30, 30], 0),  # outside
        (909, 40, 90, [20, 30, 0.5, 0.7], 0),  # under a pixel
        (910, 40, 90, [50, 10, -20, 10], 0),  # a negative width
    ]
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1, "name": "none"}],
        "images": [
            {"id": key, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for key, name in FILES.items()
        ],
        "annotations": [
            {
                "segmentation": [[1.5, 2, 3, 4]],
                "iscrowd": crowd,
                "image_id": image,
                "bbox": box,
                "category_id": category,
                "id": key,
            }
            for key, image, category, box, crowd in boxes
        ],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 3, "name": "car"},
            {"id": 90, "name": "toothbrush"},
        ],
    }


def tree(base: Path, value: dict[str, Any] | None = None, images: str = "train2017") -> Path:
    """Write pictures and annotations below `base`."""
    (base / images).mkdir(parents=True)
    for seed, name in enumerate(FILES.values()):
        (base / images / name).write_bytes(picture(seed, SIZE))
    annotate(base, facts() if value is None else value)
    return base


def annotate(base: Path, value: Any) -> Path:
    """Write the annotations only."""
    path = base / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path
