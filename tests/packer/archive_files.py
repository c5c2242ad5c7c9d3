"""Zip and tar files made for tests, well-formed and not."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

Files = Mapping[str, bytes]
DATE = (1980, 1, 1, 0, 0, 0)


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip as a downloaded one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), data, method)
    return path


def deflated(path: Path, files: Files) -> Path:
    """Write a zip of compressed members."""
    return write_zip(path, files, zipfile.ZIP_DEFLATED)


def unpacked(folder: Path, files: Files) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, files: Files, form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a plain tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def raw_zip(
    path: Path, members: Iterable[tuple[bytes, bytes]], links: Iterable[bytes] = ()
) -> Path:
    """Write a zip of stored members under any names whatever, byte by byte."""
    links = set(links)
    body, directory, count = [], [], 0
    offset = 0
    for count, (name, data) in enumerate(members, start=1):  # noqa: B007 (counted)
        crc = zlib.crc32(data)
        common = (20, 0, 0, 0, 33, crc, len(data), len(data), len(name), 0)
        local = struct.pack("<L5H3L2H", 0x04034B50, *common) + name + data
        mode = 0o120777 if name in links else 0o100644
        directory.append(
            struct.pack("<L6H3L5H2L", 0x02014B50, 0x031E, *common, 0, 0, 0, mode << 16, offset)
            + name
        )
        body.append(local)
        offset += len(local)
    whole = b"".join(directory)
    end = struct.pack(
        "<L4H2LH", 0x06054B50, 0, 0, count & 0xFFFF, count & 0xFFFF, len(whole), offset, 0
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(body) + whole + end)
    return path


def patch_directory(path: Path, name: str, **fields: int) -> Path:
    """Change what the directory of a zip says of a member.

    Fields: ``flags``, ``method``, ``crc``, ``packed``, ``size``, ``offset``.
    """
    where = {
        "flags": (8, "<H"),
        "method": (10, "<H"),
        "crc": (16, "<L"),
        "packed": (20, "<L"),
        "size": (24, "<L"),
        "offset": (42, "<L"),
    }
    data = bytearray(path.read_bytes())
    at = data.rfind(name.encode()) - 46
    assert data[at : at + 4] == b"PK\1\2"
    for field, value in fields.items():
        offset, form = where[field]
        struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)
    return path
