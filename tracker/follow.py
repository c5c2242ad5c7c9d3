"""Follow one object through the frames of a video, from its box in the first one.

The network turns a crop around the last box into candidates; `tracker.rules` chooses among them.
What depends on the template alone is computed once, at the start, and never updated. A frame costs
one crop on the device, one pass of the network, and one copy of a few numbers back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.errors import SiamstreamError
from shards.geometry import Float, Grid, boxes_to_regions, crop_region
from tracker.anchors import SEARCH_PX
from tracker.crop import frame_crops
from tracker.labels import decode
from tracker.models import TrackerModel
from tracker.rules import (
    SCALES,
    MatchConfig,
    ScaleConfig,
    TrackConfig,
    box_window,
    cell_window,
    choose_match,
    choose_scale,
    map_window,
    scale_peak,
    scale_regions,
)
from tracker.siamfc import SiamFC
from tracker.siamrpn import SiamRPN
from tracker.spm import SPM

__all__ = [
    "Followed",
    "Picture",
    "Tracker",
    "TrackingError",
    "check_start",
    "make_tracker",
    "torch_device",
]

Picture = npt.NDArray[np.uint8]
Search = Callable[[Tensor], Tensor]  # crops (N,3,255,255) -> what is copied back


class TrackingError(SiamstreamError):
    """There is nothing to follow at the start, or the network's numbers are not finite."""


class Followed(NamedTuple):
    """``box`` (4,) float64 xyxy, frame pixels (edge coordinates); ``score``, about 0..1.

    The score of SPM and SiamRPN is the penalised one that is compared with ``match.min_score``, so
    the box stood still where it is below; SiamFC's is the probability of the best response.
    """

    box: npt.NDArray[np.floating[Any]]
    score: float


class Tracker(Protocol):
    """Something that follows: `start` on the first frame, then `step` on each further one."""

    def start(self, frame: Picture, box: npt.NDArray[np.floating[Any]]) -> None:
        """Begin with a frame (H,W,3) uint8 RGB and the box (4,) xyxy of the object in it."""
        ...

    def step(self, frame: Picture) -> Followed:
        """Find the object in the next frame."""
        ...


def make_tracker(
    model: TrackerModel,
    *,
    device: torch.device | str = "cpu",
    config: TrackConfig | None = None,
) -> Tracker:
    """Tracker by the rule of a model.

    Parameters
    ----------
    model : moved to the device, in place, and switched to evaluation mode
    device : where crops and network run
    config : settings; those that the model carries if None

    Returns
    -------
    Tracker, for any number of videos, one after another
    """
    model.to(device).eval()
    config = model.config.track if config is None else config
    match model:
        case SPM():
            return MatchTracker(model, device, config.match, partial(_spm_search, model))
        case SiamRPN():
            return MatchTracker(model, device, config.match, partial(_siamrpn_search, model))
        case SiamFC():
            return ScaleTracker(model, device, config.scale)


def check_start(box: Float, frame_hw: tuple[int, int]) -> None:
    """Refuse a start box that shows nothing; one that leaves the frame in part is welcome.

    Parameters
    ----------
    box : (4,) xyxy, frame pixels
    frame_hw : height and width of the first frame

    Raises
    ------
    TrackingError : if it is not finite, has no area, or lies outside the frame
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    height, width = frame_hw
    shown = f"start box x {x0:g}, y {y0:g}, width {x1 - x0:g}, height {y1 - y0:g}"
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise TrackingError(f"{shown}: four finite numbers are needed")
    if x1 <= x0 or y1 <= y0:
        raise TrackingError(f"{shown}: width and height must be positive")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise TrackingError(f"{shown}: outside the first frame of {width}x{height} pixels")


def torch_device(name: str) -> torch.device:
    """Device by the name of an option: ``auto`` is CUDA where there is a GPU, else the CPU.

    Raises
    ------
    TrackingError : if CUDA is asked for and there is none
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrackingError(f"device {name}: no CUDA device here; use auto or cpu")
    return torch.device(name)


class MatchTracker:
    """Rule of SPM and SiamRPN, see `tracker.rules`.

    Parameters
    ----------
    model : in evaluation mode, on the device
    device : of the model
    config : settings
    prepare : makes the search of one video from the crop of the template, the start box in it, and
        the settings
    """

    def __init__(
        self,
        model: SPM | SiamRPN,
        device: torch.device | str,
        config: MatchConfig,
        prepare: Callable[[Tensor, Tensor, MatchConfig], Search],
    ) -> None:
        self._device, self._config, self._prepare = device, config, prepare
        self._grid: Grid = model.config.grid
        # SiamRPN weighs an anchor's cell, SPM the middle of the box that came out.
        self._cells = cell_window() if isinstance(model, SiamRPN) else None
        self._search: Search | None = None
        self._box: Float = np.zeros(4)

    @torch.inference_mode()
    def start(self, frame: Picture, box: Float) -> None:
        """Begin; see `Tracker`. Raises TrackingError as `check_start` does."""
        self._box, region, crop = _template(frame, box, self._grid, self._device)
        inner = torch.from_numpy(boxes_to_regions(self._box, region, SEARCH_PX)[None])
        self._search = self._prepare(crop, inner.to(self._device, torch.float32), self._config)

    @torch.inference_mode()
    def step(self, frame: Picture) -> Followed:
        """Find the object in the next frame; raises TrackingError if the network fails."""
        search = _started(self._search)
        region = crop_region(self._box, SEARCH_PX)
        crop = frame_crops(frame, region[None], self._grid, self._device)
        found = _on_host(search(crop))
        found = found[found[:, 5] > 0]
        boxes, scores = found[:, :4], found[:, 4]
        choice = choose_match(
            boxes,
            scores,
            box_window(boxes, self._grid) if self._cells is None else self._cells,
            region=region,
            last=self._box,
            frame_hw=frame.shape[:2],
            config=self._config,
        )
        self._box = choice.box
        return Followed(choice.box.copy(), choice.score)


