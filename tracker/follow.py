"""Follow one object through the frames of a video, from its box in the first one.

The network turns a crop around the last box into candidates; `tracker.rules` chooses among them.
What depends on the template alone is computed once, at the start, and never updated. A frame costs
one crop on the device, one pass of the network, and one copy of a few numbers back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.errors import SiamstreamError
from shards.geometry import Float, Grid, boxes_to_regions, crop_region
from tracker.anchors import SEARCH_PX
from tracker.crop import frame_crops
from tracker.models import SPM
from tracker.rules import MatchConfig, TrackConfig, box_window, choose_match

__all__ = ["Followed", "Picture", "Tracker", "TrackingError", "check_start", "make_tracker"]

Picture = npt.NDArray[np.uint8]
Search = Callable[[Tensor], Tensor]  # crop (1,3,255,255) -> what is copied back


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
    model: SPM, *, device: torch.device | str = "cpu", config: TrackConfig | None = None
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
    return MatchTracker(model, device, config.match)


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


class MatchTracker:
    """Rule of SPM and SiamRPN, see `tracker.rules`.

    Parameters
    ----------
    model : in evaluation mode, on the device
    device : of the model
    config : settings
    """

    def __init__(self, model: SPM, device: torch.device | str, config: MatchConfig) -> None:
        self._model, self._device, self._config = model, device, config
        self._grid: Grid = model.config.grid
        self._search: Search | None = None
        self._box: Float = np.zeros(4)

    @torch.inference_mode()
    def start(self, frame: Picture, box: Float) -> None:
        """Begin; see `Tracker`. Raises TrackingError as `check_start` does."""
        check_start(box, frame.shape[:2])
        self._box = np.array(box, np.float64)
        region = crop_region(self._box, SEARCH_PX)
        crop = frame_crops(frame, region[None], self._grid, self._device)
        inner = torch.from_numpy(boxes_to_regions(self._box, region, SEARCH_PX)[None])
        self._search = _spm_search(
            self._model, crop, inner.to(self._device, torch.float32), self._config
        )

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
            box_window(boxes, self._grid),
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
