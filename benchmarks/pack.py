"""How fast is packing, and where does its time go? Our packer beside the obvious loop.

Question: frames a second and CPU-seconds a frame of ``packer.run.pack`` (one process) against a
loop that reads a picture, decodes it whole with OpenCV, warps, encodes at equal quality and 4:2:0
and writes a file, once for every object. Ours writes a shard, reads it back, hashes it and syncs;
the loop does none of this.

Method: both make the same crops (compared before anything is timed), one thread each, in turn, in
this process; ratios are taken within a repeat and the median is reported. The border of a crop is
the mean of the whole frame, so the loop needs it too: by ``numpy.mean(frame, axis=(0, 1))``, as the
published converters write it (the obvious loop, by which bars are judged), and once more by
``cv2.mean`` (the tuned loop).

Reading: with one object a picture, nearly all of the gain over the obvious loop is that mean; a
tuned loop is as fast as ours, because whole decode, warp and encode are the same libraries' work in
both. ``mean_rgb`` is a fact of every sample (FORMAT.md) and is exact, so a picture is decoded whole
even where its crop shows a small part. With several objects a picture, one decode for all of them
is the gain.

Pictures are synthetic photographs of the sizes, KB and chroma sampling that are common in each data
set (LaSOT 227 GB / 3.5 M frames, COCO 18 GB / 118,287 pictures, 4:4:4), or with ``raw`` real trees.

Limits: pictures come from the page cache; a cold disk or network is the same for both.
"""

from __future__ import annotations

import cProfile
import pstats
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import result
from benchmarks.raw import CASES, Case, render
from packer import catalogue
from packer.draft import draft, silent
from packer.jobs import PackOptions
from packer.run import pack
from packer.sequence import DataSet, Split
from packer.source import open_source
from shards.errors import DataError
from shards.geometry import CROP_PX, crop_region, index_affine, region_affine
from shards.index import Index
from shards.pixels import Picture, decode
from shards.storage import LocalStorage

__all__ = ["PACK_HEADER", "measure_pack", "pack_rows", "profile_rows"]