def _spm_search(model: SPM, template: Tensor, box: Tensor, config: MatchConfig) -> Search:
    """SPM's candidates for a template: proposals, refined and judged by both stages.

    The result of the function is (N,6) float32: box xyxy in the search crop, score, and 1, or 0
    where suppression left fewer than N.
    """
    z = model.features(template)
    kernels, part = model.kernels(z), model.template_part(z, box)

    def search(crop: Tensor) -> Tensor:
        x = model.features(crop)
        proposals = model.propose(model.coarse(kernels, x), config.proposals)
        logits, deltas = model.fine(part, x, proposals.boxes)
        fine = logits.float().softmax(dim=-1)[..., 1]
        score = config.fine_weight * fine + (1 - config.fine_weight) * proposals.scores
        boxes = model.refine(proposals.boxes, deltas)
        return torch.cat([boxes, score[..., None], proposals.valid[..., None]], dim=-1)[0]

    return search


def _siamrpn_search(
    model: SiamRPN,
    template: Tensor,
    box: Tensor,  # noqa: ARG001 (the middle of the crop is what is looked for)
    config: MatchConfig,  # noqa: ARG001
) -> Search:
    """SiamRPN's candidates for a template: the boxes of all anchors, without suppression.

    The result of the function is (1445,6) float32, in the layout of `_spm_search`.
    """
    kernels = model.kernels(model.features(template))

    def search(crop: Tensor) -> Tensor:
        maps = model.coarse(kernels, model.features(crop))
        boxes = decode(model.anchors, maps.deltas)
        score = maps.logits.float().softmax(dim=-1)[..., 1:]
        return torch.cat([boxes, score, torch.ones_like(score)], dim=-1)[0]

    return search


class ScaleTracker:
    """Rule of SiamFC, see `tracker.rules`: three crops a frame, one batch.

    Parameters
    ----------
    model : in evaluation mode, on the device
    device : of the model
    config : settings
    """

    def __init__(self, model: SiamFC, device: torch.device | str, config: ScaleConfig) -> None:
        self._model, self._device, self._config = model, device, config
        self._grid: Grid = model.config.grid
        self._window = map_window(config.upsample).to(device)
        self._search: Search | None = None
        self._box: Float = np.zeros(4)
        self._start_size: Float = np.zeros(2)

    @torch.inference_mode()
    def start(self, frame: Picture, box: Float) -> None:
        """Begin; see `Tracker`. Raises TrackingError as `check_start` does."""
        self._box, _, crop = _template(frame, box, self._grid, self._device)
        self._start_size = self._box[2:] - self._box[:2]
        model = self._model
        # One template for the crops of all scales.
        kernels = model.kernels(model.features(crop)).expand(len(SCALES), -1, -1, -1)

        def search(crops: Tensor) -> Tensor:
            responses = model.response(kernels, model.features(crops))
            return scale_peak(responses, self._window, self._config)

        self._search = search

    @torch.inference_mode()
    def step(self, frame: Picture) -> Followed:
        """Find the object in the next frame; raises TrackingError if the network fails."""
        search = _started(self._search)
        regions = scale_regions(self._box, self._config.step)
        crops = frame_crops(frame, regions, self._grid, self._device)
        index, row, column, score = _on_host(search(crops)).tolist()
        region = regions[int(index)]
        self._box = choose_scale(
            (column, row),
            SCALES[int(index)],
            region=region,
            last=self._box,
            start_size=self._start_size,
            grid=self._grid,
            config=self._config,
        )
        return Followed(self._box.copy(), score)


def _template(
    frame: Picture, box: Float, grid: Grid, device: torch.device | str
) -> tuple[Float, Float, Tensor]:
    """Start box as float64, its region in the first frame, and the crop of that (1,3,255,255)."""
    check_start(box, frame.shape[:2])
    start = np.array(box, np.float64)
    region = crop_region(start, SEARCH_PX)
    return start, region, frame_crops(frame, region[None], grid, device)


def _started(search: Search | None) -> Search:
    if search is None:
        raise RuntimeError("start() comes before step()")
    return search


def _on_host(numbers: Tensor) -> Float:
    """Copy the one result of a frame from the device: float64, and finite."""
    found = numbers.cpu().numpy().astype(np.float64)
    if not np.isfinite(found).all():
        raise TrackingError(
            "the network's output is not finite: its weights are damaged or its training diverged"
        )
    return found
