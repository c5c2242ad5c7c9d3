"""Pictures of a run: pairs with the true box and the one that the model finds, side by side.

The model looks at a pair as it does when it tracks, but without the rules that know the frame
before: no cosine window, no penalty for a change of size or shape. Looking leaves no trace in the
training: no random number is drawn, no running statistic moves, every module is in the mode that
it was in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from shards.console import warn
from shards.draw import OTHER_RGB, TARGET_RGB, Tile, sheet
from shards.errors import StorageError
from shards.geometry import Float, anchor_origin
from shards.pixels import MEAN_RGB, STD_RGB, Picture
from shards.sink import FolderSink
from tracker.anchors import CELLS, SEARCH_PX
from tracker.labels import decode, iou
from tracker.models import TrackerModel
from tracker.rules import map_step_px
from tracker.siamfc import SiamFC
from tracker.siamrpn import SiamRPN
from tracker.spm import SPM

__all__ = ["PAIRS", "Board", "Found", "draw_pairs", "keep", "pairs_sheet", "predict"]

PAIRS = 8  # of a sheet
FOUND_RGB = (255, 70, 70)
_COLUMNS = 4  # two pairs a row


class Found(NamedTuple):
    """``boxes`` (B,4) float32 xyxy, pixels of the search crops; ``scores`` (B,) float32, 0..1."""

    boxes: Tensor
    scores: Tensor


class Board(Protocol):
    """What is needed of TensorBoard's writer."""

    def add_image(self, name: str, pixels: Any, step: int, /, *, dataformats: str) -> object:
        """Add a picture at a step."""


