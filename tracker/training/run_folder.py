"""The checkpoints of a run's folder: the newest, the best, and which of them stay.

There are ``epoch_<N>.pth`` (after N epochs), ``step_<N>.pth`` (after N steps, between epochs),
``latest.pth``, a link to the newest, and ``best.pth``, a link to the best that was judged.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shards.atomic import replace_link
from shards.errors import MismatchError, SiamstreamError
from tracker.training import checkpoint
from tracker.training.best import LINK, LOSS, RECORD, Judged, read_record, write_record
from tracker.training.checkpoint import CheckpointError, Unreadable

__all__ = ["Checkpoints", "Chosen", "begun_from"]

LATEST = "latest.pth"
ASIDE = ".damaged"  # appended to the name of a file that a run has gone on without


class Chosen(NamedTuple):
    """Where to go on (None: nowhere), what is there, and one line for each file skipped."""

    path: Path | None
    state: dict[str, Any] | None
    warnings: tuple[str, ...] = ()


def begun_from(resume: str, step: int) -> dict[str, Any]:
    """Where a run was begun, as its checkpoints say in ``meta``.

    Parameters
    ----------
    resume : ``auto``, ``never`` or the path of a checkpoint, which may be a link
    step : of that checkpoint; 0: from none
    """
    named = resume not in ("auto", "never")
    return {"resume": str(Path(resume).absolute()) if named else resume, "step": step}


def _goes_on(newest: Chosen, why: str) -> Chosen:
    name = newest.path.name if newest.path else ""
    return newest._replace(warnings=(*newest.warnings, f"{why}: going on from its {name}"))


class Checkpoints:
    """The checkpoints of one run's folder; one process at a time may change them.

    Methods that tidy up return warnings: what they could not do costs a link or a file too many,
    never a checkpoint.

    Parameters
    ----------
    folder : of the run; need not exist
    keep : how many of those between epochs stay
    steps_per_epoch : puts both kinds in one order
    keep_epochs : how many of those of epochs stay; None: all

    Attributes
    ----------
    known : values that checkpoints were given elsewhere, for those that nothing is recorded of
    """

    def __init__(
        self, folder: Path, keep: int, steps_per_epoch: int, keep_epochs: int | None = None
    ) -> None:
        self.folder, self.keep, self.steps_per_epoch = folder, keep, steps_per_epoch
        self.keep_epochs = keep_epochs
        self.known: Judged | None = None
        self._judged: Judged | None = None
        self._told_loss = False
        self._unrecorded = False
        self._held: set[int] = set()

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is, or would be."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return self.folder / (f"step_{step:08d}.pth" if rest else f"epoch_{epochs}.pth")

    def files(self) -> list[tuple[int, Path]]:
        """Checkpoints as (steps done, file), newest first."""
        found = []
        for path in self.folder.glob("*.pth") if self.folder.is_dir() else ():
            if match := re.fullmatch(r"(epoch|step)_(\d+)\.pth", path.name):
                unit = self.steps_per_epoch if match[1] == "epoch" else 1
                found.append((int(match[2]) * unit, path))
        return sorted(found, key=lambda item: (item[0], item[1].name), reverse=True)

    def choose(self, resume: str) -> Chosen:
        """Checkpoint that ``--resume`` means, read.

        A command that has begun this run with ``never`` or a path goes on with it when it is
        started again: each checkpoint says in ``meta`` where its run was ``begun``.

        Raises
        ------
        MismatchError : if the folder has checkpoints of a run that was begun otherwise
        CheckpointError : if the one it names, or each that there is, is damaged, or one is of
            another program
        """
        newest = self.newest()
        if resume == "auto" or newest.state is None:
            named = resume not in ("auto", "never")
            return Chosen(Path(resume), checkpoint.read(Path(resume))) if named else newest
        if resume != "never":
            return self._choose_path(Path(resume), newest, newest.state["meta"])
        if newest.state["meta"].get("begun") != begun_from(resume, 0):
            raise MismatchError(
                f"{self.folder} holds a run of {newest.state['meta']['step']:,} steps, which "
                "--resume never would mix with a new one; give another --out, or remove that folder"
            )
        return _goes_on(newest, "--resume never has begun the run of this folder")

    def _choose_path(self, path: Path, newest: Chosen, meta: Mapping[str, Any]) -> Chosen:
        """Choose between a checkpoint that is named, and the newest of a folder that has some."""
        begun = meta.get("begun") or begun_from("auto", 0)
        try:
            state = checkpoint.read(path)
        except Unreadable:
            if begun["resume"] != begun_from(str(path), 0)["resume"]:
                raise
            return _goes_on(newest, f"the run of this folder was begun from {path}, now lost")
        step = int(state["meta"]["step"])
        if begun == begun_from(str(path), step):
            return _goes_on(newest, f"the run of this folder was begun from {path}")
        if path.resolve().parent == self.folder.resolve():
            self.refuse_newer(path, step)
            return Chosen(path, state)
        other = begun["resume"] in ("auto", "never")
        origin = "anew" if other else f"from {begun['resume']} of step {begun['step']:,}"
        raise MismatchError(
            f"{self.folder} holds a run of {meta['step']:,} steps that was begun {origin}, which "
            f"--resume {path} (step {step:,}) would mix with another; give another --out, or leave "
            "--resume out to go on with the run there"
        )

    def newest(self) -> Chosen:
        """Newest checkpoint that can be read, and a warning for each newer one that cannot.

        Raises
        ------
        CheckpointError : if there are checkpoints but all are damaged, or one is of another program
        """
        skipped: list[str] = []
        for _, path in self.files():
            try:
                state = checkpoint.read(path)
            except Unreadable as error:
                skipped.append(error.problem)
            else:
                return Chosen(
                    path, state, tuple(f"{text}; going on from {path.name}" for text in skipped)
                )
        if skipped:
            raise CheckpointError(
                f"no checkpoint of {self.folder} can be read: {'; '.join(skipped)}; give another "
                "--out to start anew, or bring one of them back"
            )
        return Chosen(None, None)

    def refuse_newer(self, path: Path, step: int) -> None:
        """Refuse to go on from a checkpoint while the folder has later ones.

        Raises
        ------
        MismatchError : they would stand beside those of the new branch, and be taken for its newest
        """
        files = self.files()
        if files and files[0][0] > step:
            raise MismatchError(
                f"{path} is of step {step:,}, but {self.folder} goes on to step {files[0][0]:,}; "
                "give another --out, or delete the later checkpoints"
            )

    def begin(self, step: int) -> list[str]:
        """Put the folder in order for a run that goes on after `step` steps; returns warnings.

        Later files, which the run goes on without, are set aside: they could be taken for its own.
        Files that killed processes have begun are removed. The best is one that is there, whole,
        and not of a later step.
        """
        warnings = [*self._set_aside(step), *self._remove_partial()]
        try:
            self._judged = read_record(self.folder)
        except SiamstreamError as error:
            warnings.append(f"{error}; the best checkpoint is judged anew")
        self._recall(step)
        warnings += self._mend_best(step)
        return warnings + self._link_latest()

    def write(self, state: Mapping[str, Any], step: int) -> list[str]:
        """Write the checkpoint after `step` steps, link it as the latest, drop old ones.

        Returns
        -------
        warnings

        Raises
        ------
        NotWritten : if the disk does not take it; nothing has changed then
        """
        checkpoint.write(self.path(step), state)
        warnings = self._link_latest()
        if self._unrecorded:
            warnings += self._record()
        return warnings + self._drop_old()

    def hold(self, step: int) -> None:
        """Keep the checkpoint of a step, as long as it takes to judge it."""
        self._held.add(step)

    def release(self, step: int) -> list[str]:
        """Hold the checkpoint of a step no longer; returns warnings."""
        self._held.discard(step)
        return self._drop_old()

    def judge(self, step: int, value: float, by: str, higher_is_better: bool = False) -> list[str]:
        """Say how good the checkpoint after `step` steps is, and keep the best of those judged.

        The first value of another measure begins anew: it is the best until a better one comes.
        But the training loss never takes the place of another measure.

        Parameters
        ----------
        step : whose checkpoint is in the folder
        value : of the measure
        by : the measure, as ``training loss``
        higher_is_better : of the measure

        Returns
        -------
        warnings
        """
        self._held.discard(step)
        if not math.isfinite(value):
            return [f"{by} of step {step:,} is {value}, so it is not the best", *self._drop_old()]
        if not self.path(step).is_file():
            return [f"{self.path(step)} is not there, so it cannot be the best", *self._drop_old()]
        if self._stays(by):
            return [*self._tell_loss(), *self._drop_old()]
        if self._judged is None or not self._judged.same_measure(by, higher_is_better):
            self._judged = Judged(by=by, higher_is_better=higher_is_better, values={})
        self._judged = self._judged.plus(step, value)
        return [*self._record(), *self._drop_old()]

    @property
    def best(self) -> Path | None:
        """The best of those that are there."""
        step = self._judged.best(self._present()) if self._judged else None
        return None if step is None else self.path(step)

    def _present(self) -> set[int]:
        return {step for step, path in self.files() if path == self.path(step)}

    def _stays(self, by: str) -> bool:
        """Whether the best was found by a better measure than this one."""
        return by == LOSS and self.best is not None and self._judged_by != LOSS

    @property
    def _judged_by(self) -> str:
        return self._judged.by if self._judged else ""

    def _tell_loss(self) -> list[str]:
        told, self._told_loss = self._told_loss, True
        if told:
            return []
        return [
            f"{self.folder / LINK} stays the best by {self._judged_by}, with which a {LOSS} cannot "
            "be compared; without train.evaluate no new one is found"
        ]

    def _recall(self, step: int) -> None:
        """Take what is known of this step, or of all if nothing is recorded by that measure."""
        known = self.known
        if known is None or self._stays(known.by):
            return
        present = {one for one in self._present() if one <= step}
        judged = self._judged
        if judged is None or not judged.same_measure(known.by, known.higher_is_better):
            found = known.only(present)
            self._judged = found if found.values else judged
        elif step in known.values and step in present and step not in judged.values:
            self._judged = judged.plus(step, known.values[step])

    def _remove_partial(self) -> Iterator[str]:
        for path in self.folder.glob(".*.partial"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                yield f"{path} could not be deleted: {error.strerror}"

    def _set_aside(self, step: int) -> Iterator[str]:
        for later, path in self.files():
            if later > step:
                aside = path.with_name(path.name + ASIDE)
                number = 1
                while os.path.lexists(aside):
                    number += 1
                    aside = path.with_name(f"{path.name}{ASIDE}.{number}")
                try:
                    path.replace(aside)
                except OSError as error:
                    yield f"{path} could not be set aside: {error.strerror}"
                else:
                    yield f"{path} is now {aside.name}; delete it when nobody needs it"

    def _mend_best(self, step: int) -> list[str]:
        """Drop what is recorded of files that are gone, damaged, or of later steps."""
        if self._judged is None:
            return self._unlink_dangling()
        warnings: list[str] = []
        before = self._judged.best(self._judged.values.keys())
        judged = self._judged.only({one for one in self._present() if one <= step})
        while (best := judged.best(judged.values.keys())) is not None:
            try:
                checkpoint.check(self.path(best))
            except Unreadable as error:
                warnings.append(error.problem)
                judged = judged.only(judged.values.keys() - {best})
            except CheckpointError as error:  # it may be whole
                warnings.append(str(error))
                break
            else:
                break
        self._judged = judged
        if best != before:
            now = self.path(best).name if best is not None else "not known yet"
            lost = self.path(before).name if before is not None else "none"
            warnings.append(f"{self.folder}: the best was {lost}, now it is {now}")
        return warnings + self._record()

    def _unlink_dangling(self) -> list[str]:
        """Remove a link to a best that is gone, where nothing is recorded of it."""
        link = self.folder / LINK
        try:
            if link.is_symlink() and not os.path.lexists(self.folder / link.readlink()):
                link.unlink()
        except OSError as error:
            return [f"{link} could not be removed: {error.strerror}"]
        return []

    def _record(self) -> list[str]:
        """Write which is the best; if that fails, again with the next checkpoint."""
        best, judged = self.best, self._judged
        try:
            if best is None or judged is None:
                for name in (LINK, RECORD):
                    (self.folder / name).unlink(missing_ok=True)
            else:
                step = judged.best(self._present())
                assert step is not None, "it is that of `best`"
                write_record(self.folder, judged, step, best.name)
        except OSError as error:
            self._unrecorded = True
            return [
                f"{self.folder / RECORD} could not be written: {error.strerror}; it is tried again "
                "with the next checkpoint"
            ]
        self._unrecorded = False
        return []

    def _link_latest(self) -> list[str]:
        files, link = self.files(), self.folder / LATEST
        if not files or (link.is_symlink() and str(link.readlink()) == files[0][1].name):
            return []
        try:
            replace_link(link, files[0][1].name)
        except OSError as error:
            return [f"{link} could not be made: {error.strerror}; the checkpoint is {files[0][1]}"]
        return []

    def _drop_old(self) -> list[str]:
        """Delete what need not stay; the best, and what ``best.pth`` is a link to, always do."""
        files = self.files()
        epochs = [path for _, path in files if path.name.startswith("epoch_")]
        between = [path for _, path in files if path.name.startswith("step_")]
        old = between[self.keep :]
        if self.keep_epochs is not None:
            old += epochs[self.keep_epochs :]
        stay = {self.path(step) for step in self._held} | {self.best}
        link = self.folder / LINK
        if link.is_symlink():
            stay.add(self.folder / link.readlink())
        warnings = []
        for path in old:
            if path not in stay:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    warnings.append(f"{path} could not be deleted: {error.strerror}")
        return warnings
