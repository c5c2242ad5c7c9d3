"""Backends on NVIDIA DALI: one graph, on the GPU (``dali``) or on the CPU (``dali-cpu``).

Region decode, then one warp and one colour matrix a crop; everything random was drawn before. The
graph is fed and run explicitly, one batch for every `start`, so it never asks for more than was
planned.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simplejpeg
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from loaders.work import Crops, Work, as_tensor
from shards.errors import BadSample, SiamstreamError, StorageError
from shards.geometry import touched

__all__ = ["DaliBackend"]

_INPUTS = ("encoded", "anchor", "shape", "matrix", "color", "offset")


@dataclass(eq=False, slots=True)
class Handle:
    """A batch that was given to the graph; its results, or its failure, once it was taken out."""

    work: Work
    inputs: dict[str, Any]
    result: tuple[torch.Tensor, torch.Tensor] | None = None
    error: SiamstreamError | None = None
    retried: bool = False


def _branch(prefix: str, out_px: int, gpu: bool, channels_last: bool) -> Any:
    """Part of the graph that makes the crops of one kind."""
    encoded, anchor, shape, matrix, color, offset = (
        fn.external_source(name=f"{prefix}_{name}", no_copy=False) for name in _INPUTS
    )
    picture = fn.decoders.image_slice(
        encoded,
        anchor,
        shape,
        device="mixed" if gpu else "cpu",
        axis_names="HW",
        normalized_anchor=False,
        normalized_shape=False,
        output_type=types.RGB,
    )
    # Without a fill value the edge pixels go on outside the picture, as in the other backends.
    crop = fn.warp_affine(
        picture, matrix=matrix, size=(out_px, out_px), interp_type=types.INTERP_LINEAR
    )
    crop = fn.coord_transform(crop, M=color, T=offset, dtype=types.UINT8)
    return crop if channels_last else fn.transpose(crop, perm=[2, 0, 1])


class DaliBackend:
    """See the module.

    Parameters
    ----------
    frame_px : side of the stored pictures
    template_px, search_px : sides of the results
    max_batch : most pairs of one batch
    device_id : CUDA device, or None for DALI's CPU operators
    threads : of the graph
    prefetch : batches that may be under way
    channels_last : memory layout of the results
    """

    def __init__(
        self,
        *,
        frame_px: int,
        template_px: int,
        search_px: int,
        max_batch: int,
        device_id: int | None,
        threads: int,
        prefetch: int,
        channels_last: bool = False,
    ) -> None:
        self._frame_px, self._channels_last = frame_px, channels_last
        self._sides, self._most_pending = (template_px, search_px), prefetch
        self._build = partial(
            Pipeline,
            batch_size=max_batch,
            num_threads=threads,
            device_id=device_id,
            prefetch_queue_depth=prefetch,
            exec_pipelined=False,  # else the first run asks for `prefetch` batches at once
        )
        gpu = device_id is not None
        self._copies: Any = torch.cuda.Stream(device_id) if gpu else None  # type: ignore[no-untyped-call]
        self._pipe = self._graph()
        self._pending: deque[Handle] = deque()
        self._lock = threading.Lock()  # `start` runs in the planner's thread

    def _graph(self) -> Any:
        pipe = self._build()
        with pipe:
            pipe.set_outputs(
                *(
                    _branch(prefix, side, self._copies is not None, self._channels_last)
                    for prefix, side in zip("zx", self._sides, strict=True)
                )
            )
        pipe.build()
        return pipe

    def start(self, work: Work) -> Handle:
        """Feed a batch to the graph; if it is full, take out the oldest result first."""
        inputs = {
            f"{prefix}_{name}": values
            for prefix, crops in (("z", work.template), ("x", work.search))
            for name, values in self._inputs(crops).items()
        }
        handle = Handle(work, inputs)
        with self._lock:
            while len(self._pending) >= self._most_pending:
                self._collect()
            self._feed(handle)
            self._pending.append(handle)
        return handle

    def finish(
        self,
        handle: Handle,
        timeout_s: float,  # noqa: ARG002 (DALI's wait has no limit of its own)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Results of a batch, in the order of `start`."""
        with self._lock:
            while handle.result is None and handle.error is None:
                self._collect()
        if handle.result is None:
            assert handle.error is not None
            raise handle.error
        return handle.result

    def close(self, wait: bool = True) -> None:
        """Take out what is under way, and let go of the graph."""
        if wait:
            with self._lock:
                while self._pending:
                    self._collect()
                self._pipe = None

    def _feed(self, handle: Handle) -> None:
        for name, values in handle.inputs.items():
            self._pipe.feed_input(name, values)
        self._pipe.schedule_run()

    def _collect(self) -> None:
        """Take the oldest batch out of the graph. The lock is held.

        One picture that cannot be decoded makes DALI give up the whole graph: it is built anew for
        the other batches, and the sample is named when its own batch is asked for.
        """
        handle = self._pending.popleft()
        try:
            z, x = (self._tensor(output) for output in self._pipe.share_outputs())
            self._pipe.release_outputs()
        except RuntimeError as error:
            handle.error = _blame(handle.work)
            if handle.error is None and handle.retried:
                first_line = str(error).strip().splitlines()[0]
                handle.error = StorageError(f"DALI failed on readable pictures: {first_line}")
            elif handle.error is None:  # the failure of a later batch
                handle.retried = True
                self._pending.appendleft(handle)
            self._pipe = self._graph()
            for pending in self._pending:
                self._feed(pending)
        else:
            handle.result = z, x
            handle.inputs = {}

    def _inputs(self, crops: Crops) -> dict[str, Any]:
        params = crops.params
        regions = touched(params.frame_from_crop, params.out_px, (self._frame_px, self._frame_px))
        matrix = params.frame_from_crop.copy()
        matrix[:, :, 2] -= regions[:, :2]
        low, size = regions[:, 1::-1], (regions[:, 2:] - regions[:, :2])[:, ::-1]
        return {
            "encoded": [np.frombuffer(crops.read(i), np.uint8) for i in range(len(crops))],
            "anchor": np.ascontiguousarray(low, np.int32),
            "shape": np.ascontiguousarray(size, np.int32),
            "matrix": matrix.astype(np.float32),
            "color": np.ascontiguousarray(params.color[:, :, :3], np.float32),
            "offset": np.ascontiguousarray(params.color[:, :, 3], np.float32),
        }

    def _tensor(self, output: Any) -> torch.Tensor:
        """Copy of one output; the graph's own memory is used again for the next batch."""
        if self._copies is None:
            return as_tensor(output.as_array().copy(), self._channels_last)
        # On a stream of its own: waiting for this copy must not wait for the training step.
        with torch.cuda.stream(self._copies):
            tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
        self._copies.synchronize()
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
        return tensor.permute(0, 3, 1, 2) if self._channels_last else tensor


def _blame(work: Work) -> BadSample | None:
    """Error of the first picture of a batch that another decoder refuses too."""
    for crops in (work.template, work.search):
        for i in range(len(crops)):
            try:
                simplejpeg.decode_jpeg(crops.read(i), "RGB")
            except BadSample as error:
                return error
            except ValueError as error:
                return crops.bad(i, f"not decodable: {error}")
    return None
