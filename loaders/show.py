"""Pairs as pictures: what a person looks at to believe a loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from loaders.config import PairConfig
from loaders.loader import make_backend
from loaders.plan import PAIR_KINDS, Plan, plan_batch
from loaders.sets import DataSets
from loaders.work import Crops, Work, prepare
from shards.draw import Tile
from shards.errors import DataError
from shards.geometry import Float

__all__ = ["PairFilter", "find", "pair_tiles", "rows_by_type"]

SCAN_LIMIT = 1_000_000  # samples looked at in search of a rare type
_SCAN_BLOCK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFilter:
    """Which pairs are wanted; None: any.

    Attributes
    ----------
    kind : 0 same instance, 1 same category, 2 any
    positive : sign
    dataset : name
    """

    kind: int | None = None
    positive: bool | None = None
    dataset: str | None = None

    def __str__(self) -> str:
        """Words for a message."""
        sign = {None: "", True: "positive", False: "negative"}[self.positive]
        kind = "" if self.kind is None else f"of kind '{PAIR_KINDS[self.kind]}'"
        dataset = "" if self.dataset is None else f"from {self.dataset}"
        return " ".join(word for word in (sign, "pair", kind, dataset) if word)

    def match(self, sets: DataSets, plan: Plan) -> npt.NDArray[np.bool_]:
        """Flags (B,) of the pairs of a plan that are wanted."""
        found = np.ones(len(plan.sample), np.bool_)
        if self.kind is not None:
            found &= plan.kind == self.kind
        if self.positive is not None:
            found &= plan.positive == self.positive
        if self.dataset is not None:
            found &= plan.dataset == [one.manifest.name for one in sets.sets].index(self.dataset)
        return found


def _scan(
    sets: DataSets, config: PairConfig, epoch: int, first: int, count: int, wanted: PairFilter
) -> list[int]:
    """First `count` wanted samples from `first` on, as far as the epoch and the limit go."""
    names = [one.manifest.name for one in sets.sets]
    if wanted.dataset is not None and wanted.dataset not in names:
        raise DataError(
            f"--dataset {wanted.dataset}: this configuration draws from {', '.join(names)}"
        )
    end = min(config.pairs_per_epoch, first + SCAN_LIMIT)
    found: list[int] = []
    start = first
    while start < end and len(found) < count:
        # a short look is often enough; a rare type is looked for in larger blocks
        size = min(end - start, count if start == first else _SCAN_BLOCK)
        plan = plan_batch(sets.tables, config.seed, epoch, start, size)
        found += plan.sample[wanted.match(sets, plan)].tolist()
        start += size
    return found[:count]


def find(
    sets: DataSets, config: PairConfig, epoch: int, first: int, count: int, wanted: PairFilter
) -> list[int]:
    """Find the first `count` samples from `first` on that are wanted.

    Fewer where the epoch ends, or after `SCAN_LIMIT` samples.

    Raises
    ------
    DataError : if there is none
    """
    found = _scan(sets, config, epoch, first, count, wanted)
    if not found:
        last = min(config.pairs_per_epoch, first + SCAN_LIMIT) - 1
        raise DataError(
            f"no {wanted} among the samples {first:,} to {last:,} of epoch {epoch}; "
            "'python -m loaders stats' counts what this configuration draws"
        )
    return found


def rows_by_type(
    sets: DataSets, config: PairConfig, epoch: int, first: int, count: int, wanted: PairFilter
) -> tuple[list[int | None], list[str]]:
    """Find samples of every type, which is a data set and a kind of pair.

    Parameters
    ----------
    sets, config, epoch : of the run
    first, count : `count` samples of each type, from `first` on
    wanted : leaves out types and samples

    Returns
    -------
    `count` samples a type, None where there are no more of it; a note on each type that the
    configuration draws but of which there is none

    Raises
    ------
    DataError : if there is none of any type
    """
    rows: list[int | None] = []
    notes = []
    for one in sets.sets:
        kinds = config.sampler.image if one.index.is_image else config.sampler.video
        shares = (kinds.same_instance, kinds.same_category, kinds.any)
        for kind, share in enumerate(shares):
            name = one.manifest.name
            if wanted.dataset not in (None, name) or wanted.kind not in (None, kind) or not share:
                continue
            own = replace(wanted, kind=kind, dataset=name)
            found = _scan(sets, config, epoch, first, count, own)
            if not found:
                notes.append(f"no {own} from sample {first:,} on")
                continue
            rows += [*found, *[None] * (count - len(found))]
    if not rows:
        find(sets, config, epoch, first, count, wanted)  # says what is wrong
        raise DataError(f"no {wanted} from sample {first:,} on")
    return rows, notes


def _done(name: str, crops: Crops, i: int) -> list[str]:
    """What was done to a crop."""
    params = crops.params
    steps = ["flipped"] * bool(params.flipped[i])
    steps += [f"turned {params.angle_deg[i]:+.0f}°"] * bool(params.angle_deg[i])
    steps += ["coloured"] * bool(params.colored[i])
    steps += [f"blurred ({params.blurs[i].kind})"] if i in params.blurs else []
    steps += ["occluded"] * (i in params.occluders)
    return [f"{name} {', '.join(steps)}"] if steps else []


def _text(work: Work, i: int) -> str:
    plan, source = work.plan, work.search.sources[i]
    index = source.index
    z, x = int(plan.template_row[i]), int(plan.search_row[i])
    done = _done("z", work.template, i) + _done("x", work.search, i)
    sign = "positive" if plan.positive[i] else "negative"
    gap = int(index.frame[x]) - int(index.frame[z])
    apart = f" ({gap:+d})" if index.track_first[z] == index.track_first[x] and z != x else ""
    return (
        f"#{plan.sample[i]} {source.manifest.name}, {PAIR_KINDS[plan.kind[i]]}, {sign}\n"
        f"z {index.sequence(z)}/{index.track[z]} frame {index.frame[z]}\n"
        f"x {index.sequence(x)}/{index.track[x]} frame {index.frame[x]}{apart}\n"
        f"{'; '.join(done) or '-'}"
    )


def _inside(boxes: Float, side: int) -> Float:
    """Parts of boxes that lie in a crop; those wholly outside are dropped."""
    clipped = np.clip(boxes, 0, side)
    return np.asarray(clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)])


def _tile(work: Work, i: int, z: npt.NDArray[np.uint8], x: npt.NDArray[np.uint8]) -> Tile:
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
        text=_text(work, i),
    )


def pair_tiles(
    sets: DataSets, config: PairConfig, epoch: int, samples: Sequence[int | None]
) -> tuple[list[Tile], int]:
    """Make samples of an epoch and lay template and search of each side by side.

    Parameters
    ----------
    sets, config : with ``pixels="uint8"`` and ``channels_last=True``
    epoch : of the samples
    samples : their numbers; None leaves a place empty

    Returns
    -------
    one tile for every place, how many pairs are positive
    """
    # as training would choose it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, backend = make_backend(config, sets, 1, device)
    height, width = max(config.template_px, config.search_px), config.template_px + config.search_px
    empty = Tile(picture=np.zeros((height, width, 3), np.uint8), boxes=np.empty((0, 4)), text="")
    tiles, positive = [], 0
    for sample in samples:
        if sample is None:
            tiles.append(empty)
            continue
        work = prepare(sets, config, epoch, sample, 1)
        pixels = backend.finish(backend.start(work), config.timeout_s)
        z, x = (half[0].permute(1, 2, 0).cpu().numpy() for half in pixels)
        tiles.append(_tile(work, 0, z, x))
        positive += int(work.plan.positive[0])
    backend.close()
    return tiles, positive
