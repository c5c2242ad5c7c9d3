"""What each step of a pair costs one thread: decoders, warps, blurs, plan, read.

Method: CPU time of the thread over the crops of some planned pairs, the steps in turn, repeated;
medians, and beside them decode units (one unit: a whole simplejpeg decode of the same crops in the
same repeat). So the steps compare on a noisy machine too.
"""

from __future__ import annotations

import io
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import result
from benchmarks.case import Case
from benchmarks.compare import data_facts, sets_text
from benchmarks.data import Image as Pixels
from benchmarks.pairs import pair_config
from loaders.blur import BlurStep, gaussian_kernel, motion_kernel
from loaders.cpu import Bench, blurred, occlude
from loaders.occlusion import Occluder
from loaders.sets import DataSets, open_sets, picture_fault
from loaders.work import Crops, Work, prepare
from shards.parts import crc32c

__all__ = ["COSTS_HEADER", "costs_lines", "costs_rows", "measure_costs"]

COSTS_HEADER = ("step", "µs", "decode units")
UNIT = "whole decode, simplejpeg"
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_MATRIX = np.array([[1.03, 0, 4.3], [0, 0.97, 6.7]])
_COLOR = np.array([[1.1, 0.02, 0.01, 5], [0.02, 1.05, 0.03, 5], [0, 0.01, 1.08, 5]])


@dataclass(frozen=True, slots=True)
class Given:
    """Encoded pictures in memory, as a decoder of ours asks for them."""

    encoded: list[bytes]

    def read(self, i: int) -> memoryview:
        """Encoded picture i."""
        return memoryview(self.encoded[i])


def _regions(bench: Bench, given: Given, side: int, frame_px: int) -> Callable[[], object]:
    low = (frame_px - side) // 2
    region = np.array([low, low, low + side, low + side])
    # a list of bytes reads like crops do
    crops: Any = given
    return lambda: [bench.decode(crops, i, region) for i in range(len(given.encoded))]


def _decoders(given: Given, frame_px: int) -> dict[str, Callable[[], object]]:
    encoded = given.encoded
    bench, whole = Bench(frame_px), np.empty((frame_px, frame_px, 3), np.uint8)
    arrays = [np.frombuffer(data, np.uint8) for data in encoded]
    steps: dict[str, Callable[[], object]] = {
        UNIT: lambda: [simplejpeg.decode_jpeg(data, "RGB") for data in encoded],
        "whole decode, simplejpeg, into memory used again": lambda: [
            simplejpeg.decode_jpeg(data, "RGB", buffer=whole) for data in encoded
        ],
        "whole decode, OpenCV": lambda: [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in arrays],
        "whole decode, Pillow": lambda: [
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded
        ],
    }
    for side in (135, 263, 305, 380):
        steps[f"region decode, {side} of {frame_px} px"] = _regions(bench, given, side, frame_px)
    return steps


def _augments(picture: Pixels, count: int) -> dict[str, Callable[[], object]]:
    """Steps on one picture, `count` times each."""
    part = np.ascontiguousarray(picture[90:370, 90:370])
    wide = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    three, four = np.empty((255, 255, 3), np.uint8), np.empty((255, 255, 4), np.uint8)
    planes = np.empty((3, 255, 255), np.uint8)
    motion = motion_kernel(19, 0.3, transposed=False)
    options = {"flags": _WARP, "borderMode": cv2.BORDER_REPLICATE}
    gaussian, average = gaussian_kernel(19), np.full((9, 9), 1 / 81, np.float32)

    def four_channels() -> None:
        cv2.cvtColor(part, cv2.COLOR_RGB2RGBA, dst=wide)
        cv2.warpAffine(wide, _MATRIX, (255, 255), dst=four, **options)
        cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=three)

    def blur(kind: str, kernel: Any = None, small_px: int = 0) -> Callable[[], object]:
        source = part if small_px == 0 else picture
        return lambda: blurred(source, BlurStep(kind=kind, kernel=kernel, small_px=small_px))

    def cover(**fill: Any) -> Callable[[], object]:
        return lambda: occlude(picture, Occluder(box=(150, 160, 230, 230), alpha=0.8, **fill))

    once: dict[str, Callable[[], object]] = {
        "warp to 255 px, 3 channels": lambda: cv2.warpAffine(
            part, _MATRIX, (255, 255), dst=three, **options
        ),
        "warp to 255 px, through 4 channels": four_channels,
        "colour matrix, 255 px": lambda: cv2.transform(three, _COLOR),
        "split into planes, 255 px": lambda: cv2.split(three, list(planes)),
        "gaussian blur of 19 px": blur("gaussian", gaussian),
        "average of 9 px": blur("average", average),
        "down-up to half, whole picture": blur("down_up", small_px=223),
        "motion blur of 19 px, mean of shifted pictures": blur("motion", motion),
        "motion blur of 19 px, cv2.filter2D": lambda: cv2.filter2D(part, -1, motion),
        "occlusion by a colour": cover(offset=np.zeros(3)),
        "occlusion by a patch": cover(source=(20, 20, 90, 100)),
    }
    return {name: lambda step=step: [step() for _ in range(count)] for name, step in once.items()}


