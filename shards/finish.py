"""The end of packing: index and manifest from the plan and the parts of all shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shards.errors import DataError, StorageError
from shards.format import MANIFEST_NAME, Manifest
from shards.parts import Part
from shards.plan import MAX_EXAMPLES, PLAN_NAME, Plan
from shards.sink import Sink, sink_of
from shards.writer import PARTS_FOLDER, load_parts
from shards.writer import finish as write_end

__all__ = ["LOCK_NAME", "finish", "finish_place", "finished", "tidy"]

LOCK_NAME = "lock"  # in the folder of the parts
_SHOWN = 10


def finished(where: Path | Sink) -> Manifest | None:
    """Manifest of a place that is complete, or None if packing must go on.

    Raises
    ------
    StorageError : if it was complete, but shards are gone or have another size since
    """
    sink = sink_of(where)
    data = sink.read(MANIFEST_NAME)
    if data is None:
        return None
    manifest = Manifest.from_json(data, f"{sink}/{MANIFEST_NAME}")
    expected = {shard.name: shard.bytes for shard in manifest.shards}
    expected[manifest.index["name"]] = manifest.index["bytes"]
    there = sink.sizes()
    for name, size in expected.items():
        if there.get(name) != size:
            found = f"{there[name]} bytes" if name in there else "missing"
            raise StorageError(
                f"{sink}/{name}: {found}, the manifest says {size} bytes; restore it, or delete "
                f"{sink}/{MANIFEST_NAME} and run the same command again to pack the folder anew"
            )
    return manifest


def finish(where: Path | Sink, plan: Plan) -> Manifest:
    """Write index and manifest of a place in which all planned shards are.

    Parameters
    ----------
    where : of the data set
    plan : its plan

    Raises
    ------
    DataError : if shards are not there yet, or none has a frame; names them and what to do
    """
    sink = sink_of(where)
    names = plan.shard_names
    found = list(load_parts(sink, names))
    missing = [name for name, part in zip(names, found, strict=True) if part is None]
    if missing:
        raise DataError(_not_there(sink, plan, missing))
    parts = [part for part in found if part is not None]
    rejected, examples = _rejected(plan, parts)
    if not any(part.info.frames for part in parts):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        raise DataError(f"{sink}: no frame is left to pack; rejected: {reasons or 'none'}")
    return write_end(
        sink,
        parts,
        name=plan.name,
        grid=plan.grid,
        crop_size=plan.crop_size,
        quality=plan.quality,
        stride=plan.stride,
        options=plan.options,
        versions=plan.versions,
        rejected=rejected,
        rejected_examples=examples,
        missing=plan.missing,
        notes=plan.notes,
    )


def _not_there(sink: Sink, plan: Plan, missing: Sequence[str]) -> str:
    listed = ", ".join(missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return (
        f"{sink}: {len(missing)} of {plan.shards} shards are not packed: {listed}{more}; of jobs "
        f"--job I/N, number I packs the shards I, I + N, I + 2N...: run those again, or "
        f"'python -m packer {plan.name} --out {sink}' with the former --root and options for all "
        "that is left"
    )


def _rejected(
    plan: Plan, parts: Sequence[Part]
) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """Frames left out by reason, and some of each: by their annotations, then in shard order."""
    counts = dict(plan.rejected)
    examples = {reason: list(found) for reason, found in plan.rejected_examples.items()}
    for part in parts:
        for reason, count in part.facts["rejected"].items():
            counts[reason] = counts.get(reason, 0) + count
            known = examples.setdefault(reason, [])
            known.extend(part.facts["examples"][reason][: MAX_EXAMPLES - len(known)])
    order = [*plan.reasons, *sorted(set(counts) - set(plan.reasons))]
    reasons = [reason for reason in order if reason in counts]
    return (
        {reason: counts[reason] for reason in reasons},
        {reason: [dict(one) for one in examples[reason]] for reason in reasons},
    )


def tidy(where: Path | Sink) -> None:
    """Remove the parts of a complete place, and what killed writers left."""
    sink = sink_of(where)
    sink.child(PARTS_FOLDER).remove_all()
    sink.clean()


def finish_place(where: Path | Sink) -> Manifest:
    """Finish what several jobs packed, or find it finished. Safe to run again.

    Raises
    ------
    DataError : if nothing was begun there, or shards are not there yet
    FormatError : if its plan is damaged
    StorageError : if a packer is at work there, or it cannot be written
    """
    sink = sink_of(where)
    data = sink.read(PLAN_NAME)
    if data is None:
        raise DataError(
            f"{sink} has no {PLAN_NAME}: no packer began there; run 'python -m packer <data set> "
            f"--out {sink} --job I/N' for every I from 0 to N - 1 first"
        )
    plan = Plan.from_json(data, f"{sink}/{PLAN_NAME}")
    parts = sink.child(PARTS_FOLDER)
    if not parts.exists():
        manifest = finished(sink)
        return finish(sink, plan) if manifest is None else manifest
    with parts.hold(LOCK_NAME, shared=False):
        manifest = finished(sink) or finish(sink, plan)
        tidy(sink)
    return manifest
