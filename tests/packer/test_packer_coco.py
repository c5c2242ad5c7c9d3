"""COCO: several objects a picture, one decode, annotations of every kind of wrongness."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import coco_tree
import numpy as np
import pytest
from lasot_tree import hashes, packed_frames, picture

from packer.datasets import coco
from packer.filters import Filters
from packer.jobs import PackOptions
from packer.report import Report
from packer.run import Malformed, pack
from packer.source import open_source
from shards import pixels
from shards.errors import DataError, MismatchError
from shards.format import Manifest
from shards.geometry import boxes_to_regions, crop_region
from shards.index import Index
from shards.verify import verify

OPTIONS = PackOptions(stride=1, min_size=4, size=127, frames_per_shard=4)


def run(root: Path, out: Path, **more: Any) -> Report:
    found = coco.locate(root)
    return pack(found, found.images, out, OPTIONS, **{"workers": 1, **more})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_tree.tree(tmp_path_factory.mktemp("raw") / "coco")


@pytest.fixture(scope="module")
def out(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "coco"
    run(tree, folder)
    return folder


def test_every_kept_object_is_a_track_of_one_frame(out: Path) -> None:
    found = packed_frames(out)
    assert [(f["sequence"], f["track"], f["frame"], f["category"]) for f in found] == [
        ("000000000005", 0, 0, "toothbrush"),
        ("000000000005", 1, 0, "person"),
        ("000000000017", 0, 0, "car"),
        ("000000000017", 1, 0, "person"),
        ("000000000040", 0, 0, "person"),
    ]
    assert all((f["kind"], f["fps"], f["visible"]) == ("image", None, None) for f in found)
    assert found[2]["source"] == "000000000017.jpg"
    assert verify(out).ok
    index = Index(out)
    assert (len(index), index.is_image) == (5, True)
    manifest = Manifest.read(out)
    assert manifest.counts == {"frames": 5, "tracks": 5, "sequences": 3, "categories": 3}
    assert manifest.rejected == {"no_box": 2, "small": 2, "outside": 1, "crowd": 1}
    examples = manifest.rejected_examples.items()
    assert {reason: [one["frame"] for one in found] for reason, found in examples} == {
        "no_box": ["000000000005#1", "000000000040#3"],
        "small": ["000000000017#3", "000000000040#2"],
        "outside": ["000000000040#1"],
        "crowd": ["000000000017#2"],
    }
    assert "1 pictures have no boxes" in manifest.notes


def test_all_boxes_of_the_picture_go_along_after_the_target(out: Path) -> None:
    published = coco_tree.facts()["annotations"]
    mine = [a["bbox"] for a in published if a["image_id"] == 17]
    edges = np.array([[x, y, x + w, y + h] for x, y, w, h in mine])
    for track, order in ((0, [0, 1, 2, 3]), (1, [1, 0, 2, 3])):
        sample = next(
            f for f in packed_frames(out) if (f["sequence"], f["track"]) == ("000000000017", track)
        )
        assert sample["categories"] == [["car", "person", "person", "car"][row] for row in order]
        assert sample["ignore"] == [[False, False, True, False][row] for row in order]
        region = crop_region(edges[order[0]], 127)
        np.testing.assert_allclose(
            sample["boxes"], boxes_to_regions(edges[order], region, 127), rtol=1e-5
        )
    boxless = [f for f in packed_frames(out) if f["sequence"] == "000000000005"]
    assert [len(f["boxes"]) for f in boxless] == [2, 2]  # the one without width does not go along


def test_a_picture_is_read_and_decoded_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from packer.crop import Cropper
    from packer.draft import draft, silent

    found = coco.locate(tree)
    source = open_source(found.images)
    jobs = draft(found, source, OPTIONS, silent).jobs
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(pixels, name)

        def call(*args: Any) -> Any:
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(pixels, name, call)

    counted("decode")
    counted("mean_rgb")
    for job in jobs:
        cropper = Cropper(
            source=source, size=127, quality=90, grid="edge", skip=False, tick=lambda: None
        )
        list(cropper.samples(job))
    pictures = sum(len({clip.sequence for clip in job.clips}) for job in jobs)
    assert calls == {"decode": pictures, "mean_rgb": pictures}
    assert sum(job.frames for job in jobs) > pictures


def test_a_zip_packs_the_same_bytes(tree: Path, out: Path, tmp_path: Path) -> None:
    for inside in ("", "train2017/"):
        root = tmp_path / (inside.strip("/") or "flat")
        coco_tree.annotate(root, coco_tree.facts())
        with zipfile.ZipFile(root / "train2017.zip", "w") as archive:
            for name in coco_tree.FILES.values():
                archive.write(tree / "train2017" / name, inside + name)
        run(root, root / "out")
        assert hashes(root / "out") == hashes(out)


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images"])
def test_places_of_the_pictures(tmp_path: Path, images: str, out: Path) -> None:
    root = coco_tree.tree(tmp_path / "raw", images=images)
    run(root, tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(out)


def test_two_workers_pack_the_same_bytes(tree: Path, out: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "out", workers=2)
    assert hashes(tmp_path / "out") == hashes(out)


def test_given_paths_need_no_root(tree: Path, tmp_path: Path) -> None:
    found = coco.locate(
        tmp_path / "nowhere",
        tree / "train2017",
        tree / "annotations/instances_train2017.json",
    )
    assert pack(found, found.images, tmp_path / "out", OPTIONS, workers=1).frames == 5


def test_missing_parts_name_the_places(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(DataError, match=r"instances_train2017\.json: no such file.*--annotations"):
        coco.locate(tmp_path)
    coco_tree.annotate(tmp_path, coco_tree.facts())
    with pytest.raises(DataError, match=r"no pictures at .*images/train2017.*--images"):
        coco.locate(tmp_path)
    with pytest.raises(DataError, match="no such folder or zip"):
        coco.locate(tree, images=tmp_path / "gone")


def test_partial_pictures_are_missing_and_no_error(tmp_path: Path) -> None:
    root = coco_tree.tree(tmp_path / "raw")
    (root / "train2017/000000000040.jpg").unlink()
    report = run(root, tmp_path / "out")
    assert report.missing == ("000000000040",)
    assert (report.frames, report.sequences) == (4, 2)
    for name in coco_tree.FILES.values():
        (root / "train2017" / name).unlink(missing_ok=True)
    with pytest.raises(DataError, match="none of its 3 pictures with boxes is among"):
        run(root, tmp_path / "other")


def change(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the facts with one value changed, or removed where it is `...`."""
    whole = coco_tree.facts()
    inner: Any = whole
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("annotations", 2, "bbox"), ..., "annotations[2] (id 902): key 'bbox' is missing"),
        (("annotations", 2, "image_id"), ..., "annotations[2] (id 902): key 'image_id' is missing"),
        (("annotations", 2, "category_id"), ..., "(id 902): key 'category_id' is missing"),
        (("annotations", 2, "id"), ..., "annotations[2]: key 'id' is missing"),
        (("annotations", 2), 7, "annotations[2]: an object needed, found '7'"),
        (("annotations", 2, "bbox"), [1, 2, 3], "bbox is [1, 2, 3], four numbers"),
        (("annotations", 2, "bbox"), [1, 2, 3, "4"], "four numbers x, y, w, h needed"),
        (("annotations", 2, "bbox"), [1, 2, 3, True], "four numbers x, y, w, h needed"),
        (("annotations", 2, "bbox"), [1, 2, 3, float("nan")], "not in any picture"),
        (("annotations", 2, "bbox"), [1, 2, 3e9, 4], "not in any picture"),
        (("annotations", 2, "bbox"), "1,2,3,4", "bbox is '1,2,3,4', a list needed"),
        (("annotations", 2, "iscrowd"), 2, "iscrowd is 2, 0 or 1 needed"),
        (("annotations", 2, "id"), 900, "annotations[2] (id 900): id 900 is there twice"),
        (("annotations", 2, "id"), 1 << 70, "id is out of range"),
        (("annotations", 2, "category_id"), 2, "category_id 2 is not in 'categories'"),
        (("annotations", 2, "image_id"), 6, "image_id 6 is not in 'images'"),
        (("images", 1, "file_name"), ..., "images[1] (id 5): key 'file_name' is missing"),
        (("images", 1, "id"), 17, "images[1] (id 17): id 17 is there twice"),
        (("images", 1, "file_name"), "000000000017.png", "'000000000017.png' is there twice"),
        (("images", 1, "file_name"), "../secret.jpg", "'../secret.jpg' leaves the folder"),
        (("images", 1, "file_name"), "a/../../b.jpg", "leaves the folder"),
        (("images", 1, "file_name"), "/etc/passwd", "no path below the folder"),
        (("images", 1, "file_name"), "C:\\b.jpg", "no path below the folder"),
        (("categories", 1, "name"), ..., "categories[1] (id 3): key 'name' is missing"),
        (("images", 1, "file_name"), "a\udc80.jpg", "no text that UTF-8 can hold"),
        (("images", 1, "width"), "96", "width is '96', a number of pixels needed"),
        (("images", 1, "height"), 0, "height is '0', a number of pixels needed"),
        (("images", 1, "height"), float("nan"), "height is 'nan', a number of pixels needed"),
        (("categories", 1, "name"), "", "the name of a class is empty"),
        (("categories", 1, "name"), "a\ud800", "may have the character U+D800"),
        (("categories", 1, "name"), "a\nb", "may have the character U+000A"),
        (("categories", 1, "name"), "a\x1b[31m", "may have the character U+001B"),
        (("categories", 1, "id"), 1, "categories[1] (id 1): id 1 is there twice"),
    ],
)
def test_malformed_entries_are_named(
    tmp_path: Path, path: tuple[Any, ...], value: Any, text: str
) -> None:
    root = coco_tree.tree(tmp_path / "raw", change(path, value))
    with pytest.raises(Malformed) as caught:
        run(root, tmp_path / "out")
    assert f"instances_train2017.json: {path[0]}[{path[1]}]" in str(caught.value)
    assert text in str(caught.value)
    assert not (tmp_path / "out").exists()
    skipped = run(root, tmp_path / "skipped", on_error="skip")
    assert 0 < skipped.frames <= 5


