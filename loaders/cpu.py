"""Backend for machines without a GPU: libjpeg-turbo and OpenCV in one pool of threads.

Both release the interpreter's lock, so threads scale and no pixel crosses a process boundary. A
crop that touches less than `REGION_SHARE` of its picture decodes only that region (nvImageCodec's
CPU decoder, the same pixels as a whole decode); above it a whole decode by simplejpeg costs less.
Each thread decodes and warps in buffers of its own: large blocks that are given back to the system
and asked for again cost a page fault for every 4 KB (for batches, see `loaders.blocks`). Warps work
on four channels, for which OpenCV is much faster than for three. Floats are looked up, level by
level, in the table of `loaders.batch.normalised_levels`: crop by crop, in the same threads, while
the crop is in the cache.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from nvidia import nvimgcodec

from loaders.batch import as_tensor, normalised_levels
from loaders.blocks import Blocks
from loaders.blur import BlurStep
from loaders.occlusion import Occluder
from loaders.recipe import Params
from loaders.threads import Threads
from loaders.work import CLOSE_S, Crops, Pixels, Work
from shards.errors import BadSample
from shards.geometry import Float, index_affine

__all__ = ["REGION_SHARE", "Bench", "CpuBackend", "Levels", "blurred", "occlude", "usable_cores"]

# Above this share of the picture's pixels, decoding the whole picture is cheaper than the region.
REGION_SHARE = 0.7
_CPU_ONLY = -99999  # nvImageCodec's device number for "no GPU"
# Boxes lie on the pixels as they are stored, whatever a tag says about showing them.
_AS_STORED = nvimgcodec.DecodeParams(apply_exif_orientation=False)
_REPLICATE = int(cv2.BORDER_REPLICATE)
_WARP = int(cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def occlude(picture: Pixels, occluder: Occluder) -> None:
    """Cover a rectangle of a whole picture, in place."""
    x0, y0, x1, y1 = occluder.box
    height, width = occluder.size
    fill: Any
    if occluder.offset is not None:
        fill = np.array(cv2.mean(picture)[:3]) + occluder.offset
    else:
        fill = cv2.warpAffine(
            picture.astype(np.float32),  # not rounded before it is blended
            index_affine(occluder.picture_from_patch()),
            (width, height),
            flags=_WARP,
            borderMode=_REPLICATE,
        )
    part = picture[y0:y1, x0:x1]
    blend = occluder.alpha * fill + (1 - occluder.alpha) * part
    part[:] = np.clip(blend, 0, 255).astype(np.uint8)


def _warped(picture: Any, scale: float, out_px: int) -> Any:
    """Bilinear picture of another side."""
    matrix = index_affine(np.array([[scale, 0, 0], [0, scale, 0.0]]))
    return cv2.warpAffine(picture, matrix, (out_px, out_px), flags=_WARP, borderMode=_REPLICATE)


def blurred(picture: Pixels, step: BlurStep) -> Any:
    """Blur a region that has a margin, or lies at the picture's edge; whole for ``down_up``."""
    if step.kernel is None:
        side, small_px = len(picture), step.small_px
        # A warp: `cv2.resize` works with weights of 11 bits, and is off by 2 levels here.
        down = _warped(picture, side / small_px, small_px)
        return _warped(down, small_px / side, side)
    if step.kind == "gaussian":
        line = step.kernel.sum(axis=0)
        return cv2.sepFilter2D(picture, -1, line, line, borderType=_REPLICATE)
    if step.kind == "average":
        return cv2.blur(picture, step.kernel.shape, borderType=_REPLICATE)
    return _motion(picture, step.kernel)


def _motion(picture: Pixels, kernel: npt.NDArray[np.float32]) -> Any:
    """Mean of as many shifted pictures as the line has pixels.

    `cv2.filter2D` goes through a Fourier transform for kernels above 130 elements, at many times
    the cost.
    """
    (height, width), margin = picture.shape[:2], len(kernel) // 2
    wide = cv2.copyMakeBorder(picture, margin, margin, margin, margin, _REPLICATE)
    total = np.zeros(picture.shape, np.float32)
    for y, x in np.argwhere(kernel).tolist():
        cv2.accumulate(wide[y : y + height, x : x + width], total)
    return cv2.convertScaleAbs(total, alpha=1 / len(kernel))


