"""Class info: which object the sequences of a data set show, published in files of their own.

Two forms of a line are read, with LF or CR LF: ``<sequence>,<number>``, as in TrackingNet's
``TRAIN_k_classinfo.txt``, with the numbers of YouTube-BoundingBoxes, and
``<sequence><tab><class name>``.

The numbers count from 0 in the order of `YOUTUBE_BB`: 23 is a car, 22 is none, -1 stands for a
video without a class. Converters that move -1 to the end of the list and then count from 1 turn
every unknown video into a car; here -1, none and unlisted sequences are `UNKNOWN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from shards.errors import DataError, FormatError
from shards.format import check_category_name

__all__ = ["UNKNOWN", "YOUTUBE_BB", "files", "is_class_file", "merge", "parse"]

UNKNOWN = "unknown"
NO_CLASS = -1
YOUTUBE_BB = (
    "person", "bird", "bicycle", "boat", "bus", "bear", "cow", "cat", "giraffe", "potted plant",
    "horse", "motorcycle", "knife", "airplane", "skateboard", "train", "truck", "zebra", "toilet",
    "dog", "elephant", "umbrella", "none", "car",
)  # fmt: skip

_FILE = re.compile(r"(.*_)?class_?(info|map)\.(txt|tsv)", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


def is_class_file(name: str) -> bool:
    """Tell whether a file of this name in a folder is taken as class info.

    ``TRAIN_0_classinfo.txt``, ``trackingnet_classmap.txt`` and the like.
    """
    return _FILE.fullmatch(name) is not None


def parse(data: bytes, where: str) -> dict[str, str]:
    """Classes of the sequences that a file lists.

    Parameters
    ----------
    data : bytes of the file; a byte order mark, CR LF and blank lines are accepted
    where : its name, for messages

    Returns
    -------
    class name by sequence, `UNKNOWN` where the file says that there is none

    Raises
    ------
    DataError : if a line is of neither form, a class has a name that none can have, or a sequence
        is listed with two classes
    """
    found: dict[str, str] = {}
    for number, line in enumerate(data.removeprefix(_BOM).splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, category = _line(line.decode())
        except (ValueError, FormatError) as error:
            raise DataError(f"{where}:{number}: {error}") from error
        _put(found, name, category, f"{where}:{number}")
    return found


def _line(text: str) -> tuple[str, str]:
    shown = repr(text[:60])
    name, tab, value = text.partition("\t")
    if not tab:
        name, _, value = text.rpartition(",")
    name, value = name.strip(), value.strip()
    if not name or not value:
        raise ValueError(f"'<sequence>,<number>' or '<sequence><tab><class>' needed, found {shown}")
    if re.fullmatch(r"[+-]?\d+", value):
        code = int(value)
        if not NO_CLASS <= code < len(YOUTUBE_BB):
            raise ValueError(f"class number -1 to {len(YOUTUBE_BB) - 1} needed, found {shown}")
        value = UNKNOWN if code == NO_CLASS else YOUTUBE_BB[code]
    elif not tab:
        raise ValueError(f"a class number needed after the comma, found {shown}")
    check_category_name(value)
    return name, UNKNOWN if value.lower() in ("none", UNKNOWN) else value


def _put(found: dict[str, str], name: str, category: str, where: str) -> None:
    """Add one sequence; a class outweighs `UNKNOWN`, two classes are an error."""
    before = found.get(name, UNKNOWN)
    if UNKNOWN not in (before, category) and before != category:
        raise DataError(
            f"{where}: {name} is {category!r} here and {before!r} before; "
            "give the one file that is right with --class-info FILE"
        )
    found[name] = category if before == UNKNOWN else before


def merge(files: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Classes of several files, each given as its name for messages and its bytes.

    Where one file has no class for a sequence and another has, the class is taken.

    Raises
    ------
    DataError : if a line is of neither form, or a sequence is listed with two classes
    """
    found: dict[str, str] = {}
    for where, data in files:
        for name, category in parse(data, where).items():
            _put(found, name, category, where)
    return found


def files(path: Path) -> list[tuple[str, bytes]]:
    """Files of class info, as their paths and bytes.

    Parameters
    ----------
    path : a file of any name, or a folder: all in it that `is_class_file` takes

    Raises
    ------
    DataError : if there is no such file or folder, or the folder holds no class info
    """
    try:
        found = [path]
        if path.is_dir():
            found = sorted(one for one in path.iterdir() if is_class_file(one.name))
        if not found:
            raise DataError(
                f"{path}: no class info in this folder; expected files such as "
                "TRAIN_0_classinfo.txt, or give the file itself"
            )
        return [(str(one), one.read_bytes()) for one in found]
    except OSError as error:
        raise DataError(
            f"{path}: class info cannot be read: {error.strerror}; give a file of lines "
            "'<sequence>,<number>' or '<sequence><tab><class>', or a folder of such files"
        ) from error
