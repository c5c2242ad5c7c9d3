"""Pairs as pictures: what a person looks at to believe a loader."""

from __future__ import annotations

import numpy as np
import torch

from loaders.batches import Batches
from loaders.config import PairConfig
from loaders.faults import Faults
from loaders.loader import make_backend
from loaders.sets import DataSet
from loaders.streaming import Picture
from loaders.work import Source, Work
from loaders.works import open_works
from shards.draw import Tile
from shards.geometry import Float

__all__ = ["pair_tiles"]

_KINDS = ("same instance", "same category", "any")


def _frame(source: Source, row: int) -> str:
    if isinstance(source, Picture):
        sample = source.sample()
        return f"{sample.sequence}/{sample.track} frame {sample.frame}"
    assert isinstance(source, DataSet)
    index = source.index
    return f"{index.sequence(row)}/{index.track[row]} frame {index.frame[row]}"


def _text(work: Work, i: int, name: str) -> str:
    plan = work.plan
    z, x = int(plan.template_row[i]), int(plan.search_row[i])
    done = [
        name
        for name, crops in (("z", work.template), ("x", work.search))
        for name in (
            [f"{name} flipped"] * bool(crops.params.flipped[i])
            + [f"{name} coloured"] * bool(crops.params.colored[i])
        )
    ]
    sign = "positive" if plan.positive[i] else "negative"
    return (
        f"#{plan.sample[i]} {name}, {_KINDS[plan.kind[i]]}, {sign}\n"
        f"z {_frame(work.template.sources[i], z)}\n"
        f"x {_frame(work.search.sources[i], x)}\n{', '.join(done) or '-'}"
    )


def _inside(boxes: Float, side: int) -> Float:
    """Parts of boxes that lie in a crop; those wholly outside are dropped."""
    clipped = np.clip(boxes, 0, side)
    return np.asarray(clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)])


def pair_tiles(
    config: PairConfig, epoch: int, first: int, count: int
) -> tuple[list[Tile], int, tuple[str, ...]]:
    """Make `count` samples of an epoch and lay template and search side by side.

    Parameters
    ----------
    config : with ``pixels="uint8"`` and ``channels_last=True``
    epoch, first, count : which samples

    Returns
    -------
    one tile for every sample, how many pairs are positive, the warnings of opening the data
    """
    # A stream draws what a run of one process would; the plan's pairs are those of any run.
    works = open_works(config, 0, 1, count)
    sets = works.sets
    # as training would choose it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, backend = make_backend(config, sets, count, device)
    batches = Batches(works, backend, Faults(config.max_bad_fraction))
    work, template, search = batches.now((epoch, first), config.timeout_s)
    works.close()
    z, x = (pixels.permute(0, 2, 3, 1).cpu().numpy() for pixels in (template, search))
    backend.close()
    tiles = []
    for i in range(count):
        height = max(config.template_px, config.search_px)
        picture = np.zeros((height, config.template_px + config.search_px, 3), np.uint8)
        picture[: config.template_px, : config.template_px] = z[i]
        picture[: config.search_px, config.template_px :] = x[i]
        right = np.array([config.template_px, 0] * 2, np.float32)
        target = _inside(work.search_box[[i]], config.search_px) + right
        others = _inside(work.other_boxes[i][work.other_mask[i]], config.search_px) + right
        template_box = _inside(work.template_box[[i]], config.template_px)
        tiles.append(
            Tile(
                picture=picture,
                boxes=np.concatenate([template_box, target, others]),
                targets=len(template_box) + len(target),
                text=_text(work, i, sets.sets[work.plan.dataset[i]].manifest.name),
            )
        )
    return tiles, int(work.plan.positive.sum()), sets.warnings
