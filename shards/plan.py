"""``plan.json``: what a place is going to hold, written before the first shard.

It fingerprints options and input, so that going on under others can be refused, and has all that
the manifest will say but what only the parts of the shards know; so whoever has plan and parts can
finish the data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from shards.errors import FormatError, VersionError
from shards.format import FORMAT_VERSION, check_dataset_name, check_version, shard_name
from shards.geometry import GRIDS, Grid

__all__ = ["MAX_EXAMPLES", "PLAN_NAME", "Plan"]

PLAN_NAME = "plan.json"
MAX_EXAMPLES = 20  # of rejected frames that are kept for every reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Content of ``plan.json``. No times, host names or absolute paths.

    Attributes
    ----------
    name, grid, crop_size, quality, stride, options, versions, missing, notes : as in
        `shards.format.Manifest`
    input : SHA-256 of the annotations
    shards : how many are planned; one of which no frame is usable is not written
    rejected, rejected_examples : frames left out for their annotations, by reason
    reasons : all reasons there are, in the order of the manifest
    """

    name: str
    options: Mapping[str, Any]
    input: str
    versions: Mapping[str, str]
    grid: Grid
    crop_size: int
    quality: int | None
    stride: int | None
    shards: int
    reasons: tuple[str, ...]
    rejected: Mapping[str, int]
    rejected_examples: Mapping[str, list[Mapping[str, Any]]]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    @property
    def shard_names(self) -> tuple[str, ...]:
        """File names of all planned shards, in order."""
        return tuple(shard_name(self.name, number) for number in range(self.shards))

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Plan:
        """Read what `to_json` wrote.

        Parameters
        ----------
        data : content of the file
        where : its path or URL, for messages

        Raises
        ------
        FormatError : if it is no plan
        VersionError : if it is of another format version
        """
        try:
            facts = json.loads(data)
            check_version(facts["format_version"], where)
            for name in ("reasons", "missing", "notes"):
                facts[name] = tuple(facts[name])
            plan = cls(**{field.name: facts[field.name] for field in fields(cls)})
            check_dataset_name(plan.name)
            if plan.grid not in GRIDS or not isinstance(plan.shards, int):
                raise ValueError(f"grid {plan.grid!r}, {plan.shards!r} shards")
            for counted in (plan.rejected, plan.rejected_examples):
                cast(Mapping[str, Any], counted).items()
        except VersionError:
            raise
        except (FormatError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{where}: damaged, or of another release ({error!r}); run the packer again"
            ) from error
        return plan
