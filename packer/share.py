"""Which shards one job of an array of jobs packs. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from annotated_types import Ge

__all__ = ["Share"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Every `of`-th shard, from `number` on.

    Attributes
    ----------
    number : of the job, 0 to of - 1, as in ``SLURM_ARRAY_TASK_ID`` of ``--array=0-<of - 1>``
    of : how many jobs there are
    """

    number: Annotated[int, Ge(0)]
    of: Annotated[int, Ge(1)]

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise ValueError(
                f"job {self.number} of {self.of}: jobs are numbered from 0 to {self.of - 1}"
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``I/N``.

        Raises
        ------
        ValueError : if it is not of this form, or I is not 0 to N - 1
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None or not int(match[2]):
            raise ValueError(f"{text!r}: expected I/N, as in 0/8 to 7/8")
        return cls(number=int(match[1]), of=int(match[2]))

    def pick(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return what falls to this job."""
        return items[self.number :: self.of]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
