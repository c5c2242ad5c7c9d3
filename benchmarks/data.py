"""Synthetic tracks that cost a decoder what photographs cost: crops of 446x446 at quality 90.

A track is a textured scene (octaves of noise with a photograph's falling spectrum, shapes with
hard edges, a target at the centre, often a border of the mean colour, grain of a sensor). Detail
and grain differ from track to track, so that sizes spread as those of real crops: about 23 to 46 KB
around 33 KB. Everything is drawn from counter-based numbers: the same options and library versions
give the same bytes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from shards.errors import MismatchError
from shards.format import MANIFEST_NAME, Manifest, Sample, check_dataset_name, shard_name
from shards.parts import Part
from shards.pixels import encode_jpeg, mean_rgb
from shards.rng import uniforms
from shards.writer import finish, load_part, write_shard

__all__ = ["DataConfig", "make", "render_track"]

MEAN_JPEG_KB = 33.3  # what `frames_of` expects of a frame with its share of the tar
CATEGORIES = ("bird", "boat", "car", "cat", "dog", "drone", "horse", "person", "sheep", "train")
_STREAM_TRACK, _STREAM_SCENE, _STREAM_SHAPES, _STREAM_GRAIN = 1001, 1002, 1003, 1004
_CANVAS = 720
_OCTAVES = (4, 9, 18, 36, 72, 144, 288, 576)
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How much to make.

    Attributes
    ----------
    gb : of tars, about
    name : of the data set
    frames_per_track, tracks_per_shard : sizes
    stride : between frame numbers
    side, quality : of the crops
    seed : of everything drawn
    """

    gb: Annotated[float, Gt(0)] = 0.1
    name: str = "bench"
    frames_per_track: Annotated[int, Ge(2)] = 48
    tracks_per_shard: Annotated[int, Ge(1)] = 16
    stride: Annotated[int, Ge(1)] = 3
    side: Annotated[int, Ge(64)] = 446
    quality: Annotated[int, Ge(1)] = 90
    seed: Annotated[int, Ge(0)] = 11

    def __post_init__(self) -> None:
        check_dataset_name(self.name)

    @property
    def tracks(self) -> int:
        """Tracks in all, at least two."""
        frame_bytes = MEAN_JPEG_KB * 1e3 * (self.side / 446) ** 2 + 2_000
        return max(2, round(self.gb * 1e9 / frame_bytes / self.frames_per_track))

    @property
    def shards(self) -> int:
        """Shards in all."""
        return -(-self.tracks // self.tracks_per_shard)

    def facts(self) -> dict[str, Any]:
        """Options as the manifest keeps them."""
        return {"synthetic": True, **asdict(self)}


def make(
    folder: Path, config: DataConfig, workers: int, told: Callable[[int], None]
) -> tuple[Manifest, bool]:
    """Make a data set, or find it made with these options; killed, it goes on where it was.

    Parameters
    ----------
    folder : of the data set
    config : options
    workers : processes
    told : called with the number of shards that are done

    Returns
    -------
    its manifest, and whether it was there already

    Raises
    ------
    MismatchError : if the folder holds something else
    """
    if (folder / MANIFEST_NAME).is_file():
        manifest = Manifest.read(folder)
        if dict(manifest.options) != config.facts():
            raise MismatchError(
                f"{folder} holds data made with other options ({dict(manifest.options)}); name "
                "another --out, or remove that folder"
            )
        return manifest, True
    parts: list[Part] = []
    for part in _parts(folder, config, workers):
        parts.append(part)
        told(len(parts))
    manifest = finish(
        folder,
        parts,
        name=config.name,
        grid="edge",
        crop_size=config.side,
        quality=config.quality,
        stride=config.stride,
        options=config.facts(),
        notes=("synthetic pictures, made by 'python -m benchmarks data'",),
    )
    return manifest, False


def _parts(folder: Path, config: DataConfig, workers: int) -> Iterator[Part]:
    """All shards in order, made by some processes or in this one."""
    numbers = range(config.shards)
    if workers == 1:
        yield from (_shard(folder, config, number) for number in numbers)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for job in [pool.submit(_shard, folder, config, number) for number in numbers]:
            yield job.result()


def _shard(folder: Path, config: DataConfig, number: int) -> Part:
    cv2.setNumThreads(1)
    name = shard_name(config.name, number)
    found = load_part(folder, name)
    if found is not None and dict(found.facts) == config.facts():
        return found
    first = number * config.tracks_per_shard
    tracks = range(first, min(first + config.tracks_per_shard, config.tracks))
    samples = (pair for track in tracks for pair in render_track(config, track))
    return write_shard(folder, name, samples, config.facts)


def _octaves(seed: int, track: int, channels: int, falloff: float) -> npt.NDArray[np.float32]:
    """Noise (C, C, channels) around 0 whose octaves shrink by `falloff`, standard deviation 1."""
    total = np.zeros((_CANVAS, _CANVAS, channels), np.float32)
    for number, cells in enumerate(_OCTAVES):
        count = -(-cells * cells * channels // 4)
        drawn = uniforms(seed, _STREAM_SCENE + 10 * number, track, 0, count, 4)
        grid = drawn.ravel()[: cells * cells * channels].reshape(cells, cells, channels)
        size = (_CANVAS, _CANVAS)
        layer = cv2.resize((grid - 0.5).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        total += falloff**number * layer.reshape(total.shape)
    return np.asarray((total - total.mean((0, 1))) / total.std((0, 1)), np.float32)


def _scene(config: DataConfig, track: int, traits: npt.NDArray[np.float64]) -> Image:
    """Background of a track, (720, 720, 3) uint8 RGB."""
    falloff = 0.5 + 0.24 * traits[0]
    luma = _octaves(config.seed, track, 1, falloff)
    chroma = cv2.GaussianBlur(_octaves(config.seed + 1, track, 3, 0.55), (0, 0), 2.0)
    contrast = 30 + 18 * traits[1]
    base = 70 + 110 * traits[2:5]
    picture: Image = np.clip(base + contrast * luma + 14 * chroma, 0, 255).astype(np.uint8)
    shapes = uniforms(config.seed, _STREAM_SHAPES, track, 0, 24, 12)
    for number, u in enumerate(shapes[: 8 + int(16 * traits[5])]):
        centre = u[:2] * _CANVAS
        points = centre + (u[2:8].reshape(3, 2) - 0.5) * (40 + 220 * u[8])
        # half see-through, so that texture goes on below the edge
        over = picture.copy()
        cv2.fillPoly(over, [points.astype(np.int32)], (u[9:12] * 255).tolist(), cv2.LINE_AA)
        weight = 0.35 + 0.3 * (number % 3) / 2
        picture = np.asarray(cv2.addWeighted(over, weight, picture, 1 - weight, 0))
    return picture


def _target(config: DataConfig, traits: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Width and height of the target; the crop's geometry fixes their geometric mean."""
    aspect = float(np.exp((traits[6] - 0.5) * 1.6))
    w, h = np.sqrt(aspect), 1 / np.sqrt(aspect)
    scale = 127 / np.sqrt((w + (w + h) / 2) * (h + (w + h) / 2)) * config.side / 446
    return float(w * scale), float(h * scale)


def render_track(config: DataConfig, track: int) -> Iterator[tuple[Sample, bytes]]:
    """Descriptions and JPEGs of one track.

    Parameters
    ----------
    config : of the data set
    track : its number among all tracks
    """
    side = config.side
    traits = uniforms(config.seed, _STREAM_TRACK, 0, track, 1, 20)[0]
    scene = _scene(config, track, traits)
    grain = uniforms(config.seed, _STREAM_GRAIN, track, 0, 160, 320 * 12).reshape(-1, 12).sum(1) - 6
    grain = (grain[: 160 * 320].reshape(160, 320) * (1.0 + 3.0 * traits[7] ** 2)).astype(np.float32)
    tile = cv2.resize(np.tile(grain, (6, 3)), (960, 960), interpolation=cv2.INTER_NEAREST)
    width, height = _target(config, traits)
    border = int(side * 0.3 * max(0.0, traits[8] - 0.6) / 0.4)
    category = CATEGORIES[track % len(CATEGORIES)]
    sequence = f"{category}-{track // len(CATEGORIES) + 1}"
    half = np.array([width, height]) / 2
    box = np.concatenate([side / 2 - half, side / 2 + half])
    color = (traits[9:12] * 200 + 30).tolist()
    for i in range(config.frames_per_track):
        phase = i / 24 + 6 * traits[12]
        zoom = side / 446 * (1.15 + 0.25 * np.sin(phase))
        turn = cv2.getRotationMatrix2D((_CANVAS / 2, _CANVAS / 2), 20 * np.sin(phase / 2), zoom)
        turn[:, 2] += side / 2 - _CANVAS / 2 + 60 * np.array([np.sin(1.7 * phase), np.cos(phase)])
        frame = cv2.warpAffine(scene, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
        centre = (side // 2, side // 2)
        axes = (max(2, int(half[0])), max(2, int(half[1])))
        blob = cv2.ellipse(frame.copy(), centre, axes, 0, 0, 360, color, -1, cv2.LINE_AA)
        frame = cv2.addWeighted(blob, 0.6, frame, 0.4, 0)
        at = (np.array([traits[13], traits[14]]) * 400 + i * np.array([97, 61])).astype(int) % 500
        noise = tile[at[0] : at[0] + side, at[1] : at[1] + side, None]
        frame = np.clip(frame + np.rint(noise), 0, 255).astype(np.uint8)
        mean = mean_rgb(frame)
        if border:
            frame[:, :border] = np.rint(mean)
        sample = Sample(
            sequence=sequence,
            track=0,
            frame=1 + i * config.stride,
            kind="video",
            fps=30.0,
            boxes=box[None].astype(np.float32),
            categories=(category,),
            ignore=(False,),
            visible=1.0,
            mean_rgb=mean,
            source=f"{category}/{sequence}/img/{1 + i * config.stride:08d}.jpg",
            source_size=(1280, 720),
            region=np.array([400, 120, 400 + side, 120 + side], np.float32),
        )
        yield sample, encode_jpeg(frame, config.quality)