def _mapped(sets: DataSets, work: Work) -> Callable[[], object]:
    """Reading as `DataSet.read` does, through maps of the files."""
    maps: dict[Path, mmap.mmap] = {}
    places = []
    for number, source in enumerate(sets.sets):
        for crops in (work.template, work.search):
            for at in source.ranges(crops.rows[work.plan.dataset == number]):
                path = Path(source.folder, at.file)
                if path not in maps:
                    with path.open("rb") as file:
                        maps[path] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                places.append((maps[path], at))

    def read() -> None:
        for mapped, at in places:
            data = memoryview(mapped)[at.offset : at.offset + at.size]
            crc32c(data)
            picture_fault(data, sets.crop_size)

    return read


def _cpu_us(step: Callable[[], object], count: int) -> float:
    started = time.thread_time()
    step()
    return 1e6 * (time.thread_time() - started) / count


def measure_costs(
    case: Case, repeats: int, command: str, told: Callable[[str], None]
) -> dict[str, Any]:
    """Measure every step.

    Parameters
    ----------
    case : the data, and how many pairs
    repeats : of everything, in turn
    command : that repeats it, for the result
    told : called with lines of progress

    Returns
    -------
    the result, as its JSON has it: ``steps`` with ``name``, ``us`` and ``units`` of each repeat
    """
    config = pair_config(case)
    sets = open_sets(config)
    work = prepare(sets, config, 0, 0, case.pairs)
    halves: Sequence[Crops] = (work.template, work.search)
    given = Given([bytes(one.read(i)) for one in halves for i in range(len(work))])
    count, pairs = len(given.encoded), case.pairs
    picture = simplejpeg.decode_jpeg(given.encoded[0], "RGB")

    def planned() -> None:
        for start in range(0, pairs, case.batch_size):
            prepare(sets, config, 1, start, case.batch_size)

    steps = {
        **_decoders(given, sets.crop_size),
        **_augments(picture, count),
        "read and check a picture, page cache warm": lambda: [
            one.read(i) for one in halves for i in range(len(work))
        ],
        "the same through a memory map": _mapped(sets, work),
        f"plan and draw a pair, in batches of {case.batch_size}": planned,
    }
    cv2.setNumThreads(1)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            value = _cpu_us(step, pairs if step is planned else count)
            if repeat:  # the first warms up
                found[name].append(value)
        told(f"repeat {repeat} of {repeats}")
    return {
        **result.start("costs", command),
        "config": case.facts(),
        "data": {
            "datasets": data_facts(sets),
            "mean_jpeg_kb": sum(map(len, given.encoded)) / count / 1e3,
            "crops": count,
        },
        "steps": [
            {
                "name": name,
                "us": values,
                "units": [value / unit for value, unit in zip(values, found[UNIT], strict=True)],
            }
            for name, values in found.items()
        ],
    }


def costs_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `COSTS_HEADER`, medians."""
    return [
        (step["name"], f"{median(step['us']):,.0f}", f"{median(step['units']):.3f}")
        for step in run["steps"]
    ]


def costs_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers."""
    data, repeats = run["data"], len(run["steps"][0]["us"])
    return [
        f"CPU time of one thread for one crop (or pair, where it says so), median of {repeats} "
        f"repeats over {data['crops']:,} crops of {data['mean_jpeg_kb']:.1f} KB on average, drawn "
        f"from {sets_text(data['datasets'])}."
    ]