PACK_HEADER = (
    "case",
    "picture",
    "crops",
    "frames/s",
    "CPU ms a frame",
    "obvious CPU ms",
    "tuned CPU ms",
    "x frames/s",
    "x CPU",
    "bar",
    "holds",
    "x CPU of tuned",
)
QUALITY = 90
_FARTHEST = 1.0  # largest mean difference between our crops and the loop's, in grey levels
Mean = Callable[[Picture], Sequence[float]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Work:
    """What both contestants do: a data set, and for the loop each crop's file and box."""

    dataset: DataSet
    root: Path
    options: PackOptions
    files: tuple[Path, ...]
    boxes: npt.NDArray[np.float64]


def _work(name: str, folder: Path, frames: int) -> _Work:
    """First sequences of a data set with at least so many frames, or all of them."""
    dataset, root = catalogue.default(name, folder)
    split: Split = "all" if "all" in dataset.SPLITS else "train"
    sequences = 1
    while True:
        options = PackOptions(
            stride=1,
            min_size=dataset.MIN_SIZE,
            quality=QUALITY,
            split=split,
            limit=sequences,
        )
        planned = draft(dataset, open_source(root), options, silent)
        clips = [clip for job in planned.jobs for clip in job.clips]
        if planned.frames >= frames or planned.sequences < sequences:
            break
        sequences *= 2
    if not clips:
        raise DataError(f"{folder}: nothing to pack")
    return _Work(
        dataset=dataset,
        root=root,
        options=options,
        files=tuple(
            root / clip.pictures_at / picture for clip in clips for picture in clip.pictures
        ),
        boxes=np.concatenate([clip.boxes for clip in clips]),
    )


def ours(work: _Work, out: Path) -> None:
    """Pack with one process."""
    shutil.rmtree(out, ignore_errors=True)
    pack(work.dataset, work.root, out, work.options, workers=1)


def cv2_mean(frame: Picture) -> Sequence[float]:
    """Mean colour by OpenCV."""
    return list(cv2.mean(frame))


def numpy_mean(frame: Picture) -> Sequence[float]:
    """Mean colour as the published converters take it."""
    return [float(value) for value in np.mean(frame, axis=(0, 1))]


def obvious(work: _Work, out: Path, mean: Mean) -> None:
    """Read, decode, warp, encode and write, once for every object."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    for number, (file, box) in enumerate(zip(work.files, work.boxes, strict=True)):
        frame = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        region = crop_region(box, CROP_PX)
        crop = cv2.warpAffine(
            frame,
            index_affine(region_affine(region, CROP_PX, "edge")),
            (CROP_PX, CROP_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=mean(frame),
        )
        data = cv2.imencode(".jpg", crop, settings)[1]
        (out / f"{number:08d}.jpg").write_bytes(data)


def check_same(out: Path, loop_out: Path) -> None:
    """Compare the crops of both.

    Raises
    ------
    DataError : if they differ in number or content
    """
    index = Index(out)
    storage = LocalStorage(out)
    files = sorted(loop_out.iterdir())
    if len(files) != len(index):
        raise DataError(f"the loop made {len(files)} crops, the packer {len(index)}")
    for row in range(0, len(index), max(1, len(index) // 16)):
        mine = decode(bytes(storage.read_many([index.range(row)])[0])).astype(int)
        other = decode(files[row].read_bytes()).astype(int)
        difference = float(np.abs(mine - other).mean())
        if difference > _FARTHEST:
            raise DataError(f"crop {index.key(row)} differs by {difference:.2f} grey levels")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    cpu_s: float
    wall_s: float


def _timed(run: Callable[[], None]) -> _Timed:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    run()
    return _Timed(cpu_s=time.process_time() - cpu_s, wall_s=time.perf_counter() - wall_s)


_STAGES = {
    "decode": ("shards/pixels.py", "decode"),
    "mean": ("shards/pixels.py", "mean_rgb"),
    "warp": ("shards/pixels.py", "warp"),
    "encode": ("shards/pixels.py", "encode_jpeg"),
    "read pictures": ("packer/source.py", "read"),
    "read the shard back": ("shards/parts.py", "scan"),
    "annotations and plan": ("packer/draft.py", "draft"),
    "describe (JSON)": ("shards/format.py", "to_json"),
    "index and manifest": ("shards/writer.py", "finish"),
}


def profile(work: _Work, out: Path) -> dict[str, float]:
    """CPU milliseconds a frame of our packer by stage; ``other`` is the rest."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(ours, work, out)
    stats = pstats.Stats(profiler)
    per_frame = 1e3 / len(work.files)
    total = stats.total_tt * per_frame  # type: ignore[attr-defined]
    found = {}
    for stage, (file, function) in _STAGES.items():
        found[stage] = per_frame * sum(
            figures[3]
            for (path, _line, name), figures in stats.stats.items()  # type: ignore[attr-defined]
            if name == function and path.endswith(file)
        )
    return {**found, "other": total - sum(found.values())}


def measure_pack(
    out: Path,
    frames: int,
    repeats: int,
    raw: Path | None,
    command: str,
    say: Callable[[str], None],
    cases: Sequence[Case] | None = None,
) -> dict[str, Any]:
    """Run all cases.

    Parameters
    ----------
    out : folder for raw trees and results; its content is replaced
    frames : crops of a case, about
    repeats : of both contestants
    raw : parent of real raw data sets to measure in place of the synthetic cases
    command : that repeats the run
    say : told of each case
    cases : synthetic ones; all without

    Raises
    ------
    DataError : if there is nothing to pack, or both do not make the same crops
    """
    run = result.start("pack", command)
    run |= {"frames": frames, "repeats": repeats, "raw": None if raw is None else str(raw)}
    run["cases"] = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for case, work in _works(out, frames, raw, cases or CASES):
            say(f"{case['name']} ...")
            run["cases"].append({**case, **_measured(work, out, repeats, case["bar"])})
    finally:
        cv2.setNumThreads(threads)
        for name in ("raw", "ours", "loop"):
            shutil.rmtree(out / name, ignore_errors=True)
    return run


def _works(
    out: Path, frames: int, raw: Path | None, cases: Sequence[Case]
) -> Iterator[tuple[dict[str, Any], _Work]]:
    if raw is None:
        for case in cases:
            name, root = render(case, frames, out / "raw")
            yield {"name": case.name, "synthetic": True, "bar": case.bar}, _work(name, root, frames)
        return
    there = [name for name in catalogue.names() if (raw / name).exists()]
    if not there:
        raise DataError(f"no data set below {raw}")
    for name in there:
        bar = {case.name: case.bar for case in CASES}.get(name, 1.5)
        yield {"name": name, "synthetic": False, "bar": bar}, _work(name, raw / name, frames)


def _measured(work: _Work, out: Path, repeats: int, bar: float) -> dict[str, Any]:
    runs: dict[str, Callable[[], None]] = {
        "ours": lambda: ours(work, out / "ours"),
        "obvious": lambda: obvious(work, out / "loop", numpy_mean),
        "tuned": lambda: obvious(work, out / "loop", cv2_mean),
    }
    runs["ours"]()
    runs["obvious"]()
    check_same(out / "ours", out / "loop")
    rounds: list[dict[str, _Timed]] = []
    names = list(runs)
    for number in range(repeats):
        turn = names[number % len(names) :] + names[: number % len(names)]
        timed = {name: _timed(runs[name]) for name in turn}
        rounds.append(timed)
    count = len(work.files)
    first = decode(work.files[0].read_bytes())
    files = list(dict.fromkeys(work.files))
    ratio = {
        "cpu": [one["obvious"].cpu_s / one["ours"].cpu_s for one in rounds],
        "frames_per_s": [one["obvious"].wall_s / one["ours"].wall_s for one in rounds],
        "cpu_tuned": [one["tuned"].cpu_s / one["ours"].cpu_s for one in rounds],
    }
    middle = {key: statistics.median(values) for key, values in ratio.items()}
    return {
        "picture_px": [first.shape[1], first.shape[0]],
        "pictures": len(files),
        "picture_kb": statistics.mean(file.stat().st_size for file in files) / 1e3,
        "crops": count,
        "frames_per_s": {
            name: statistics.median(count / one[name].wall_s for one in rounds) for name in names
        },
        "cpu_ms_per_frame": {
            name: statistics.median(1e3 * one[name].cpu_s / count for one in rounds)
            for name in names
        },
        "ratio": middle,
        "ratio_repeats": ratio,
        "holds": middle["cpu"] >= bar,
        "profile_cpu_ms_per_frame": profile(work, out / "ours"),
    }


def pack_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `PACK_HEADER`."""
    rows = []
    for one in run["cases"]:
        width, height = one["picture_px"]
        ratio, cpu_ms = one["ratio"], one["cpu_ms_per_frame"]
        rows.append(
            (
                one["name"],
                f"{width}x{height}, {one['picture_kb']:.0f} KB",
                f"{one['crops']:,}",
                f"{one['frames_per_s']['ours']:,.0f}",
                f"{cpu_ms['ours']:.2f}",
                f"{cpu_ms['obvious']:.2f}",
                f"{cpu_ms['tuned']:.2f}",
                f"{ratio['frames_per_s']:.2f}",
                f"{ratio['cpu']:.2f}",
                f"{one['bar']:.1f}",
                "yes" if one["holds"] else "no",
                f"{ratio['cpu_tuned']:.2f}",
            )
        )
    return rows


def profile_rows(run: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells: what remains of our time, by stage and case."""
    stages = list(run["cases"][0]["profile_cpu_ms_per_frame"])
    rows = [
        (stage, *(f"{one['profile_cpu_ms_per_frame'][stage]:.2f}" for one in run["cases"]))
        for stage in stages
    ]
    return ("CPU ms a frame, profiled", *(one["name"] for one in run["cases"])), rows
