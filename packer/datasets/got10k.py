"""GOT-10k: 9,335 training videos of 563 object classes, one object each (Huang et al., PAMI 2019).

Source: http://got-10k.aitestunion.com (registration; for research). Annotated at 10 frames a
second.

Layout: ``train/GOT-10k_Train_000001/{00000001.jpg, groundtruth.txt, absence.label, cover.label,
cut_by_image.label, meta_info.ini}`` and ``train/list.txt``; the same for ``val`` (180 videos) and
``test`` (180, first box only). The root may be the folder itself, or lie above it. ``list.txt`` is
optional; sequences are chosen by name, never by their place in it.

Boxes: ``x,y,w,h`` a line in pixels with decimals, counted from 0, exclusive width: x1 = x + w. They
may leave the picture. ``absence.label`` has 1 where the object is not visible; boxes there are
-1,-1,-1,-1 mostly. ``cover.label`` has 0 to 8, the visible part in eighths.

Classes are those of ``major_class`` in meta_info.ini, 115 names.

44 training sequences are known to be badly annotated (list of the video_analyst project): some
repeat their first picture for many frames, one changes its resolution. By default they are left
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from packer.sequence import Found, Problem, Sequence, Split, Survey, named
from packer.source import Entry, RefusedLink, Source
from packer.video import Boxes, Flags, assemble, entries_of, read_boxes, read_levels, read_pictures
from shards.classinfo import UNKNOWN
from shards.errors import DataError

__all__ = ["KNOWN_BAD", "MAJOR_CLASSES", "Got10k", "official", "parse_meta"]

OFFICIAL = {"train": ("Train", 9335), "val": ("Val", 180), "test": ("Test", 180)}
KNOWN_BAD_NUMBERS = (
    "399 4225 4419 5912 5914 5996 6852 7086 7126 7788 7947 7948 8004-8012 8025 8249 8368 8380 8604 "
    "8623-8637 9058 9059 9186"
)
COVER_LEVELS = 8  # cover.label: visible part in eighths
DEEPEST = 4  # folders between the root and a sequence

# Names of major_class, in the order of the published class numbers.
MAJOR_CLASSES: tuple[str, ...] = tuple(
    """\
