"""Text files of boxes and flags, in the dialects that tracking data sets come in. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["parse_boxes", "parse_flags", "parse_levels"]

_BOM = b"\xef\xbb\xbf"


def parse_boxes(data: bytes) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """Parse lines ``x,y,w,h``, separated by commas, tabs or spaces.

    Parameters
    ----------
    data : bytes of the file; a byte order mark, CR LF and blank lines at the end are accepted

    Returns
    -------
    boxes : (N, 4) float64 as published, NaN where a line does not parse; may hold NaN and infinity
    faults : position of a line that does not parse (0-based) and what is wrong with it
    """
    lines = data.removeprefix(_BOM).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    boxes = np.full((len(lines), 4), np.nan)
    rows: list[tuple[float, float, float, float]] = []
    nothing = (np.nan,) * 4
    faults = {}
    odd = b"_" in data  # float() would take 1_000
    for position, line in enumerate(lines):
        try:
            x, y, w, h = map(float, line.split(b",") if b"," in line else line.split())
            if odd and b"_" in line:
                raise ValueError("an underscore is no part of a number")
            rows.append((x, y, w, h))
        except ValueError:
            shown = line[:60].decode(errors="replace")
            faults[position] = f"four numbers x,y,w,h needed, found {shown!r}"
            rows.append(nothing)
    if rows:
        boxes[:] = rows
    return boxes, faults


def parse_flags(data: bytes) -> tuple[npt.NDArray[np.bool_], dict[int, str]]:
    """Parse 0/1 flags, all on one line with commas or one a line.

    Returns
    -------
    flags : (N,) bool
    faults : position of a value that is neither 0 nor 1 (0-based) and what is wrong with it
    """
    values = data.removeprefix(_BOM).replace(b",", b" ").split()
    flags = np.array([value == b"1" for value in values], bool)
    faults = {
        position: f"value {position + 1} is {value[:20].decode(errors='replace')!r}, 0 or 1 needed"
        for position, value in enumerate(values)
        if value not in (b"0", b"1")
    }
    return flags, faults


def parse_levels(data: bytes, most: int) -> tuple[npt.NDArray[np.int8], dict[int, str]]:
    """Parse whole numbers from 0 to `most`, all on one line with commas or one a line.

    Returns
    -------
    levels : (N,) int8, -1 for a value that is none of these
    faults : its position (0-based) and what is wrong with it
    """
    known = {str(level).encode(): level for level in range(most + 1)}
    values = data.removeprefix(_BOM).replace(b",", b" ").split()
    levels = np.array([known.get(value, -1) for value in values], np.int8)
    faults = {
        position: f"value {position + 1} is {values[position][:20].decode(errors='replace')!r}, "
        f"a whole number from 0 to {most} needed"
        for position in np.flatnonzero(levels < 0).tolist()
    }
    return levels, faults