def predict(
    model: TrackerModel,
    template: Tensor,
    search: Tensor,
    template_box: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> Found:
    """Best box of each pair by the model's own score, without window or penalty.

    SPM: the best of its proposals, refined by the fine stage; SiamRPN: the best of its anchors;
    SiamFC: the peak of its response, with the size of the object in the template.

    Parameters
    ----------
    model : itself, not in DistributedDataParallel: other ranks take no part. Any device, any mode;
        compiled parts run without being compiled for this
    template, search : (B,3,255,255) float, normalised RGB, on the model's device
    template_box : (B,4) float xyxy, pixels of the template crop
    dtype : of the training's autocast; float32: none

    Returns
    -------
    Found, on the model's device; not finite where the model's output is not
    """
    lowered = dtype is not torch.float32
    with (
        _looking(model),
        torch.inference_mode(),
        torch.compiler.set_stance("force_eager"),
        torch.autocast(search.device.type, dtype, enabled=lowered, cache_enabled=False),
    ):
        z, x = model.features(template), model.features(search)
        match model:
            case SPM():
                found = _best_proposal(model, z, x, template_box.float())
            case SiamRPN():
                maps = model.coarse(model.kernels(z), x)
                scores = maps.logits.float().softmax(dim=-1)[..., 1]
                found = _best(decode(model.anchors, maps.deltas), scores)
            case SiamFC():
                size = template_box[:, 2:].float() - template_box[:, :2].float()
                found = _peak(model, model.response(model.kernels(z), x).float(), size)
    return found


def _best_proposal(
    model: SPM, z: dict[str, Tensor], x: dict[str, Tensor], template_box: Tensor
) -> Found:
    """Proposals and weights of both stages are those of tracking."""
    rule = model.config.track.match
    proposals = model.propose(model.coarse(model.kernels(z), x), rule.proposals)
    logits, deltas = model.fine(model.template_part(z, template_box), x, proposals.boxes)
    fine = logits.float().softmax(dim=-1)[..., 1]
    scores = rule.fine_weight * fine + (1 - rule.fine_weight) * proposals.scores
    scores = scores.masked_fill(~proposals.valid, -1.0)
    return _best(model.refine(proposals.boxes, deltas), scores)


def _best(boxes: Tensor, scores: Tensor) -> Found:
    """Of boxes (B,N,4) and scores (B,N) the best."""
    value, index = scores.max(dim=1)
    return Found(boxes.gather(1, index[:, None, None].expand(-1, 1, 4))[:, 0], value)


def _peak(model: SiamFC, response: Tensor, size: Tensor) -> Found:
    """Box of a size (B,2) at the highest place of a response (B,17,17), enlarged as in tracking."""
    upsample, grid = model.config.track.scale.upsample, model.config.grid
    side = CELLS * upsample
    large = F.interpolate(response[:, None], (side, side), mode="bicubic", align_corners=True)
    value, place = large.flatten(1).max(dim=1)
    cell = torch.stack([place % side, place // side], dim=-1).float()  # column, row
    centre = (cell - (side - 1) / 2) * map_step_px(upsample, grid) + anchor_origin(SEARCH_PX, grid)
    return Found(torch.cat([centre - size / 2, centre + size / 2], dim=-1), value.sigmoid())


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own: normalisation may be kept in another."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def draw_pairs(
    template: Tensor,
    search: Tensor,
    template_box: Tensor,
    search_box: Tensor,
    positive: Tensor,
    found: Found,
    *,
    sample: Tensor | None = None,
) -> Picture:
    """Draw pairs on a sheet, template and search crop side by side, two pairs a row.

    The true box is green, the model's red; in a negative pair the box of the other object, which
    the model should not find, is yellow.

    Parameters
    ----------
    template, search : (B,3,S,S), uint8 RGB or floats of normalised RGB; the first `PAIRS` are drawn
    template_box, search_box : (B,4) float xyxy, pixels of the crop
    positive : (B,) bool, both crops show one object
    found : the model's boxes and scores
    sample : (B,) int64, numbers of the pairs in the epoch

    Returns
    -------
    (H,W,3) uint8 RGB

    Raises
    ------
    ValueError : without pairs
    """
    count = min(PAIRS, len(search))
    overlap = iou(found.boxes.float(), search_box.to(found.boxes))[:count].tolist()
    scores = found.scores[:count].tolist()
    boxes = [_on_host(one[:count]) for one in (template_box, search_box, found.boxes)]
    left, right = _pixels(template[:count]), _pixels(search[:count])
    kinds = positive[:count].tolist()
    numbers = [None] * count if sample is None else sample[:count].tolist()
    tiles = []
    for i in range(count):
        own, wanted, seen = (one[i] for one in boxes)
        number = "" if numbers[i] is None else f"pair {numbers[i]:,}: "
        what = "one object" if kinds[i] else "negative, two objects"
        tiles.append(_tile(left[i], f"{number}{what}", (own, TARGET_RGB)))
        if not np.isfinite([*seen, scores[i]]).all():
            text = "the model's output is not finite"
        elif kinds[i]:
            text = f"score {scores[i]:.2f}, IoU {overlap[i]:.2f}"
        else:
            text = f"score {scores[i]:.2f}, should be low"
        true = TARGET_RGB if kinds[i] else OTHER_RGB
        tiles.append(_tile(right[i], text, (seen, FOUND_RGB), (wanted, true)))
    return np.asarray(sheet(tiles, _COLUMNS), np.uint8)


def _tile(picture: Picture, text: str, *boxes: tuple[Float, tuple[int, int, int]]) -> Tile:
    """Tile with those boxes that can be drawn, cut where they are far outside."""
    side = max(picture.shape[:2])
    drawn = [(np.clip(b, -side, 2 * side), rgb) for b, rgb in boxes if np.isfinite(b).all()]
    return Tile(
        picture=picture,
        boxes=np.array([box for box, _ in drawn]).reshape(-1, 4),
        text=text,
        line_px=2,
        colors=tuple(rgb for _, rgb in drawn),
    )


def _on_host(boxes: Tensor) -> Float:
    return np.asarray(boxes.double().cpu().numpy())


def _pixels(crops: Tensor) -> Picture:
    """Crops (B,3,H,W), uint8 or normalised, as (B,H,W,3) uint8."""
    if crops.dtype != torch.uint8:
        mean, std = (
            torch.tensor(of, device=crops.device).view(3, 1, 1) for of in (MEAN_RGB, STD_RGB)
        )
        crops = ((crops.float() * std + mean) * 255).round().nan_to_num(0).clamp(0, 255).byte()
    return crops.permute(0, 2, 3, 1).cpu().numpy()


def pairs_sheet(
    model: TrackerModel, inputs: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> Picture:
    """Look at the first pairs of a training batch and draw them.

    Parameters
    ----------
    model : see `predict`
    inputs : arguments of the model's training step
    dtype : of the training's autocast

    Returns
    -------
    (H,W,3) uint8 RGB
    """
    names = ("template", "search", "template_box", "search_box", "positive", "sample")
    first = {name: inputs[name][:PAIRS] for name in names}
    found = predict(model, first["template"], first["search"], first["template_box"], dtype=dtype)
    return draw_pairs(**first, found=found)


def keep(folder: Path, step: int, picture: Picture, board: Board) -> None:
    """Write a sheet into a run's folder, whole or not at all, and show it in TensorBoard.

    It is ``<folder>/pictures/step_<step>.png``; one that is there is replaced. Where it cannot be
    written, a warning says so: a picture is not worth a run.

    Parameters
    ----------
    folder : of the run
    step : steps done
    picture : (H,W,3) uint8 RGB
    board : of the run
    """
    data = BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    try:
        FolderSink(folder / "pictures").write(f"step_{step:08d}.png", data.getvalue())
    except StorageError as error:
        warn(str(error))
    board.add_image("pairs", picture, step, dataformats="HWC")