class Levels:
    """Normalised floats of a crop's levels.

    Parameters
    ----------
    dtype : of the floats
    channels_last : crops are (S, S, 3) instead of (3, S, S)

    Attributes
    ----------
    stored_as : NumPy's type of the memory of the floats: int16 for those of two bytes, as neither
        NumPy nor OpenCV knows bfloat16; to look a value up is to copy its bits
    """

    def __init__(self, dtype: torch.dtype, channels_last: bool) -> None:
        table = normalised_levels(dtype)
        bits = (table if dtype.itemsize == 4 else table.view(torch.int16)).numpy()
        self.stored_as: np.dtype[Any] = bits.dtype
        self._planes = None if channels_last else bits
        self._pixels = np.ascontiguousarray(bits.T)[None]  # (1, 256, 3)

    def look_up(self, crop: Pixels, out: npt.NDArray[Any]) -> None:
        """Write the floats of a crop.

        Parameters
        ----------
        crop : (3, S, S) or (S, S, 3) uint8 RGB
        out : of the same shape, of type `stored_as`, written
        """
        if self._planes is None:
            cv2.LUT(crop, self._pixels, dst=out)
            return
        for plane, table, to in zip(crop, self._planes, out, strict=True):
            cv2.LUT(plane, table, dst=to)


class Bench(threading.local):
    """Decoder and buffers of one thread; what makes one crop.

    Parameters
    ----------
    frame_px : side of the stored pictures
    """

    def __init__(self, frame_px: int) -> None:
        self._frame_px = frame_px
        self._decoder = nvimgcodec.Decoder(
            device_id=_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)],
        )
        self._region: Any = None  # nvImageCodec's picture, used again
        self._whole = np.empty((frame_px, frame_px, 3), np.uint8)
        self._wide = np.empty(frame_px * frame_px * 4, np.uint8)
        self._results: dict[int, tuple[Pixels, Pixels, Pixels]] = {}
        self._crops: dict[tuple[int, ...], Pixels] = {}

    def decode(
        self, crops: Crops, i: int, region: npt.NDArray[np.int64]
    ) -> tuple[Pixels, tuple[int, int]]:
        """Decode what a crop touches, or all; valid until the next call in this thread.

        Returns
        -------
        picture (h, w, 3) uint8 RGB, and the x, y of its first pixel in the stored picture
        """
        data = crops.read(i)
        left, top, right, bottom = region.tolist()
        if (right - left) * (bottom - top) < REGION_SHARE * self._frame_px**2:
            stream = nvimgcodec.CodeStream(data)
            part = stream.get_sub_code_stream(region=nvimgcodec.Region(top, left, bottom, right))
            self._region = self._decoder.decode(part, image=self._region, params=_AS_STORED)
            # Where this decoder declines, the whole decode below must tell why.
            if self._region is not None:
                # `np.asarray` would take `__array_interface__`, which leaks 32 bytes each time.
                return self._region.__array__(copy=False), (left, top)
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB", buffer=self._whole)), (0, 0)
        except ValueError as error:
            raise crops.bad(i, f"not decodable: {error}") from error

    def render(
        self, picture: Pixels, origin: tuple[int, int], params: Params, i: int, out: Pixels
    ) -> None:
        """Make crop i of a batch from its decoded region.

        Parameters
        ----------
        picture : (h, w, 3) uint8 RGB, may be written to
        origin : x, y of its first pixel in the stored picture
        params, i : what to do
        out : (3, S, S) or (S, S, 3) uint8, written
        """
        if i in params.occluders:
            occlude(picture, params.occluders[i])
        if i in params.blurs:
            picture = blurred(picture, params.blurs[i])
        height, width = picture.shape[:2]
        wide = self._wide[: height * width * 4].reshape(height, width, 4)
        cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA, dst=wide)
        four, three, spare = self._result(params.out_px)
        cv2.warpAffine(
            wide,
            _shifted(params.index_affine[i], origin),
            (params.out_px, params.out_px),
            dst=four,
            flags=_WARP,
            borderMode=_REPLICATE,
        )
        planar = out.shape[0] == 3
        if not params.colored[i]:
            if planar:
                cv2.split(four, [*out, spare])
            else:
                cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=out)
            return
        cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=three)
        if planar:
            cv2.split(cv2.transform(three, params.color[i], dst=three), list(out))
        else:
            cv2.transform(three, params.color[i], dst=out)

    def crop(self, shape: tuple[int, ...]) -> Pixels:
        """Memory of this thread for a crop, (3, S, S) or (S, S, 3) uint8; always the same."""
        found = self._crops.get(shape)
        if found is None:
            found = self._crops[shape] = np.empty(shape, np.uint8)
        return found

    def _result(self, out_px: int) -> tuple[Pixels, Pixels, Pixels]:
        found = self._results.get(out_px)
        if found is None:
            sizes = ((out_px, out_px, 4), (out_px, out_px, 3), (out_px, out_px))
            four, three, one = (np.empty(size, np.uint8) for size in sizes)
            found = self._results[out_px] = four, three, one
        return found


