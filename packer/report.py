"""What a run did: for a terminal, and as the object that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from packer.draft import Draft
from packer.jobs import PackOptions
from packer.sequence import Problem, named
from shards.errors import one_line
from shards.format import Manifest

__all__ = ["Report"]

SHOWN_CAUSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Facts of a run.

    Attributes
    ----------
    name, out : data set and its folder
    shards, frames, tracks, sequences, categories, bytes : of the data set; 0 bytes in a dry run
    rejected : frames left out, by reason
    missing : official sequences that are not on disk
    notes : facts about the input
    stride, size, quality, grid : of the crops; None where others made them and did not say
    seconds, frames_per_s : this run's time, and frames packed in it per second of packing
    resumed_shards : shards that were complete before
    dry_run : nothing was written
    job : ``I/N`` of a job that packed its share of the shards, and the data set is not finished;
        frames, tracks, sequences and categories are then those planned for it
    causes : first of the problems that this run left out, and how many more there are
    """

    name: str
    out: str
    shards: int
    frames: int
    tracks: int
    sequences: int
    categories: int
    bytes: int
    rejected: Mapping[str, int]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    stride: int | None
    size: int
    quality: int | None
    grid: str
    seconds: float
    frames_per_s: float
    resumed_shards: int
    dry_run: bool
    job: str | None = None
    causes: tuple[str, ...] = ()

    @classmethod
    def planned(cls, name: str, out: str, options: PackOptions, draft: Draft) -> Report:
        """Report of a dry run."""
        return cls(
            name=name,
            out=out,
            shards=len(draft.jobs),
            frames=draft.frames,
            tracks=draft.tracks,
            sequences=draft.kept_sequences,
            categories=draft.categories,
            bytes=0,
            rejected=draft.tally.rejected,
            missing=draft.missing,
            notes=draft.notes,
            stride=options.stride,
            size=options.size,
            quality=options.quality,
            grid=options.grid,
            seconds=0.0,
            frames_per_s=0.0,
            resumed_shards=0,
            dry_run=True,
        )

    @classmethod
    def packed(
        cls,
        out: str,
        manifest: Manifest,
        quality: int | None,
        frames_per_s: float,
        resumed_shards: int,
    ) -> Report:
        """Report of a complete folder."""
        return cls(
            name=manifest.name,
            out=out,
            shards=len(manifest.shards),
            frames=manifest.counts["frames"],
            tracks=manifest.counts["tracks"],
            sequences=manifest.counts["sequences"],
            categories=manifest.counts["categories"],
            bytes=sum(shard.bytes for shard in manifest.shards),
            rejected=manifest.rejected,
            missing=manifest.missing,
            notes=manifest.notes,
            stride=manifest.stride or 1,
            size=manifest.crop_size,
            quality=quality,
            grid=manifest.grid,
            seconds=0.0,
            frames_per_s=frames_per_s,
            resumed_shards=resumed_shards,
            dry_run=False,
        )

    def of_job(self, job: str, size: int, frames_per_s: float, resumed_shards: int) -> Report:
        """Report of a job whose share was planned so; `size` of its shards in bytes."""
        return replace(
            self,
            job=job,
            bytes=size,
            frames_per_s=frames_per_s,
            resumed_shards=resumed_shards,
            dry_run=False,
        )

    def with_causes(self, problems: Sequence[Problem]) -> Report:
        """Report of a run that left these out."""
        lines = [one_line(Exception(str(one))) for one in problems[:SHOWN_CAUSES]]
        if len(problems) > SHOWN_CAUSES:
            lines.append(f"and {len(problems) - SHOWN_CAUSES:,} more")
        return replace(self, causes=tuple(lines))

    def facts(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Summary for a terminal."""
        counted = ", ".join(
            f"{count:,} {unit}{'' if count == 1 else 's'}"
            for count, unit in (
                (self.frames, "frame"),
                (self.sequences, "sequence"),
                (self.shards, "shard"),
            )
        )
        if self.dry_run:
            yield f"{self.name}: would pack {counted} into {self.out}; nothing was written"
        else:
            job = f"job {self.job}: " if self.job else ""
            yield f"{self.name}: {job}{counted}, {self.bytes / 1e6:,.1f} MB in {self.out}"
            if self.resumed_shards == self.shards:
                yield "all of it was packed before; nothing to do"
            elif self.resumed_shards:
                yield f"{self.resumed_shards:,} shards were complete before"
        if self.rejected:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.rejected.items())
            yield f"left out: {reasons}"
        for cause in self.causes:
            yield f"  {cause}"
        if self.missing:
            yield (
                f"{len(self.missing):,} sequences of this split are not on disk: "
                f"{named(self.missing)}"
            )
        for note in self.notes:
            yield f"note: {note}"
        if not self.dry_run:
            rate = f", {self.frames_per_s:,.0f} frames/s" if self.frames_per_s else ""
            yield f"done in {self.seconds:,.1f} s{rate}"
            if self.job:
                yield f"when all jobs are done: python -m shards finish {self.out}"
            elif self.out.startswith("s3://"):
                yield "next: download it and run 'python -m shards verify' on the folder"
            else:
                yield f"next: python -m shards verify {self.out}"
