"""Small packed data sets made of synthetic crops, for tests that need shards but no packer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from shards.format import Manifest, Sample, shard_name
from shards.geometry import Grid
from shards.pixels import encode_jpeg
from shards.rng import uniforms
from shards.writer import finish, write_shard


def picture(seed: int, side: int) -> np.ndarray:
    """A smooth, colourful picture, (side, side, 3) uint8."""
    small = (uniforms(seed, 99, 0, 0, 12 * 12, 4)[:, :3] * 255).reshape(12, 12, 3)
    return cv2.resize(small.astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


def samples(
    sequence: str,
    category: str,
    frames: int,
    *,
    seed: int,
    side: int = 446,
    stride: int = 3,
    kind: str = "video",
    others: int = 0,
) -> Iterator[tuple[Sample, bytes]]:
    for i in range(frames):
        half = 20.0 + 3 * (seed % 7)
        target = [side / 2 - half, side / 2 - 25, side / 2 + half, side / 2 + 25]
        extra = [[10.0 + 9 * k, 20.5, 60.25 + 9 * k, 90.0] for k in range(others)]
        sample = Sample(
            sequence=sequence,
            track=0,
            frame=1 + i * stride,
            kind=kind,  # type: ignore[arg-type]
            fps=30.0 if kind == "video" else None,
            boxes=np.array([target, *extra], np.float32),
            categories=(category, *["thing"] * others),
            ignore=(False,) * (1 + others),
            visible=1.0,
            mean_rgb=np.array([100, 110.5, 120]),
            source=f"{category}/{sequence}/img/{1 + i * stride:08d}.jpg",
            source_size=(640, 480),
            region=np.array([10, 20, 200, 210]),
        )
        yield sample, encode_jpeg(picture(seed * 1000 + i, side), 90)


def pack(
    folder: Path,
    name: str = "lasot",
    *,
    sequences: int = 4,
    frames: int = 12,
    per_shard: int = 2,
    side: int = 446,
    grid: Grid = "edge",
    kind: str = "video",
    others: int = 0,
    stride: int = 3,
) -> Manifest:
    """Pack `sequences` sequences of two categories, `per_shard` to a shard, into folder/name."""
    target = folder / name
    parts = []
    for number, first in enumerate(range(0, sequences, per_shard)):

        def shard(first: int = first) -> Iterator[tuple[Sample, bytes]]:
            for i in range(first, min(first + per_shard, sequences)):
                category = ("car", "person")[i % 2]
                yield from samples(
                    f"{category}-{i + 1}",
                    category,
                    frames,
                    seed=i + 1,
                    side=side,
                    kind=kind,
                    others=others,
                    stride=stride,
                )

        parts.append(write_shard(target, shard_name(name, number), shard()))
    return finish(target, parts, name=name, grid=grid, crop_size=side, quality=90, stride=stride)