def test_skip_counts_malformed_boxes_and_keeps_the_rest(tmp_path: Path) -> None:
    root = coco_tree.tree(tmp_path / "raw", change(("annotations", 2, "bbox"), [1, 2, 3]))
    report = run(root, tmp_path / "out", on_error="skip")
    assert report.rejected["bad_annotation"] == 1
    assert report.frames == 4
    lost = coco_tree.tree(tmp_path / "lost", change(("annotations", 2, "image_id"), 6))
    assert "1 annotations belong to no picture of the file" in (
        run(lost, tmp_path / "lost_out", on_error="skip").notes
    )


def test_skip_counts_what_belongs_to_no_picture(tmp_path: Path) -> None:
    value = coco_tree.facts()
    value["annotations"][2]["image_id"] = 6  # no such picture
    value["annotations"][3] = 7  # no annotation
    del value["images"][1]["file_name"]  # of annotations 1, 5 and 6
    report = run(coco_tree.tree(tmp_path / "raw", value), tmp_path / "out", on_error="skip")
    assert report.rejected["no_picture"] == 4
    assert report.rejected["bad_annotation"] == 2
    examples = Manifest.read(tmp_path / "out").rejected_examples
    assert [one["frame"] for one in examples["no_picture"]] == [
        f"annotations[{number}]" for number in (1, 2, 5, 6)
    ]
    assert [one["frame"] for one in examples["bad_annotation"]] == ["images[1]", "annotations[3]"]


