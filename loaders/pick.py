"""Which samples to look at: the first of an epoch that are of some kind, sign or data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loaders.config import PairConfig
from loaders.plan import PAIR_KINDS, Plan, plan_batch
from loaders.sets import DataSet
from loaders.work import Work
from loaders.works import Planned, Works
from shards.errors import DataError

__all__ = ["PairFilter", "find", "rows_by_type"]

# Samples looked at in search of a rare type; a stream has to be read for each.
SCAN_LIMIT, STREAM_LIMIT = 1_000_000, 20_000
_FIRST_BLOCK, _BLOCK = 64, 4096


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

    def match(self, plan: Plan, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Flags (B,) of the pairs of a plan that are wanted; `names` are those of its data sets."""
        found = np.ones(len(plan.sample), np.bool_)
        if self.kind is not None:
            found &= plan.kind == self.kind
        if self.positive is not None:
            found &= plan.positive == self.positive
        if self.dataset is not None:
            found &= plan.dataset == names.index(self.dataset)
        return found


def _names(works: Works) -> list[str]:
    return [one.manifest.name for one in works.sets.sets]


def _last(works: Works, config: PairConfig, first: int) -> int:
    """Sample after the last one that is looked at."""
    limit = SCAN_LIMIT if isinstance(works, Planned) else STREAM_LIMIT
    return min(config.pairs_per_epoch, first + limit)


def _blocks(
    works: Works, config: PairConfig, epoch: int, first: int
) -> Iterator[tuple[Plan, Callable[[int], Work]]]:
    """Plans from a sample on, and what makes the batch of one of a plan's samples."""
    end = _last(works, config, first)
    if not isinstance(works, Planned):
        for sample in range(first, end):
            work = works.make(epoch, sample)
            yield work.plan, lambda _, work=work: work  # type: ignore[misc]
        return
    start, size = first, _FIRST_BLOCK  # a short look is often enough
    while start < end:
        plan = plan_batch(works.sets.tables, config.seed, epoch, start, min(size, end - start))
        yield plan, lambda i, plan=plan: works.make(epoch, int(plan.sample[i]))  # type: ignore[misc]
        start, size = start + size, _BLOCK


def _scan(
    works: Works,
    config: PairConfig,
    epoch: int,
    first: int,
    count: int,
    wanted: Sequence[PairFilter],
) -> list[list[Work]]:
    """First `count` samples for each filter, in one go as far as the epoch and the limit reach."""
    names, found = _names(works), [list[Work]() for _ in wanted]
    for one in wanted:
        if one.dataset is not None and one.dataset not in names:
            raise DataError(
                f"--dataset {one.dataset}: this configuration draws from {', '.join(names)}"
            )
    for plan, make in _blocks(works, config, epoch, first):
        for one, own in zip(wanted, found, strict=True):
            matching = np.flatnonzero(one.match(plan, names))[: count - len(own)]
            own += [make(i) for i in matching.tolist()]
        if all(len(own) == count for own in found):
            break
    return found


def find(
    works: Works, config: PairConfig, epoch: int, first: int, count: int, wanted: PairFilter
) -> list[Work]:
    """Find the first `count` samples from `first` on that are wanted.

    Fewer where the epoch ends, or after `SCAN_LIMIT` samples (`STREAM_LIMIT` of a stream).

    Parameters
    ----------
    works : with a batch size of 1
    config, epoch : of the run
    first, count, wanted : which samples

    Raises
    ------
    DataError : if there is none
    """
    (found,) = _scan(works, config, epoch, first, count, [wanted])
    if not found:
        last = _last(works, config, first) - 1
        raise DataError(
            f"no {wanted} among the samples {first:,} to {last:,} of epoch {epoch}; "
            "'python -m loaders stats' counts what a configuration draws"
        )
    return found


def _types(works: Works, config: PairConfig, wanted: PairFilter) -> list[PairFilter]:
    """Data sets and kinds of pair that a configuration draws and a filter lets through."""
    types = []
    for one in works.sets.sets:
        kinds = [config.sampler.image, config.sampler.video]
        if isinstance(one, DataSet):  # of a stream it is not known before it is read
            kinds = kinds[:1] if one.index.is_image else kinds[1:]
        name = one.manifest.name
        for kind, field in enumerate(("same_instance", "same_category", "any")):
            if wanted.dataset not in (None, name) or wanted.kind not in (None, kind):
                continue
            if any(getattr(shares, field) for shares in kinds):
                types.append(replace(wanted, kind=kind, dataset=name))
    return types


def rows_by_type(
    works: Works, config: PairConfig, epoch: int, first: int, count: int, wanted: PairFilter
) -> tuple[list[Work | None], list[str]]:
    """Find samples of every type, which is a data set and a kind of pair.

    Parameters
    ----------
    works : with a batch size of 1
    config, epoch : of the run
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
    types = _types(works, config, wanted)
    found = _scan(works, config, epoch, first, count, types or [wanted])
    if not any(found):
        raise DataError(f"no {wanted} from sample {first:,} on; is its probability 0?")
    rows: list[Work | None] = []
    notes = []
    for one, own in zip(types, found, strict=True):
        rows += [*own, *[None] * (count - len(own))] if own else []
        notes += [] if own else [f"no {one} from sample {first:,} on"]
    return rows, notes
