"""Pairs as pictures: what a person looks at to believe a loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from loaders.batches import Batches, Begun
from loaders.config import PairConfig
from loaders.faults import Faults
from loaders.loader import make_backend
from loaders.plan import PAIR_KINDS
from loaders.sets import DataSet
from loaders.streaming import Picture
from loaders.work import Crops, Pixels, Source, Work
from loaders.works import NO_ATTEMPTS, Works
from shards.draw import Tile
from shards.geometry import Float

__all__ = ["pair_tiles"]


def _frame(source: Source, row: int) -> tuple[str, int]:
    """Track and frame number of a picture."""
    if isinstance(source, Picture):
        sample = source.sample()
        return f"{sample.sequence}/{sample.track}", sample.frame
    assert isinstance(source, DataSet)
    index = source.index
    return f"{index.sequence(row)}/{index.track[row]}", int(index.frame[row])


def _done(name: str, crops: Crops, i: int) -> list[str]:
    """What was done to a crop."""
    params = crops.params
    steps = ["flipped"] * bool(params.flipped[i])
    steps += [f"turned {params.angle_deg[i]:+.0f}°"] * bool(params.angle_deg[i])
    steps += ["coloured"] * bool(params.colored[i])
    steps += [f"blurred ({params.blurs[i].kind})"] if i in params.blurs else []
    steps += ["occluded"] * (i in params.occluders)
    return [f"{name} {', '.join(steps)}"] if steps else []


def _text(work: Work, i: int, name: str) -> str:
    plan = work.plan
    z_track, z = _frame(work.template.sources[i], int(plan.template_row[i]))
    x_track, x = _frame(work.search.sources[i], int(plan.search_row[i]))
    apart = f" ({x - z:+d})" if z_track == x_track and z != x else ""
    done = _done("z", work.template, i) + _done("x", work.search, i)
    sign = "positive" if plan.positive[i] else "negative"
    return (
        f"#{plan.sample[i]} {name}, {PAIR_KINDS[plan.kind[i]]}, {sign}\n"
        f"z {z_track} frame {z}\n"
        f"x {x_track} frame {x}{apart}\n"
        f"{'; '.join(done) or '-'}"
    )


def _inside(boxes: Float, side: int) -> Float:
    """Parts of boxes that lie in a crop; those wholly outside are dropped."""
    clipped = np.clip(boxes, 0, side)
    return np.asarray(clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)])


def _tile(work: Work, i: int, name: str, z: Pixels, x: Pixels) -> Tile:
    """Template and search side by side, boxes clipped to their own half."""
    template_px, search_px = len(z), len(x)
    picture = np.zeros((max(template_px, search_px), template_px + search_px, 3), np.uint8)
    picture[:template_px, :template_px] = z
    picture[:search_px, template_px:] = x
    right = np.array([template_px, 0] * 2, np.float32)
    target = _inside(work.search_box[[i]], search_px) + right
    others = _inside(work.other_boxes[i][work.other_mask[i]], search_px) + right
    template_box = _inside(work.template_box[[i]], template_px)
    return Tile(
        picture=picture,
        boxes=np.concatenate([template_box, target, others]),
        targets=len(template_box) + len(target),
        text=_text(work, i, name),
    )


def pair_tiles(
    works: Works, config: PairConfig, found: Sequence[Work | None]
) -> tuple[list[Tile], int]:
    """Lay template and search of pairs side by side, as training gets them.

    Parameters
    ----------
    works, config : of one pair each; with ``pixels="uint8"`` and ``channels_last=True``
    found : made by `works`; None leaves a place empty

    Returns
    -------
    one tile for every place, how many pairs are positive
    """
    # as training would choose it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, backend = make_backend(config, works.sets, 1, device)
    batches = Batches(works, backend, Faults(config.max_bad_fraction))
    height, width = max(config.template_px, config.search_px), config.template_px + config.search_px
    empty = Tile(picture=np.zeros((height, width, 3), np.uint8), boxes=np.empty((0, 4)), text="")
    tiles, positive = [], 0
    for work in found:
        if work is None:
            tiles.append(empty)
            continue
        at = work.epoch, int(work.plan.sample[0])
        planned = Begun(position=at, attempts=NO_ATTEMPTS, work=work)
        work, *pixels = batches.now(planned, config.timeout_s)
        z, x = (half[0].permute(1, 2, 0).cpu().numpy() for half in pixels)
        tiles.append(_tile(work, 0, works.sets.sets[work.plan.dataset[0]].manifest.name, z, x))
        positive += int(work.plan.positive[0])
    backend.close()
    return tiles, positive