def test_a_picture_of_another_size_than_its_entry_says(tmp_path: Path) -> None:
    value = coco_tree.facts()
    value["images"][0] |= {"width": 320, "height": 240}
    root = coco_tree.tree(tmp_path / "raw", value)
    (root / "train2017/000000000017.jpg").write_bytes(picture(0, (640, 480)))
    words = "640x480 pixels, the annotations say 320x240"
    with pytest.raises(Malformed) as caught:
        run(root, tmp_path / "out")
    assert list(map(str, caught.value.problems)) == [f"000000000017.jpg: {words}"]
    report = run(root, tmp_path / "out", on_error="skip")
    assert (report.frames, report.rejected["unreadable"]) == (3, 2)
    examples = Manifest.read(tmp_path / "out").rejected_examples["unreadable"]
    assert [(one["frame"], one["why"]) for one in examples] == [
        ("000000000017#0", words),
        ("000000000017#1", words),
    ]
    for changed in ({"width": None}, {"width": 640.0, "height": 480}):
        value["images"][0] |= changed  # not given, or right
        coco_tree.annotate(root, value)
        assert "unreadable" not in run(root, tmp_path / str(len(changed))).rejected


def test_all_malformed_entries_are_listed_together(tmp_path: Path) -> None:
    value = change(("annotations", 2, "bbox"), ...)
    value["annotations"][5]["category_id"] = 2
    value["images"].append({"id": 99})
    with pytest.raises(Malformed) as caught:
        run(coco_tree.tree(tmp_path / "raw", value), tmp_path / "out")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "an object needed"),
        ("[1, 2]", "an object needed"),
        ("<html>", "an object needed"),
        ('{"images": [{"id": 1', "may be cut short"),
        ("{}", "nothing in 'images'"),
        ({"images": {}, "annotations": [], "categories": []}, "'images' is no list"),
        ({"images": [], "annotations": [], "categories": []}, "nothing in 'images'"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}, "in 'annotations'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, value: Any, text: str) -> None:
    root = coco_tree.tree(tmp_path / "raw", value)
    with pytest.raises(DataError, match=text):
        run(root, tmp_path / "out")


