"""Result files in the toolkits' own layouts, which they and we read back.

::

    <out>/OTB2015/<tracker>/<sequence>.txt            LaSOT, TrackingNet the same
    <out>/OTB2015/<tracker>/times/<sequence>_time.txt
    <out>/GOT-10k/<tracker>/<sequence>/<sequence>_001.txt, <sequence>_time.txt

A line is ``x,y,w,h`` in pixels, counted from 1 for OTB and from 0 elsewhere; a time is seconds a
frame. The got10k toolkit (``result_dir=<out>``) and pysot (``--tracker_path <out>``) expect this;
pysot calls OTB ``OTB100`` and two targets of a video by a hyphen: docs/TRACKER.md has the links
for that. Figures are always computed from the files, so they are the same whoever computes them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from packer.annotations import parse_boxes
from shards.errors import DataError
from shards.sink import FolderSink
from tracker.onepass import Run
from tracker.sequences import Dataset, VideoSequence

__all__ = [
    "FOLDERS",
    "check_tracker_name",
    "read_boxes",
    "read_seconds",
    "result_bytes",
    "result_path",
    "trackers_in",
    "write_result",
    "write_submission",
]

# Names that the got10k toolkit gives to its folders of results.
FOLDERS: dict[Dataset, str] = {
    "otb": "OTB2015",
    "lasot": "LaSOT",
    "got10k": "GOT-10k",
    "trackingnet": "TrackingNet",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of members of a zip file, so that equal results give equal files


def check_tracker_name(name: str) -> str:
    """Return a name that can be a folder's.

    Raises
    ------
    DataError : if it is not of letters, digits, ``_ . + -``
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"--name {name!r}: letters, digits and _ . + - make a name of results")
    return name


def result_path(out: Path, dataset: Dataset, tracker: str, sequence: str) -> Path:
    """File of the boxes of a tracker on a sequence."""
    folder = out / FOLDERS[dataset] / tracker
    if dataset == "got10k":
        return folder / sequence / f"{sequence}_001.txt"
    return folder / f"{sequence}.txt"


def _time_path(out: Path, dataset: Dataset, tracker: str, sequence: str) -> Path:
    boxes = result_path(out, dataset, tracker, sequence)
    if dataset == "got10k":
        return boxes.with_name(f"{sequence}_time.txt")
    return boxes.parent / "times" / f"{sequence}_time.txt"


def result_bytes(run: Run, origin: int) -> bytes:
    """Text of a file of boxes.

    Parameters
    ----------
    run : boxes (N,4) xyxy, frame pixels
    origin : number of the first pixel in the file
    """
    size = run.boxes[:, 2:] - run.boxes[:, :2]
    rows = np.concatenate([run.boxes[:, :2] + origin, size], axis=1) + 0.0  # no -0
    return "".join(f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}\n" for x, y, w, h in rows.tolist()).encode()


def write_result(
    out: Path, dataset: Dataset, tracker: str, sequence: VideoSequence, run: Run
) -> bytes:
    """Write boxes and times of a sequence, each whole or not at all; the boxes last.

    Returns
    -------
    what was written of boxes
    """
    times = _time_path(out, dataset, tracker, sequence.name)
    text = "".join(f"{seconds:.8f}\n" for seconds in run.seconds.tolist())
    FolderSink(times.parent).write(times.name, text.encode())
    path = result_path(out, dataset, tracker, sequence.name)
    data = result_bytes(run, sequence.origin)
    FolderSink(path.parent).write(path.name, data)
    return data


def read_boxes(
    out: Path, dataset: Dataset, tracker: str, sequence: VideoSequence
) -> npt.NDArray[np.float64] | None:
    """Boxes of a tracker on a sequence, whoever wrote them.

    Returns
    -------
    (N,4) float64 xyxy, frame pixels counted from 0; None if there is no such file

    Raises
    ------
    DataError : if it is malformed, or not of as many frames as the sequence
    """
    path = result_path(out, dataset, tracker, sequence.name)
    if not path.is_file():
        return None
    xywh, faults = parse_boxes(path.read_bytes())
    for line, what in faults.items():
        raise DataError(f"{path}:{line + 1}: {what}")
    if len(xywh) != len(sequence.frames):
        raise DataError(f"{path}: {len(xywh)} lines for {len(sequence.frames)} frames")
    if not np.isfinite(xywh).all():
        line = int(np.argmin(np.isfinite(xywh).all(axis=1))) + 1
        raise DataError(f"{path}:{line}: {xywh[line - 1].tolist()} is no box")
    xywh[:, :2] -= sequence.origin
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def read_seconds(
    out: Path, dataset: Dataset, tracker: str, sequence: VideoSequence
) -> npt.NDArray[np.float64] | None:
    """Seconds of each frame, (N,); None where there is no file of as many numbers.

    Times are no part of any score, so those of others that we cannot read are as good as none.
    """
    path = _time_path(out, dataset, tracker, sequence.name)
    if not path.is_file():
        return None
    words = path.read_text(errors="replace").replace(",", " ").split()
    try:
        seconds = np.array([float(word) for word in words])
    except ValueError:
        return None
    return seconds if len(seconds) == len(sequence.frames) else None


def trackers_in(out: Path, dataset: Dataset) -> list[str]:
    """Names of the trackers of which there are results."""
    folder = out / FOLDERS[dataset]
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def write_submission(
    out: Path, dataset: Dataset, tracker: str, sequences: Sequence[VideoSequence]
) -> Path:
    """Write the zip file that the evaluation servers of GOT-10k and TrackingNet take.

    Returns
    -------
    ``<out>/<data set>/<tracker>.zip``; its members are named as in the tracker's folder
    """
    folder = out / FOLDERS[dataset] / tracker
    members = []
    for sequence in sequences:
        members.append(result_path(out, dataset, tracker, sequence.name))
        if dataset == "got10k":
            members.append(_time_path(out, dataset, tracker, sequence.name))
    name = f"{tracker}.zip"
    with (
        FolderSink(folder.parent).create(name) as handle,
        zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for path in members:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return folder.parent / name
