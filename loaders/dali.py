"""Backends on NVIDIA DALI: one graph, on the GPU (``dali``) or on the CPU (``dali-cpu``).

Region decode; occlusion and blur of the samples concerned, where the recipe has them; then one warp
and one colour matrix a crop. Everything random was drawn before. The graph is fed and run
explicitly, one batch for every `start`, so it never asks for more than was planned.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali import math as dali_math
from nvidia.dali.tensors import TensorCPU, TensorListCPU

from loaders.batch import as_tensor
from loaders.config import DaliConfig
from loaders.recipe import Half, Params, Recipe
from loaders.work import CLOSE_S, Crops, Work
from shards.errors import BadSample, SiamstreamError, StorageError

__all__ = ["DaliBackend", "decode", "region_inputs"]

_REGION = ("encoded", "anchor", "shape")  # what the decoder is given
_WHOLE = ("encoded",)
_INPUTS = ("matrix", "color", "offset")
_OCCLUSION = ("occluded", "box_anchor", "box_shape", "alpha", "is_patch", "fill", "patch_matrix")
_BLUR = ("blurred", "kernel", "small_px")
_KERNEL, _DOWN_UP = 1, 2  # values of ``blurred``


@dataclass(eq=False, slots=True)
class Handle:
    """A batch that was given to the graph; its results, or its failure, once it was taken out."""

    work: Work
    inputs: dict[str, Any]
    result: tuple[torch.Tensor, torch.Tensor] | None = None
    error: SiamstreamError | None = None


def _halves(work: Work) -> tuple[tuple[Half, Crops], tuple[Half, Crops]]:
    return ("z", work.template), ("x", work.search)


def _inputs(prefix: str, names: tuple[str, ...]) -> list[Any]:
    # Not copied: a `Handle` holds the arrays until the results are taken out.
    return [fn.external_source(name=f"{prefix}_{name}", no_copy=True) for name in names]


def _fed(values: Any) -> Any:
    """What DALI takes at once: of arrays it looks at each one several times, which costs more.

    Parameters
    ----------
    values : an array for the batch, or a list of one for each sample; both must be held by others
    """
    if isinstance(values, list):
        return [TensorCPU(one) for one in values]
    return TensorListCPU(values)


def _occlude(picture: Any, inputs: list[Any], gpu: bool) -> Any:
    """Cover a rectangle of whole pictures; a part of the graph for the samples concerned."""
    anchor, shape, alpha, is_patch, fill, matrix = inputs
    pixels = fn.cast(picture, dtype=types.FLOAT)
    inside = fn.erase(pixels * 0.0, anchor=anchor, shape=shape, axis_names="HW", fill_value=1.0)
    if is_patch:
        layer = fn.warp_affine(pixels, matrix=matrix, interp_type=types.INTERP_LINEAR)
    else:
        offset = fill.gpu() if gpu else fill
        layer = pixels * 0.0 + (fn.reductions.mean(pixels, axes=(0, 1)) + offset)
    weight = inside * (alpha.gpu() if gpu else alpha)
    blend = pixels * (1.0 - weight) + layer * weight
    # The blend is cut to whole levels; what is outside the rectangle stays as it is.
    blend = dali_math.floor(dali_math.clamp(blend, 0.0, 255.0))
    return fn.cast(blend * inside + pixels * (1.0 - inside), dtype=types.UINT8)


def _blur(picture: Any, blurred: Any, kernel: Any, small_px: Any, frame_px: int) -> Any:
    if blurred == _KERNEL:
        out = fn.filter(picture, kernel, border="clamp")
    else:
        linear = {"interp_type": types.INTERP_LINEAR, "antialias": False}
        small = fn.resize(picture, resize_x=small_px, resize_y=small_px, **linear)
        out = fn.resize(small, resize_x=frame_px, resize_y=frame_px, **linear)
    return out


def decode(inputs: list[Any], gpu: bool, config: DaliConfig) -> Any:
    """Part of a graph that decodes.

    Parameters
    ----------
    inputs : nodes: pictures, and with ``region`` the low corner and size (H, W) of each region
    gpu : on the GPU, else on the CPU
    config : whether regions or whole pictures come out
    """
    options = {
        "device": "mixed" if gpu else "cpu",
        "output_type": types.RGB,
        "adjust_orientation": False,  # boxes lie on the pixels as they are stored
        "hw_decoder_load": config.hw_decoder_load,
    }
    if gpu:  # the CPU's decoder always interpolates
        options["jpeg_fancy_upsampling"] = config.fancy_upsampling
    if not config.region:
        return fn.decoders.image(*inputs, **options)
    return fn.decoders.image_slice(
        *inputs,
        axis_names="HW",
        normalized_anchor=False,
        normalized_shape=False,
        **options,
    )


def region_inputs(regions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int32]]:
    """Low corners and sizes (B, 2), rows before columns, of regions (B, 4) xyxy."""
    size = regions[:, 2:] - regions[:, :2]
    return {
        "anchor": np.ascontiguousarray(regions[:, 1::-1], np.int32),
        "shape": np.ascontiguousarray(size[:, ::-1], np.int32),
    }


def _branch(
    prefix: Half,
    recipe: Recipe,
    out_px: int,
    frame_px: int,
    gpu: bool,
    channels_last: bool,
    config: DaliConfig,
) -> Any:
    """Part of the graph that makes the crops of one kind."""
    matrix, color, offset = _inputs(prefix, _INPUTS)
    picture = decode(_inputs(prefix, _REGION if config.region else _WHOLE), gpu, config)
    if recipe.has("occlusion", prefix):
        occluded, *facts = _inputs(prefix, _OCCLUSION)
        if occluded:
            picture = _occlude(picture, facts, gpu)
    if recipe.has("blur", prefix):
        blurred, kernel, small_px = _inputs(prefix, _BLUR)
        if blurred > 0:
            picture = _blur(picture, blurred, kernel, small_px, frame_px)
    # Without a fill value the edge pixels go on outside the picture, as in the other backends.
    crop = fn.warp_affine(
        picture, matrix=matrix, size=(out_px, out_px), interp_type=types.INTERP_LINEAR
    )
    crop = fn.coord_transform(crop, M=color, T=offset, dtype=types.UINT8)
    return crop if channels_last else fn.transpose(crop, perm=[2, 0, 1])


def _occlusion_inputs(params: Params, count: int) -> dict[str, Any]:
    """Values of `_OCCLUSION`, zeros for the samples that are not concerned."""
    facts: dict[str, Any] = {
        "occluded": np.zeros(count, np.bool_),
        "box_anchor": np.zeros((count, 2), np.float32),
        "box_shape": np.ones((count, 2), np.float32),
        "alpha": np.zeros(count, np.float32),
        "is_patch": np.zeros(count, np.bool_),
        "fill": np.zeros((count, 3), np.float32),
        "patch_matrix": np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
    }
    for i, occluder in params.occluders.items():
        x0, y0, x1, y1 = occluder.box
        facts["occluded"][i], facts["alpha"][i] = True, occluder.alpha
        facts["box_anchor"][i], facts["box_shape"][i] = (y0, x0), (y1 - y0, x1 - x0)
        if occluder.offset is not None:
            facts["fill"][i] = occluder.offset
        else:
            facts["is_patch"][i] = True
            matrix = occluder.picture_from_patch()
            matrix[:, 2] -= matrix[:, :2] @ (x0, y0)  # the layer is as large as the picture
            facts["patch_matrix"][i] = matrix
    return facts


def _blur_inputs(params: Params, count: int) -> dict[str, Any]:
    """Values of `_BLUR`; a kernel of one pixel for the samples that are not concerned."""
    blurred = np.zeros(count, np.int32)
    kernels, small_px = [np.ones((1, 1), np.float32)] * count, np.ones(count, np.float32)
    for i, step in params.blurs.items():
        blurred[i] = _DOWN_UP if step.kernel is None else _KERNEL
        if step.kernel is None:
            small_px[i] = step.small_px
        else:
            kernels[i] = step.kernel
    return {"blurred": blurred, "kernel": kernels, "small_px": small_px}


class DaliBackend:
    """See the module.

    Parameters
    ----------
    recipe : which optional steps there may be
    frame_px : side of the stored pictures
    template_px, search_px : sides of the results
    max_batch : most pairs of one batch
    device_id : CUDA device, or None for DALI's CPU operators
    threads : of the graph
    prefetch : batches that may be under way
    channels_last : memory layout of the results
    config : how it decodes
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        frame_px: int,
        template_px: int,
        search_px: int,
        max_batch: int,
        device_id: int | None,
        threads: int,
        prefetch: int,
        channels_last: bool = False,
        config: DaliConfig | None = None,
    ) -> None:
        gpu, config = device_id is not None, config or DaliConfig()
        self._recipe, self._channels_last = recipe, channels_last
        self._decoded = names = _REGION if config.region else _WHOLE
        self._most_pending = prefetch

        @pipeline_def(  # type: ignore[untyped-decorator]
            enable_conditionals=True,
            batch_size=max_batch,
            num_threads=threads,
            device_id=device_id,
            prefetch_queue_depth=prefetch,
            exec_pipelined=False,  # else the first run asks for `prefetch` batches at once
        )
        def graph() -> Any:
            return (
                _branch("z", recipe, template_px, frame_px, gpu, channels_last, config),
                _branch("x", recipe, search_px, frame_px, gpu, channels_last, config),
            )

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=1, num_threads=1, device_id=device_id, exec_pipelined=False
        )
        def decoder() -> Any:
            inputs = [fn.external_source(name=name, no_copy=False) for name in names]
            return decode(inputs, gpu, config)

        self._graph, self._decoder = graph, decoder
        self._copies: Any = torch.cuda.Stream(device_id) if gpu else None  # type: ignore[no-untyped-call]
        self._pipe = self._built()
        self._pending: deque[Handle] = deque()
        self._lock = threading.Lock()  # `start` runs in the planner's thread

    def _built(self) -> Any:
        pipe = self._graph()
        pipe.build()
        return pipe

    def start(self, work: Work) -> Handle:
        """Feed a batch to the graph; if it is full, take out the oldest result first."""
        inputs = {
            f"{prefix}_{name}": values
            for prefix, crops in _halves(work)
            for name, values in self._inputs(prefix, crops).items()
        }
        handle = Handle(work, inputs)
        with self._lock:
            while len(self._pending) >= self._most_pending:
                self._collect()
            try:
                self._feed(handle)
            except BaseException:
                self._pipe = self._built()  # some inputs hold what goes with this handle
                for pending in self._pending:
                    self._feed(pending)
                raise
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
        for tensor in handle.result if self._copies is not None else ():
            # Here, in the consumer's thread: its stream is the one that reads them.
            tensor.record_stream(torch.cuda.current_stream(tensor.device))
        return handle.result

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Take out what is under way, and let go of the graph."""
        if timeout_s > 0 and self._lock.acquire(timeout=timeout_s):
            try:
                while self._pending:
                    self._collect()
                self._pipe = None
            finally:
                self._lock.release()

    def _feed(self, handle: Handle) -> None:
        for name, values in handle.inputs.items():
            self._pipe.feed_input(name, _fed(values))
        self._pipe.schedule_run()

    def _collect(self) -> None:
        """Take the oldest batch out of the graph. The lock is held.

        One picture that cannot be decoded makes DALI give up the whole graph, whatever else is in
        it. It is built anew and given the oldest batch alone, which tells whether the picture is in
        that, and then the others. The sample is named when its own batch is asked for.
        """
        # It is held until the graph is done with its arrays, which are not copied.
        handle = self._pending[0]
        if handle.result is not None:  # an interrupt came between the last two lines
            self._pending.popleft()
            return
        try:
            handle.result = self._take()
        except RuntimeError:
            self._pipe = self._built()
            self._feed(handle)
            try:
                handle.result = self._take()
            except RuntimeError as error:
                handle.error = self._blame(handle) or StorageError(
                    f"DALI failed on pictures that it can decode: {_reason(error)}"
                )
                self._pipe = self._built()
            for pending in list(self._pending)[1:]:
                self._feed(pending)
        self._pending.popleft().inputs = {}

    def _take(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Results of the oldest batch in the graph."""
        z, x = (self._tensor(output) for output in self._pipe.share_outputs())
        self._pipe.release_outputs()
        return z, x

    def _blame(self, handle: Handle) -> BadSample | None:
        """Error of the first picture of a batch that the graph's decoder refuses when alone."""
        alone = self._decoder()
        for prefix, crops in _halves(handle.work):
            for i in range(len(crops)):
                for name in self._decoded:
                    alone.feed_input(name, [handle.inputs[f"{prefix}_{name}"][i]])
                try:
                    alone.run()
                except RuntimeError as error:
                    return crops.bad(i, f"not decodable: {_reason(error)}")
        return None

    def _inputs(self, prefix: Half, crops: Crops) -> dict[str, Any]:
        params = crops.params
        matrix = params.frame_from_crop.copy()
        inputs: dict[str, Any] = {
            "encoded": [np.frombuffer(crops.read(i), np.uint8) for i in range(len(crops))]
        }
        if "anchor" in self._decoded:
            inputs |= region_inputs(params.decoded)
            matrix[:, :, 2] -= params.decoded[:, :2]
        inputs |= {
            "matrix": matrix.astype(np.float32),
            "color": np.ascontiguousarray(params.color[:, :, :3], np.float32),
            "offset": np.ascontiguousarray(params.color[:, :, 3], np.float32),
        }
        if self._recipe.has("occlusion", prefix):
            inputs |= _occlusion_inputs(params, len(crops))
        if self._recipe.has("blur", prefix):
            inputs |= _blur_inputs(params, len(crops))
        return inputs

    def _tensor(self, output: Any) -> torch.Tensor:
        """Copy of one output; the graph's own memory is used again for the next batch."""
        if self._copies is None:
            return as_tensor(output.as_array().copy(), self._channels_last)
        # On a stream of its own: waiting for this copy must not wait for the training step.
        with torch.cuda.stream(self._copies):
            tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
        self._copies.synchronize()
        return tensor.permute(0, 3, 1, 2) if self._channels_last else tensor


def _reason(error: RuntimeError) -> str:
    """First line of what went wrong in an operator, without where in the graph that was."""
    text = str(error).rpartition("encountered:")[2].strip() or type(error).__name__
    return text.splitlines()[0]