def test_flags_that_are_absent_are_noted(tmp_path: Path) -> None:
    value = change(("annotations", 0, "iscrowd"), ...)
    report = run(coco_tree.tree(tmp_path / "raw", value), tmp_path / "out")
    assert "1 annotations without iscrowd taken as single objects" in report.notes
    assert report.frames == 5


def test_other_classes_are_no_targets_but_go_along(tree: Path, tmp_path: Path) -> None:
    filters = Filters(categories=frozenset({"person"}))
    report = run(tree, tmp_path / "out", filters=filters)
    found = packed_frames(tmp_path / "out")
    assert {f["category"] for f in found} == {"person"}
    assert (report.frames, report.rejected) == (3, {"outside": 1, "crowd": 1})
    in_17 = next(f for f in found if f["sequence"] == "000000000017")
    assert (in_17["track"], in_17["categories"]) == (0, ["person", "car", "person", "car"])


def test_a_damaged_picture_is_one_problem_and_every_box_is_counted(tmp_path: Path) -> None:
    root = coco_tree.tree(tmp_path / "raw")
    (root / "train2017/000000000017.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(Malformed) as caught:
        run(root, tmp_path / "out")
    assert [problem.where for problem in caught.value.problems] == ["000000000017.jpg"]
    report = run(root, tmp_path / "out", on_error="skip")
    assert report.rejected["unreadable"] == 2
    examples = Manifest.read(tmp_path / "out").rejected_examples["unreadable"]
    assert [one["frame"] for one in examples] == ["000000000017#0", "000000000017#1"]


def test_another_annotation_file_is_another_input(tree: Path, tmp_path: Path) -> None:
    root = coco_tree.tree(tmp_path / "raw")
    run(root, tmp_path / "out")
    coco_tree.annotate(root, change(("annotations", 3, "iscrowd"), 0))
    with pytest.raises(MismatchError, match=r"input \(SHA-256"):
        run(root, tmp_path / "out")


def test_names_with_folders(tmp_path: Path) -> None:
    value = coco_tree.facts()
    for image in value["images"]:
        image["file_name"] = f"part/{image['file_name']}"
    root = coco_tree.tree(tmp_path / "raw", value, images="images/part")
    run(root, tmp_path / "out")
    first = packed_frames(tmp_path / "out")[0]
    assert (first["sequence"], first["source"]) == (
        "part/000000000005",
        "part/000000000005.jpg",
    )


@pytest.mark.slow
def test_the_real_pictures(real_data: Path, tmp_path: Path) -> None:
    found = coco.locate(real_data / "coco")
    published = json.loads(found.annotations.read_text())
    report = pack(
        found, found.images, tmp_path / "out", PackOptions(stride=1, min_size=4), workers=2
    )
    small = sum(min(a["bbox"][2:]) <= 4 and not a["iscrowd"] for a in published["annotations"])
    assert report.rejected == {"small": small, "crowd": 4}
    assert report.frames == 288 - small - 4
    assert (report.sequences, report.missing) == (30, ())
    assert "2 pictures have no boxes" in report.notes
    assert verify(tmp_path / "out").ok
    per_picture = Counter(a["image_id"] for a in published["annotations"])
    names = {i["file_name"].rpartition(".")[0]: i["id"] for i in published["images"]}
    for sample in packed_frames(tmp_path / "out"):
        assert len(sample["boxes"]) == per_picture[names[sample["sequence"]]]
        x0, y0, x1, y1 = sample["boxes"][0]
        np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], 223, atol=1e-3)