aircraft, ambulance, anteater, antelope, armadillo, balance car, ball, bear, bicycle, big truck,
bird, bison, boneshaker, bovine, bumper car, camel, canine, canoeing, car, cat, cetacean,
cheetah, chevrotain, crocodilian reptile, deer, dogsled, elephant, fire engine, fish, forest
goat, galleon, giraffe, goat, goat antelope, hagfish, half track, handcart, hinny, hippopotamus,
horse, humvee, hyrax, insectivore, invertebrate, jaguar, JetLev-Flyer, lagomorph, lamprey,
landing craft, larva, leopard, lion, lizard, llama, luge, marsupial, mole, motor scooter, mule,
multistage rocket, musk ox, musteline mammal, natural object, object part, old world buffalo,
others, passenger ship, peccary, person, pickup truck, pinniped mammal, platypus, primate,
procyonid, pung, railway, reconnaissance vehicle, rhinoceros, road race, rodent, rolling stock,
sailboard, scooter, sea cow, self-propelled vehicle, sheep, skateboard, skibob, sloth, snake,
snow leopard, spacecraft, steamroller, submersible, swine, tank, tapir, tiglon, toboggan,
trailer, train, tree shrew, tricycle, troop carrier, tuatara, turtle, unicycle, vessel,
viverrine, wagon, warplane, warship, wheelchair, wild sheep, zebra""".replace("\n", " ").split(", ")
)

_NAME = re.compile(r"GOT-10k_(Train|Val|Test)_(\d{6})")
_PICTURE = re.compile(r"(\d{8})\.jpe?g", re.IGNORECASE)
_BOXES, _META, _LIST = "groundtruth.txt", "meta_info.ini", "list.txt"


def _known_bad() -> frozenset[str]:
    numbers: list[int] = []
    for entry in KNOWN_BAD_NUMBERS.split():
        first, _, last = entry.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return frozenset(f"GOT-10k_Train_{number:06d}" for number in numbers)


KNOWN_BAD: frozenset[str] = _known_bad()


def official(split: str) -> list[str]:
    """Names of the official sequences of a split: 9,335 train, 180 val, 180 test."""
    word, count = OFFICIAL[split]
    return [f"GOT-10k_{word}_{number:06d}" for number in range(1, count + 1)]


def parse_meta(data: bytes) -> dict[str, str]:
    """Values of a meta_info.ini: lines ``key: value``, cut at the first colon.

    Whatever else there is, such as the line ``[METAINFO]``, is passed over.
    """
    pairs = (line.partition(":") for line in data.decode("utf-8-sig", "replace").splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


@dataclass(frozen=True, kw_only=True, slots=True)
class Got10k:
    """GOT-10k with its options; fits `packer.sequence.DataSet`.

    Attributes
    ----------
    min_visible : frames of which a smaller part is visible are left out; None: no such test
    keep_known_bad : pack the sequences that are known to be badly annotated
    """

    NAME: ClassVar[str] = "got10k"
    LAYOUT: ClassVar[str] = (
        "<root>/train/GOT-10k_Train_000001/ or <root>/GOT-10k_Train_000001/ with 00000001.jpg and "
        "groundtruth.txt"
    )
    STRIDE: ClassVar[int] = 1
    MIN_SIZE: ClassVar[int] = 1
    MIN_EXCLUSIVE: ClassVar[bool] = False
    SPLITS: ClassVar[tuple[Split, ...]] = ("train", "val", "test", "all")
    FPS: ClassVar[float] = 10.0

    min_visible: Annotated[float, Interval(ge=0, le=1)] | None = None
    keep_known_bad: bool = False

    def __post_init__(self) -> None:
        if self.min_visible is not None and not 0 <= self.min_visible <= 1:
            raise ValueError(f"min_visible must be 0 to 1, got {self.min_visible}")

    def options(self) -> dict[str, Any]:
        """Options that change what is packed."""
        return {"min_visible": self.min_visible, "keep_known_bad": self.keep_known_bad}

    def survey(self, source: Source, split: Split) -> Survey:
        """List the sequences of a split that are on disk; ``all`` is train and val.

        Raises
        ------
        DataError : if there is none at all, or none of this split
        """
        tree = _explore(source)
        if not tree.sequences:
            faults = "".join(f"; {fault}" for fault in (*tree.problems, *tree.notes))
            raise DataError(f"no sequences found; expected {self.LAYOUT}{faults}")
        splits = ("train", "val") if split == "all" else (split,)
        found: dict[str, Found] = {}
        problems = list(tree.problems)
        for folder in tree.sequences:
            name, own = _last(folder), _split_of(folder)
            if own not in splits:
                continue
            if name in found:
                what = f"{name} is there twice, also as {found[name].folder}"
                problems.append(Problem(folder, what))
                continue
            match = _NAME.fullmatch(name)
            found[name] = Found(
                name=name,
                category="",  # known only when it is read
                number=int(match[2]) if match else 0,
                folder=folder,
                path=f"{own}/{name}",
            )
        if not found:
            held = sorted({_split_of(folder) for folder in tree.sequences})
            raise DataError(
                f"none of the {len(tree.sequences)} sequences is of --split {split}; "
                f"on disk are: {', '.join(held)}"
            )
        listed = _listed(source, tree.lists, splits, problems)
        left_out = frozenset() if self.keep_known_bad else KNOWN_BAD
        wanted = dict.fromkeys([name for one in splits for name in official(one)] + listed)
        notes = [
            *tree.notes,
            *_list_notes(found, listed),
            *_known_bad_notes(left_out & found.keys()),
        ]
        return Survey(
            found=tuple(found[name] for name in sorted(found.keys() - left_out)),
            missing=tuple(name for name in wanted if name not in found and name not in left_out),
            notes=tuple(notes),
            problems=tuple(problems),
        )

    def read(self, source: Source, found: Found) -> Sequence:
        """Read one sequence: annotations and the names of its pictures."""
        problems: list[Problem] = []
        notes: list[str] = []
        folder = found.folder
        entries = entries_of(source, folder, problems)
        pictures = read_pictures(entries, folder, _PICTURE, 1, problems)
        if not pictures:
            problems.append(Problem(folder, "no pictures; they are named 00000001.jpg and so on"))
        boxes = read_boxes(source, f"{folder}/{_BOXES}", _BOXES in entries, problems)
        return assemble(
            found,
            category=_category(source, folder, entries, problems, notes),
            fps=self.FPS,
            first=1,
            pictures_at=folder,
            source_at=found.path,
            pictures=pictures,
            boxes=boxes,
            flags=self._flags(source, folder, entries, boxes, problems, notes),
            problems=problems,
            notes=tuple(notes),
        )

    def _flags(
        self,
        source: Source,
        folder: str,
        entries: dict[str, Entry],
        boxes: Boxes,
        problems: list[Problem],
        notes: list[str],
    ) -> Flags:
        """Absent frames, the visible part of each, and those with too little of it."""
        flags = Flags.none(len(boxes.xywh))
        absent, bad, covered = flags.absent, flags.bad, flags.covered
        visible: npt.NDArray[np.float32] | None = None
        if "absence.label" in entries:
            levels = read_levels(source, f"{folder}/absence.label", 1, boxes, problems)
            absent, bad = levels == 1, bad | (levels < 0)
        elif boxes.there:
            notes.append("no absence.label: frames taken as visible")
        if "cover.label" in entries:
            levels = read_levels(source, f"{folder}/cover.label", COVER_LEVELS, boxes, problems)
            bad = bad | (levels < 0)
            visible = np.maximum(levels, 0).astype(np.float32) / np.float32(COVER_LEVELS)
            if self.min_visible is not None:
                covered = levels < self.min_visible * COVER_LEVELS
        elif self.min_visible is not None:
            problems.append(Problem(folder, "no cover.label, which --min-visible needs"))
            bad = np.ones_like(bad)
        elif boxes.there:
            notes.append("no cover.label: visible part not known")
        if "cut_by_image.label" in entries:  # not used, but a wrong length tells of a damaged copy
            read_levels(source, f"{folder}/cut_by_image.label", 1, boxes, problems)
        return Flags(absent=absent, bad=bad, covered=covered, visible=visible)


_SPLIT_WORDS = frozenset(("train", "val", "test"))


class _Tree(NamedTuple):
    """Folders of sequences, the list.txt files beside them, what cannot be listed, other links."""

    sequences: list[str]
    lists: list[str]
    problems: list[Problem]
    notes: list[str]


def _explore(source: Source) -> _Tree:
    """Find sequences: folders of an official name, or with a groundtruth.txt."""
    tree = _Tree([], [], [], [])
    _explore_folder(source, "", source.list(""), tree, DEEPEST)
    return tree


def _explore_folder(
    source: Source, folder: str, entries: Iterable[Entry], tree: _Tree, depth: int
) -> None:
    prefix = f"{folder}/" if folder else ""
    for entry in entries:
        path = prefix + entry.name
        if entry.is_folder and _NAME.fullmatch(entry.name):
            tree.sequences.append(path)  # known by its name: 9,335 folders need no look inside
        elif depth and (entry.is_folder or entry.is_archive):
            inner = _listing(source, path, tree)
            if _BOXES in inner:
                tree.sequences.append(path)
            else:
                _explore_folder(source, path, inner.values(), tree, depth - 1)
        elif entry.name == _LIST:
            tree.lists.append(path)


def _listing(source: Source, folder: str, tree: _Tree) -> dict[str, Entry]:
    """Names in a folder; a refused link that is not named like a split is only noted."""
    try:
        return {entry.name: entry for entry in source.list(folder)}
    except DataError as error:
        words = re.split(r"[/_.-]", _last(folder).lower())
        if isinstance(error, RefusedLink) and _SPLIT_WORDS.isdisjoint(words):
            tree.notes.append(f"link {folder} not read: {error}")
        else:
            tree.problems.append(Problem(folder, str(error)))
        return {}


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _split_of(path: str) -> Split:
    """Split of a sequence or a list.txt: by its official name, else by the folders that hold it."""
    match = _NAME.fullmatch(_last(path))
    words = [match[1].lower()] if match else re.split(r"[/_.-]", path.lower())[::-1]
    splits: tuple[Split, ...] = ("train", "val", "test")
    return next((split for word in words for split in splits if word == split), "train")


def _listed(
    source: Source, lists: list[str], splits: tuple[str, ...], problems: list[Problem]
) -> list[str]:
    """Names in the list.txt files of the splits."""
    names: list[str] = []
    for path in lists:
        try:
            text = source.read(path).decode("utf-8-sig")
        except (DataError, UnicodeDecodeError) as error:
            problems.append(Problem(path, f"cannot be read as a list of names: {error}"))
            continue
        for line in text.splitlines():
            name = line.strip()
            own = _split_of(name if _NAME.fullmatch(name) else path)
            if name and own in splits:
                names.append(name)
    return names


def _list_notes(found: dict[str, Found], listed: list[str]) -> list[str]:
    """Differences between list.txt and the disk."""
    if not listed:
        return []
    notes = []
    lacking = sorted(set(listed) - found.keys())
    if lacking:
        notes.append(f"{len(lacking):,} names of {_LIST} are not on disk: {named(lacking)}")
    extra = sorted(found.keys() - set(listed))
    if extra:
        notes.append(f"{len(extra):,} sequences on disk are not in {_LIST}: {named(extra)}")
    return notes


def _known_bad_notes(left_out: Iterable[str]) -> list[str]:
    numbers = sorted(_last(name.replace("_", "/")) for name in left_out)
    if not numbers:
        return []
    return [
        f"{len(numbers)} sequences known to be badly annotated left out: {' '.join(numbers)} "
        "(--keep-known-bad packs them)"
    ]


def _category(
    source: Source,
    folder: str,
    entries: dict[str, Entry],
    problems: list[Problem],
    notes: list[str],
) -> str:
    """Class of a sequence: major_class of its meta_info.ini."""
    if _META not in entries:
        notes.append(f"no {_META}: category {UNKNOWN!r}")
        return UNKNOWN
    try:
        meta = parse_meta(source.read(f"{folder}/{_META}"))
    except DataError as error:
        problems.append(Problem(f"{folder}/{_META}", str(error)))
        return UNKNOWN
    category = meta.get("major_class", "")
    if category.lower() in ("", "none", UNKNOWN):
        notes.append(f"no major_class in {_META}: category {UNKNOWN!r}")
        return UNKNOWN
    if category not in MAJOR_CLASSES:
        notes.append("major_class is none of the 115 published ones, taken as it is")
    return category
