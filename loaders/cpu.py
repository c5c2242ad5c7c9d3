"""Backend for machines without a GPU: libjpeg-turbo and OpenCV in one pool of threads.

Both release the interpreter's lock, so threads scale and no pixel crosses a process boundary. A
crop that touches less than `REGION_SHARE` of its picture decodes only that region (nvImageCodec's
CPU decoder, the same pixels as a whole decode); above it a whole decode by simplejpeg costs less.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from nvidia import nvimgcodec

from loaders.work import Crops, Pixels, Work, as_tensor
from shards.geometry import Float, index_affine, touched

__all__ = ["REGION_SHARE", "CpuBackend", "usable_cores"]

# Above this share of the picture's pixels, decoding the whole picture is cheaper than the region
# (446x446 at quality 90: region of 255x255 0.60 ms, of 305x305 0.74 ms, whole picture 0.70 ms).
REGION_SHARE = 0.42
_CPU_ONLY = -99999  # nvImageCodec's device number for "no GPU"
_REPLICATE = int(cv2.BORDER_REPLICATE)
_LINEAR = int(cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _Decoders(threading.local):
    """One nvImageCodec decoder a thread; a decoder must not be shared between threads."""

    def __init__(self) -> None:
        self.decoder = nvimgcodec.Decoder(
            device_id=_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)],
        )


@dataclass(frozen=True, slots=True)
class _Half:
    """The crops of one kind of a batch, with their results."""

    crops: Crops
    regions: Float  # (B, 4) int64 xyxy, pixels of the stored picture that the crop touches
    out: Pixels


@dataclass(frozen=True, slots=True)
class Handle:
    """A batch in the making."""

    template: _Half
    search: _Half
    tasks: list[Future[None]]


class CpuBackend:
    """See the module.

    Parameters
    ----------
    frame_px : side of the stored pictures
    threads : of the pool; 0: all usable cores
    channels_last : results are (B, S, S, 3) instead of (B, 3, S, S)
    """

    def __init__(self, frame_px: int, threads: int = 0, channels_last: bool = False) -> None:
        cv2.setNumThreads(1)  # the pool is the parallelism
        self._frame_px, self._channels_last = frame_px, channels_last
        self._pool = ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="decode")
        self._decoders = _Decoders()

    def start(self, work: Work) -> Handle:
        """Queue one task for every pair."""
        z, x = self._half(work.template), self._half(work.search)

        def pair(i: int) -> None:
            self._crop(z, i)
            self._crop(x, i)

        return Handle(z, x, [self._pool.submit(pair, i) for i in range(len(work))])

    def finish(self, handle: Handle, timeout_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Wait for all tasks; the first failure is raised."""
        deadline = time.monotonic() + timeout_s
        for task in handle.tasks:
            task.result(max(0.0, deadline - time.monotonic()))
        last = self._channels_last
        return as_tensor(handle.template.out, last), as_tensor(handle.search.out, last)

    def close(self, wait: bool = True) -> None:
        """Stop the threads; queued tasks are dropped."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _half(self, crops: Crops) -> _Half:
        side, frame = crops.params.out_px, (self._frame_px, self._frame_px)
        shape = (side, side, 3) if self._channels_last else (3, side, side)
        regions = touched(crops.params.frame_from_crop, side, frame)
        return _Half(crops, regions, np.empty((len(crops), *shape), np.uint8))

    def _crop(self, half: _Half, i: int) -> None:
        data = half.crops.read(i)
        left, top, right, bottom = (int(v) for v in half.regions[i])
        picture = None
        if (right - left) * (bottom - top) < REGION_SHARE * self._frame_px**2:
            picture = self._decode_region(data, left, top, right, bottom)
        if picture is None:
            left = top = 0
            picture = _decode_whole(half.crops, i, data)
        picture_from_crop = half.crops.params.frame_from_crop[i].copy()
        picture_from_crop[:, 2] -= left, top
        self._augment(half, i, picture, picture_from_crop)

    def _augment(self, half: _Half, i: int, picture: Any, picture_from_crop: Float) -> None:
        params, out = half.crops.params, half.out[i]
        size = (params.out_px, params.out_px)
        result = cv2.warpAffine(
            picture,
            index_affine(picture_from_crop),
            size,
            dst=out if self._channels_last else None,
            flags=_LINEAR,
            borderMode=_REPLICATE,
        )
        if params.colored[i]:
            result = cv2.transform(result, params.color[i])
        if not self._channels_last:
            cv2.split(result, list(out))
        elif result is not out:
            out[:] = result

    def _decode_region(
        self, data: memoryview, left: int, top: int, right: int, bottom: int
    ) -> Any | None:
        """Region of a picture; None where this decoder declines, and the whole decode must tell."""
        stream = nvimgcodec.CodeStream(data)
        region = nvimgcodec.Region(top, left, bottom, right)
        image = self._decoders.decoder.decode(stream.get_sub_code_stream(region=region))
        return None if image is None else np.asarray(image)


def _decode_whole(crops: Crops, i: int, data: memoryview) -> Pixels:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError as error:
        raise crops.bad(i, f"not decodable: {error}") from error