TRUE_SIZE = """
import sys
from pathlib import Path
from packer.datasets.coco import Coco
from packer.source import open_source


def peak_mb():  # of this program: `ru_maxrss` begins at the memory of who started it
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024

base = peak_mb()
found = Coco(images=Path(sys.argv[1]), annotations=Path(sys.argv[2]))
survey = found.survey(open_source(found.images), "train")
sequence = found.read(open_source(found.images), survey.found[-1])
print(len(survey.found), len(survey.missing), len(sequence.numbers))
print(peak_mb() - base)
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.1, pytest.param(1, marks=pytest.mark.services)])
def test_annotations_of_the_true_size_are_read_in_bounded_memory(
    tmp_path: Path, part: float
) -> None:
    """A tenth of COCO's, and all of it among the long tests."""
    images, count = int(118_287 * part), int(860_000 * part)
    points = ", ".join(f"{i * 7.31:.2f}" for i in range(56))
    path = tmp_path / "instances_train2017.json"
    with path.open("w") as handle:
        handle.write('{"info": {"year": 2017}, "images": [')
        handle.write(
            ", ".join(f'{{"file_name": "{i:012d}.jpg", "id": {i}}}' for i in range(images))
        )
        handle.write('], "annotations": [')
        for i in range(count):
            handle.write(
                f'{", " if i else ""}{{"segmentation": [[{points}]], "area": 702.1, "iscrowd": 0, '
                f'"image_id": {i * 7919 % images}, "bbox": [473.07, 395.93, 38.65, 28.67], '
                f'"category_id": 18, "id": {i}}}'
            )
        handle.write('], "categories": [{"supercategory": "animal", "id": 18, "name": "dog"}]}')
    assert path.stat().st_size > 400e6 * part
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{images - 1:012d}.jpg").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", TRUE_SIZE, str(tmp_path / "images"), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    counts, megabytes = done.stdout.splitlines()
    expected = sum(i * 7919 % images == images - 1 for i in range(count))
    assert counts == f"1 {images - 1} {expected}"
    assert float(megabytes) < 250 * part  # the file has over 400


def test_a_link_beside_the_pictures_that_leaves_the_root_harms_nothing(tmp_path: Path) -> None:
    pictures = tmp_path / "root" / "in" / "side"
    pictures.mkdir(parents=True)
    (pictures / "1.jpg").write_bytes(b"x")

    (tmp_path / "root" / "in" / "aaa").symlink_to("/etc")
    assert coco._present(open_source(tmp_path / "root" / "in"), ["1.jpg"]) == (
        "side",
        {"1.jpg"},
    )
