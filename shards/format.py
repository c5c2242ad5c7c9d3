"""Names, sample descriptions and the manifest: format version 1, as FORMAT.md specifies it.

Arrays here are small and per sample; the columns of a whole data set are in `shards.index`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

import numpy as np
from annotated_types import Ge, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from shards.errors import FormatError, VersionError
from shards.geometry import Float, Grid

__all__ = [
    "FORMAT_VERSION",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "Kind",
    "Manifest",
    "Sample",
    "ShardInfo",
    "check_category_name",
    "check_crop_file",
    "check_dataset_name",
    "check_file_name",
    "dataset_folders",
    "sample_key",
    "shard_name",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.arrow"
Kind = Literal["image", "video"]

_DATASET = re.compile(r"[a-z0-9][a-z0-9_-]*")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_CROP_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_~%-][A-Za-z0-9_.~%-]*)?")


_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, breaks of lines


def check_category_name(name: str) -> str:
    """Return `name` if it can name a class: some text, without control characters, in UTF-8."""
    if not name:
        raise FormatError("the name of a class is empty")
    for character in name:
        if unicodedata.category(character) in _NO_TEXT:
            raise FormatError(
                f"class name {ascii(name)[:80]}: no name may have the character "
                f"U+{ord(character):04X}: a control character, a break of the line or half a pair"
            )
    return name


def check_dataset_name(name: str) -> str:
    """Return `name` if it can name a data set: lower-case letters, digits, ``_`` and ``-``."""
    if not _DATASET.fullmatch(name):
        raise FormatError(
            f"data set name {name!r}: use lower-case letters, digits, '_' and '-', as in 'got10k'"
        )
    return name


def check_file_name(name: str) -> str:
    """Return `name` if it is a plain file name: no folder, no leading dot, no URL, no pipe."""
    if not _FILE.fullmatch(name):
        raise FormatError(
            f"file name {name!r} in an index or manifest: only plain names beside it are allowed"
        )
    return name


def check_crop_file(name: str) -> str:
    """Return `name` if crops may be read from it: a plain file name, or one in a plain folder.

    The folder is for crops that are files of their own; nothing leads out of the data set's folder.
    """
    if not _CROP_FILE.fullmatch(name):
        raise FormatError(
            f"file name {name!r} in an index: only plain names are allowed, with at most one "
            "folder before them"
        )
    return name


def shard_name(dataset: str, number: int) -> str:
    """File name of a shard, ``<dataset>-<number:06d>.tar``."""
    return f"{check_dataset_name(dataset)}-{number:06d}.tar"


def sample_key(sequence: str, track: int, frame: int) -> str:
    """WebDataset key ``<sequence>/<track>_<frame:08d>``.

    Characters of the sequence other than ASCII letters, digits, ``-``, ``_`` and ``~`` are
    percent-encoded (UTF-8), so that any name is one folder, has no dot and stays unique.
    """
    folder = quote(sequence, safe="").replace(".", "%2E")
    if not folder or track < 0 or frame < 0:
        raise FormatError(
            f"a sample needs a sequence name and numbers from 0, got {sequence!r}, {track}, {frame}"
        )
    return f"{folder}/{track}_{frame:08d}"


def _short(values: Float | None) -> Any:
    """Nested lists of Python floats that print as the shortest text that is the same float32."""
    if values is None:
        return None
    if values.ndim == 0:
        return float(str(np.float32(values)))
    return [_short(v) for v in values]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """Everything known about one crop but its pixels.

    Attributes
    ----------
    sequence, track, frame : where it comes from; `frame` is the data set's own number
    kind : ``video``, or ``image`` for data sets of single pictures
    fps : annotation rate of the video, or None where unknown
    boxes : (K, 4) float32 xyxy in crop pixels, the target first
    categories : K class names, the target's first
    ignore : K flags; True for crowds and other boxes that are not single objects
    visible : visible share of the target, 0..1, or None where not annotated
    mean_rgb : (3,) float32, mean colour of the whole source frame, which fills the crop's border
    source : path of the source frame relative to the raw root
    source_size : width and height of the source frame
    region : (4,) float32 xyxy, the part of the source frame that the crop shows, in its pixels

    The last four are None for crops that others made and whose source frames are not known.
    """

    sequence: str
    track: int
    frame: int
    kind: Kind
    fps: float | None
    boxes: Float
    categories: tuple[str, ...]
    ignore: tuple[bool, ...]
    visible: float | None
    mean_rgb: Float | None
    source: str | None
    source_size: tuple[int, int] | None
    region: Float | None

    def __post_init__(self) -> None:
        for name, shape in (
            ("boxes", (len(self.categories), 4)),
            ("mean_rgb", (3,)),
            ("region", (4,)),
        ):
            given = getattr(self, name)
            if given is None and name != "boxes":
                continue
            value = np.asarray(given, np.float32)
            if value.shape != shape or not np.isfinite(value).all():
                raise FormatError(
                    f"{self.key}: {name} must be finite numbers of shape {shape}, "
                    f"got {value.tolist()}"
                )
            object.__setattr__(self, name, value)
        if not self.categories or len(self.ignore) != len(self.categories):
            raise FormatError(
                f"{self.key}: {len(self.categories)} categories and {len(self.ignore)} ignore "
                "flags; a sample has one of each for every box, and at least the target's box"
            )

    @property
    def key(self) -> str:
        """WebDataset key."""
        return sample_key(self.sequence, self.track, self.frame)

    @property
    def category(self) -> str:
        """Class name of the target."""
        return self.categories[0]

    def to_json(self) -> bytes:
        """Return the ``.json`` member of the sample: ASCII, one line, numbers exact to float32."""
        facts = {
            "sequence": self.sequence,
            "track": self.track,
            "frame": self.frame,
            "kind": self.kind,
            "fps": None if self.fps is None else _short(np.float32(self.fps)),  # type: ignore[arg-type]
            "boxes": _short(self.boxes),
            "categories": list(self.categories),
            "ignore": list(self.ignore),
            "category": self.category,
            "visible": None if self.visible is None else _short(np.float32(self.visible)),  # type: ignore[arg-type]
            "mean_rgb": _short(self.mean_rgb),
            "source": self.source,
            "source_size": None if self.source_size is None else list(self.source_size),
            "region": _short(self.region),
        }
        return json.dumps(facts, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Sample:
        """Read a ``.json`` member.

        Parameters
        ----------
        data : bytes of the member
        where : shard and member, for messages

        Raises
        ------
        FormatError : if it is not such a member
        """
        try:
            facts = json.loads(data)
            mean, source, region = facts["mean_rgb"], facts["source"], facts["region"]
            size = facts["source_size"]
            sample = cls(
                sequence=_typed(facts["sequence"], str),
                track=_typed(facts["track"], int),
                frame=_typed(facts["frame"], int),
                kind=facts["kind"],
                fps=None if facts["fps"] is None else float(facts["fps"]),
                boxes=np.array(facts["boxes"], np.float32).reshape(-1, 4),
                categories=tuple(_typed(name, str) for name in facts["categories"]),
                ignore=tuple(_typed(flag, bool) for flag in facts["ignore"]),
                visible=None if facts["visible"] is None else float(facts["visible"]),
                mean_rgb=None if mean is None else np.array(mean, np.float32),
                source=None if source is None else _typed(source, str),
                source_size=None if size is None else (int(size[0]), int(size[1])),
                region=None if region is None else np.array(region, np.float32),
            )
        except (ValueError, KeyError, TypeError, IndexError, FormatError) as error:
            raise FormatError(f"{where}: not a sample description: {error!r}") from error
        if sample.kind not in ("image", "video"):
            raise FormatError(f"{where}: kind must be 'image' or 'video', got {sample.kind!r}")
        return sample


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One line of the manifest's list of shards: file name, size, samples and SHA-256."""

    name: str
    bytes: Annotated[int, Ge(0)]
    frames: Annotated[int, Ge(0)]
    sha256: str