def _shifted(index_affine: Float, origin: tuple[int, int]) -> Float:
    """Affine into a part of the frame that begins at `origin`."""
    if origin == (0, 0):
        return index_affine
    out = index_affine.copy()
    out[:, 2] -= origin
    return out


@dataclass(frozen=True, slots=True)
class _Half:
    """The crops of one kind of a batch, with their results."""

    crops: Crops
    regions: npt.NDArray[np.int64]  # (B, 4) xyxy, pixels of the stored pictures to decode
    out: npt.NDArray[Any]  # (B, 3, S, S) or (B, S, S, 3) uint8, or `Levels.stored_as`


@dataclass(frozen=True, slots=True)
class Handle:
    """A batch in the making."""

    template: _Half
    search: _Half
    tasks: list[Future[None]]
    bad: dict[int, BadSample]  # by pair


class CpuBackend:
    """See the module.

    Parameters
    ----------
    frame_px : side of the stored pictures
    threads : of the pool; 0: all usable cores
    channels_last : results are (B, S, S, 3) instead of (B, 3, S, S)
    dtype : of the results: uint8, or floats, which are normalised
    """

    def __init__(
        self,
        frame_px: int,
        threads: int = 0,
        channels_last: bool = False,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        cv2.setNumThreads(1)  # the pool is the parallelism
        self._dtype = dtype
        self._levels = Levels(dtype, channels_last) if dtype.is_floating_point else None
        self._channels_last, self._threads = channels_last, threads or usable_cores()
        self._pool = Threads(self._threads, "decode")
        self._bench, self._blocks = Bench(frame_px), Blocks()

    def start(self, work: Work) -> Handle:
        """Queue a task for every thread; they share the pairs out among themselves."""
        z, x = self._half(work.template), self._half(work.search)
        pairs = itertools.count()  # the next pair that nobody has; `next` of it is atomic
        bad: dict[int, BadSample] = {}

        def some() -> None:
            while (i := next(pairs)) < len(work):
                try:
                    self._crop(z, i)
                    self._crop(x, i)
                except BadSample as error:
                    bad[i] = error

        tasks = min(self._threads, len(work))
        return Handle(z, x, [self._pool.submit(some) for _ in range(tasks)], bad)

    def finish(self, handle: Handle, timeout_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Wait for all tasks; of several bad samples that of the first pair is raised."""
        deadline = time.monotonic() + timeout_s
        for task in handle.tasks:
            task.result(max(0.0, deadline - time.monotonic()))
        if handle.bad:
            raise handle.bad[min(handle.bad)]
        last, (z, x) = self._channels_last, (handle.template.out, handle.search.out)
        return as_tensor(z, last).view(self._dtype), as_tensor(x, last).view(self._dtype)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Stop the threads; queued tasks are dropped, one that hangs is left behind."""
        self._pool.stop(timeout_s)

    def _half(self, crops: Crops) -> _Half:
        side = crops.params.out_px
        shape = (side, side, 3) if self._channels_last else (3, side, side)
        kind = self._levels.stored_as if self._levels else np.uint8
        out = self._blocks.array((len(crops), *shape), kind)
        return _Half(crops, crops.params.decoded, out)

    def _crop(self, half: _Half, i: int) -> None:
        picture, origin = self._bench.decode(half.crops, i, half.regions[i])
        out = half.out[i]
        if self._levels is None:
            self._bench.render(picture, origin, half.crops.params, i, out)
            return
        crop = self._bench.crop(out.shape)
        self._bench.render(picture, origin, half.crops.params, i, crop)
        self._levels.look_up(crop, out)
