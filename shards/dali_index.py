"""Index files for NVIDIA DALI's ``fn.readers.webdataset``, version v1.2.

The first line is ``v1.2`` and the number of samples; then one line a sample has, for each of its
components, the extension, the byte offset and size of the data, and the member's name (the format
that DALI's own ``wds2idx`` writes).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shards.errors import FormatError, MismatchError, StorageError
from shards.format import Manifest
from shards.sink import FolderSink

__all__ = ["DaliFiles", "export_dali"]

VERSION = "v1.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class DaliFiles:
    """What `export_dali` wrote: shards and their index files, in order, and how much they hold."""

    tars: tuple[Path, ...]
    indexes: tuple[Path, ...]
    frames: int


def _silent(done: int) -> None:
    """Show nothing."""


def export_dali(folder: Path, out: Path, progress: Callable[[int], None] = _silent) -> DaliFiles:
    """Write ``<shard>.idx`` for every shard of a data set.

    Parameters
    ----------
    folder : packed data set
    out : folder for the files, made if absent; may be `folder`
    progress : called with the number of shards done

    Raises
    ------
    MismatchError : if the crops are used in place and there are no tars
    FormatError : if a shard is not the manifest's
    StorageError : if something cannot be read or written
    """
    manifest = Manifest.read(folder)
    if manifest.in_place:
        raise MismatchError(
            f"{folder}: its crops lie in {manifest.shards[0].name}, and DALI reads tars: copy them "
            "into shards with 'python -m packer legacy'"
        )
    sink = FolderSink(out)
    tars, indexes = [], []
    for number, shard in enumerate(manifest.shards):
        lines = _samples(folder / shard.name)
        if len(lines) != shard.frames:
            raise FormatError(
                f"{folder / shard.name}: {len(lines)} samples, the manifest says {shard.frames}; "
                "run 'python -m shards verify' on its folder"
            )
        name = shard.name.removesuffix(".tar") + ".idx"
        text = "".join(f"{line}\n" for line in (f"{VERSION} {len(lines)}", *lines))
        sink.write(name, text.encode())
        tars.append(folder / shard.name)
        indexes.append(out / name)
        progress(number + 1)
    frames = sum(shard.frames for shard in manifest.shards)
    return DaliFiles(tars=tuple(tars), indexes=tuple(indexes), frames=frames)


def _samples(path: Path) -> list[str]:
    """Line of every sample of a shard; only headers are read."""
    lines: list[str] = []
    last = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                base, _, extension = member.name.rpartition(".")
                text = f"{extension} {member.offset_data} {member.size} {member.name}"
                if base == last:
                    lines[-1] += f" {text}"
                else:
                    lines.append(text)
                last = base
    except tarfile.TarError as error:
        raise FormatError(
            f"{path}: damaged tar after {len(lines)} samples: {error}; run 'python -m shards "
            "verify' on its folder"
        ) from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return lines