class IndexInfo(TypedDict):
    """The manifest's entry of the index."""

    name: str
    bytes: int
    sha256: str


class Counts(TypedDict):
    """What a data set holds; categories are those of targets."""

    frames: int
    tracks: int
    sequences: int
    categories: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """``manifest.json``: what a folder of shards holds. No times and no host names.

    Attributes
    ----------
    name : data set
    grid, crop_size : geometry of the crops; `crop_size` in pixels
    quality, stride : of the packer; None where the crops were made by others
    options : every packer option that changes the bytes
    versions : of the format and of the libraries that made pixels and bytes
    counts : frames, tracks, sequences, categories
    rejected : frames and boxes left out, by reason
    rejected_examples : for every reason some of the frames, to look at: the ``frame``
        (``<sequence>/<number>``, of a picture with several objects ``<sequence>#<row>``), its
        ``picture`` below the raw root and its ``box`` (xyxy in pixels of the picture), or None
    missing : official sequences that were not on disk
    notes : facts that a reader should know, such as files that were absent
    shards : in order; for crops of others that are used in place, their zip or folder
    index : name, size and SHA-256 of the index
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    grid: Grid
    crop_size: Annotated[int, Ge(1)]
    quality: int | None
    stride: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    counts: Counts
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejected_examples: Mapping[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shards: Annotated[tuple[ShardInfo, ...], MinLen(1)]
    index: IndexInfo
    format_version: int = FORMAT_VERSION

    @property
    def in_place(self) -> bool:
        """Whether the crops lie in a zip or folder of others instead of tar shards."""
        return not all(shard.name.endswith(".tar") for shard in self.shards)

    def to_json(self) -> bytes:
        """Return the file's bytes: indented, keys in the order of this class."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of a folder.

        Raises
        ------
        FormatError : if the folder has none, or it is damaged
        VersionError : if it is of another format version
        """
        try:
            data = (folder / MANIFEST_NAME).read_bytes()
        except FileNotFoundError as error:
            raise FormatError(
                f"{folder} has no {MANIFEST_NAME}: it is no packed data set, or packing was not "
                "finished; run the packer again (it goes on), or 'python -m shards index' over tars"
            ) from error
        return cls.from_json(data, str(folder / MANIFEST_NAME))

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read and check the bytes of a manifest.

        Parameters
        ----------
        data : content of the file
        where : its path or URL, for messages

        Raises
        ------
        FormatError : if it is damaged
        VersionError : if it is of another format version
        """
        try:
            facts = json.loads(data)
        except ValueError as error:
            raise FormatError(
                f"{where}: damaged: {error}; delete it and run 'python -m shards index', which "
                "makes it again but for the packer's options and report, or pack again"
            ) from error
        if not isinstance(facts, dict):
            raise FormatError(f"{where}: not a manifest: it is no JSON object")
        check_version(facts.get("format_version"), where)
        try:
            manifest = TypeAdapter(cls).validate_json(data, strict=True)
            check_dataset_name(manifest.name)
            for shard in manifest.shards:
                check_file_name(shard.name)
        except (ValidationError, FormatError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            raise FormatError(
                f"{where}: not a manifest of format {FORMAT_VERSION}: {what}"
            ) from error
        return manifest


def check_version(found: object, where: str) -> None:
    """Refuse another format version, saying which release reads it."""
    if found != FORMAT_VERSION:
        newer = isinstance(found, int) and found > FORMAT_VERSION
        raise VersionError(
            f"{where}: format version {found!r}, this release reads {FORMAT_VERSION}; "
            + ("install a newer siamstream" if newer else "pack the data set again")
        )


def dataset_folders(path: Path) -> list[Path]:
    """Folders with a manifest: `path` itself, or else those directly below it, sorted by name."""
    if (path / MANIFEST_NAME).is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if (child / MANIFEST_NAME).is_file())
