"""Pairs with a damaged picture: what takes their place, how many there may be, who is told.

Where `data.max_bad_fraction` is 0, a damaged picture is an error. Else its pair is replaced by a
substitute: substitute a (1, 2, ...) of sample i of epoch e is a pair drawn like any other, but from
random numbers of its own (`loaders.plan.STREAM_SUBSTITUTE`), and the first one without a damaged
picture is taken. Its crops are cut, flipped and coloured by the numbers of sample i. So what takes
a pair's place depends on seed, epoch, sample number and the data alone, not on rank, world size,
storage or what has been read before.

The budget is of one rank, from the start of its process: of n pairs handed over, at most
``max(1, floor(max_bad_fraction * max(n, 1000)))`` may have been replaced. The first one never ends
a run, and the first thousand pairs count as a thousand. A run that resumes counts anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from loaders.plan import MAX_SUBSTITUTES
from loaders.work import Work
from shards.errors import BadSample, TooManyBadSamples

__all__ = ["Faults", "allowed"]

FLOOR = 1000  # pairs that a budget is of at least
SHOWN = 20  # damaged samples that are named one by one
REMEMBERED = 100_000  # damaged samples that are replaced without being read again
_log = logging.getLogger("siamstream.loaders")


def allowed(fraction: float, pairs: int) -> int:
    """How many of so many pairs may have been replaced."""
    if not fraction:
        return 0
    return max(1, math.floor(fraction * max(pairs, FLOOR) + 1e-9))


class Faults:
    """Damaged samples of one loader.

    Parameters
    ----------
    fraction : ``data.max_bad_fraction``
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.pairs = self.replaced = 0  # handed over, and those of them that are substitutes
        self._found: dict[tuple[str, int], BadSample] = {}
        self._rows: set[tuple[int, int]] = set()  # data set and row
        self._last: BadSample | None = None

    @property
    def samples(self) -> tuple[BadSample, ...]:
        """Damaged samples found so far, each once; at most `REMEMBERED`."""
        return tuple(self._found.values())

    def note(self, error: BadSample, work: Work) -> None:
        """Remember a damaged sample and tell of it, once."""
        self._last = error
        place = (error.shard, error.offset)
        if place in self._found or len(self._found) >= REMEMBERED:
            return
        self._found[place] = error
        # What one decoder refuses in one region, it may accept in another.
        if error.stored:
            for crops in (work.template, work.search):
                found = crops.bad(error.pair, "")
                if (found.shard, found.offset) == (error.shard, error.offset):
                    number = int(work.plan.dataset[error.pair])
                    self._rows.add((number, int(crops.rows[error.pair])))
        if len(self._found) <= SHOWN:
            _log.warning("damaged sample, its pairs are replaced: %s", error)
        if len(self._found) == SHOWN:
            _log.warning("further damaged samples are counted, not named")

    def survey(self, work: Work) -> set[int]:
        """Read all pictures of a batch again: positions of the pairs with damaged bytes."""
        bad = set()
        for crops in (work.template, work.search):
            for i in range(len(crops)):
                try:
                    crops.read(i)
                except BadSample as error:
                    self.note(error, work)
                    bad.add(i)
        return bad

    def known_in(self, work: Work) -> set[int]:
        """Positions of the pairs of a batch that hold a sample known to be damaged."""
        if not self._rows:
            return set()
        datasets = work.plan.dataset.tolist()
        return {
            i
            for crops in (work.template, work.search)
            for i, place in enumerate(zip(datasets, crops.rows.tolist(), strict=True))
            if place in self._rows
        }

    def check(self, attempts: Mapping[int, int], pairs: int) -> None:
        """Check that a batch may be handed over.

        Parameters
        ----------
        attempts : of the batch, see `loaders.batches.Begun`
        pairs : of the batch

        Raises
        ------
        TooManyBadSamples : if the budget is used up
        """
        if not attempts:
            return
        replaced, drawn = self.replaced + len(attempts), self.pairs + pairs
        most = allowed(self.fraction, drawn)
        if replaced > most:
            raise TooManyBadSamples(
                f"{replaced:,} of {drawn:,} pairs hold a damaged picture, "
                f"data.max_bad_fraction={self.fraction:g} allows {most:,}; {len(self._found):,} "
                f"damaged sample(s) so far, the last: {self._last}"
            ) from self._last
        tried = max(attempts.values())
        if tried > MAX_SUBSTITUTES:
            raise TooManyBadSamples(
                f"a pair and all its {MAX_SUBSTITUTES} substitutes hold a damaged picture; the "
                f"last: {self._last}"
            ) from self._last

    def count(self, attempts: Mapping[int, int], pairs: int) -> None:
        """Count a batch that is handed over."""
        self.pairs += pairs
        self.replaced += len(attempts)

    def sum_up(self) -> None:
        """Tell how many pairs were replaced in all, if any."""
        if self.replaced:
            _log.warning(
                "%s of %s pairs were replaced, because of %s damaged sample(s); 'python -m shards "
                "verify DIR' lists all of a data set",
                *(f"{n:,}" for n in (self.replaced, self.pairs, len(self._found))),
            )
