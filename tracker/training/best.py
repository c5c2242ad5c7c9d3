"""Which checkpoint of a run is the best: ``best.json``, and ``best.pth``, a link to it.

The record holds the values of all checkpoints judged so far by one measure, so when the best file
is lost the best of the others takes its place::

    {"step": 80, "file": "epoch_2.pth", "value": 0.61, "by": "otb auc", "higher_is_better": true,
     "judged": {"40": 0.58, "80": 0.61}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.atomic import replace_link, replace_text
from shards.errors import SiamstreamError

__all__ = ["LINK", "LOSS", "RECORD", "Judged", "read_record", "write_record"]

RECORD, LINK = "best.json", "best.pth"
LOSS = "training loss"  # the measure that gives way to every other


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Checkpoints judged by one measure.

    Attributes
    ----------
    by : the measure, for people; values of two measures are never compared
    higher_is_better : of the measure
    values : by the step that the checkpoint was written after
    """

    by: str
    higher_is_better: bool
    values: Mapping[int, float]

    def same_measure(self, by: str, higher_is_better: bool) -> bool:
        """Whether its values can be compared with those of a measure."""
        return (self.by, self.higher_is_better) == (by, higher_is_better)

    def plus(self, step: int, value: float) -> Judged:
        """With one more value."""
        return replace(self, values={**self.values, step: value})

    def only(self, steps: Collection[int]) -> Judged:
        """Without the values of other steps."""
        return replace(self, values={k: v for k, v in self.values.items() if k in steps})

    def best(self, present: Collection[int]) -> int | None:
        """Step of the best of those that are there, the earliest of equals; None: there is none."""
        sign = -1.0 if self.higher_is_better else 1.0
        found = [(sign * value, step) for step, value in self.values.items() if step in present]
        return min(found)[1] if found else None


def read_record(folder: Path) -> Judged | None:
    """What is recorded of a run; None if nothing is.

    Raises
    ------
    SiamstreamError : if the record cannot be read, or is not one
    """
    path = folder / RECORD
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        values = {int(step): float(value) for step, value in found["judged"].items()}
        by, higher = str(found["by"]), bool(found["higher_is_better"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SiamstreamError(f"{path}: not a record of a best checkpoint: {error!r}") from error
    finite = {step: value for step, value in values.items() if math.isfinite(value)}
    return Judged(by=by, higher_is_better=higher, values=finite)


def write_record(folder: Path, judged: Judged, step: int, file: str) -> None:
    """Record the best, then make the link to it; raises OSError.

    Killed between the two, the link still is to the best before, which is kept as long.
    """
    content = {
        "step": step,
        "file": file,
        "value": judged.values[step],
        "by": judged.by,
        "higher_is_better": judged.higher_is_better,
        "judged": {str(k): v for k, v in sorted(judged.values.items())},
    }
    replace_text(folder / RECORD, json.dumps(content) + "\n")
    link = folder / LINK
    if not link.is_symlink() or str(link.readlink()) != file:
        replace_link(link, file)
