"""The old zip and pickle: what is written, what is read, and what is refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shards.errors import BadSample, FormatError
from shards.format import Manifest
from shards.index import Index
from shards.legacy import export_legacy, legacy_names, load_legacy, member_name
from shards.storage import LocalStorage, Range


@pytest.fixture(scope="module")
def lasot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("legacy")
    synthetic.pack(folder, "lasot", sequences=3, frames=4, side=64, others=2, stride=3)
    return folder / "lasot"


@pytest.fixture(scope="module")
def exported(lasot: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export_legacy(lasot, tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("coco", ("COCO.zip", "coco_clean.pkl")),
        ("got10k", ("got10k_train_images.zip", "got10k_train_clean.pkl")),
        ("trackingnet", ("TrackingNet_images.zip", "trackingnet_clean.pkl")),
        ("lasot", ("LaSOT_trian_images.zip", "lasot_train_clean.pkl")),
        ("mine", ("mine.zip", "mine_clean.pkl")),
    ],
)
def test_published_file_names(dataset: str, names: tuple[str, str]) -> None:
    assert legacy_names(dataset) == names


def test_export_reports_what_it_wrote(exported: Any) -> None:
    assert exported.zip.name == "LaSOT_trian_images.zip"
    assert exported.pickle.name == "lasot_train_clean.pkl"
    assert (exported.frames, exported.tracks) == (12, 3)
    assert sorted(path.name for path in exported.zip.parent.iterdir()) == sorted(
        [exported.zip.name, exported.pickle.name]
    )


def test_zip_holds_the_shards_bytes_flat_stored_and_without_a_clock(
    lasot: Path, exported: Any
) -> None:
    index, storage = Index(lasot), LocalStorage(lasot)
    with zipfile.ZipFile(exported.zip) as archive:
        members = archive.infolist()
        assert [member.filename for member in members[:5]] == [
            "car-1_0_1.jpg",
            "car-1_0_4.jpg",
            "car-1_0_7.jpg",
            "car-1_0_10.jpg",
            "person-2_0_1.jpg",
        ]
        assert len(members) == len(index)
        for row, member in enumerate(members):
            at = Range(index.file(row), int(index.offset[row]), int(index.size[row]))
            assert archive.read(member) == bytes(storage.read_many([at])[0])
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert "/" not in member.filename


def test_pickle_has_the_documented_structure(exported: Any) -> None:
    found = pickle.loads(exported.pickle.read_bytes())
    assert found["categories"] == [
        {"id": 1, "name": "car"},
        {"id": 2, "name": "person"},
        {"id": 3, "name": "thing"},
    ]
    assert [set(seq) for seq in found["seqs"]] == [
        {"frame_id", "bboxes", "frames", "category"} for _ in range(3)
    ]
    first, second = found["seqs"][:2]
    assert first["frame_id"] == [1, 4, 7, 10]
    assert first["frames"] == [f"car-1_0_{number}.jpg" for number in (1, 4, 7, 10)]
    assert (first["category"], second["category"]) == (1, 2)
    # half = 20 + 3 * 1 around the middle of 64 pixels, then the two other boxes of category 3
    golden = [
        [9.0, 7.0, 55.0, 57.0, 1.0, 0.0],
        [10.0, 20.5, 60.25, 90.0, 3.0, 0.0],
        [19.0, 20.5, 69.25, 90.0, 3.0, 0.0],
    ]
    assert first["bboxes"][0].dtype == np.float32
    np.testing.assert_array_equal(first["bboxes"][0], golden)
    assert all(type(value) is int for value in first["frame_id"])


def test_pickle_is_written_for_numpy_1_too(exported: Any) -> None:
    data = exported.pickle.read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    assert b"numpy._core" not in data


def test_same_shards_same_bytes(lasot: Path, exported: Any, tmp_path: Path) -> None:
    again = export_legacy(lasot, tmp_path)
    for one, two in ((exported.zip, again.zip), (exported.pickle, again.pickle)):
        assert (
            hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
        )


def test_restricted_reader_gives_what_was_written(exported: Any) -> None:
    plain, read = pickle.loads(exported.pickle.read_bytes()), load_legacy(exported.pickle)
    _assert_same(plain, read)


def _assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["categories"] == b["categories"]
    assert len(a["seqs"]) == len(b["seqs"])
    for one, two in zip(a["seqs"], b["seqs"], strict=True):
        assert {k: v for k, v in one.items() if k != "bboxes"} == {
            k: v for k, v in two.items() if k != "bboxes"
        }
        for x, y in zip(one["bboxes"], two["bboxes"], strict=True):
            assert y.dtype == np.float32
            np.testing.assert_array_equal(x, y)


def test_ignored_boxes_are_marked(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, "coco", sequences=2, frames=1, side=64, kind="image", others=1)
    index = Index(tmp_path / "coco")
    flags = index.table["ignore"].chunk(0).values.to_pylist()
    boxes = load_legacy(export_legacy(tmp_path / "coco", tmp_path / "out").pickle)["seqs"]
    assert [row[5] for seq in boxes for box in seq["bboxes"] for row in box] == flags


def test_a_damaged_picture_leaves_no_file(lasot: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in lasot.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    index = Index(copy)
    shard = copy / index.file(5)
    data = bytearray(shard.read_bytes())
    data[int(index.offset[5]) + 100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(BadSample, match=index.key(5)):
        export_legacy(copy, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_member_names_are_safe_and_unique(lasot: Path) -> None:
    index = Index(lasot)
    names = [member_name(index, row) for row in range(len(index))]
    assert len(set(names)) == len(names)
    assert Manifest.read(lasot).counts["frames"] == len(names)


# ---- the reader against files that are not ours -------------------------------------------------


def _legacy(boxes: list[np.ndarray]) -> dict[str, Any]:
    count = len(boxes)
    return {
        "categories": [{"id": 1, "name": "a"}],
        "seqs": [
            {
                "frame_id": list(range(count)),
                "bboxes": boxes,
                "frames": [f"s_0_{i}.jpg" for i in range(count)],
                "category": 1,
            }
        ],
    }


@given(
    boxes=st.lists(
        arrays.arrays(
            np.float32,
            st.tuples(st.integers(1, 4), st.just(6)),
            elements=st.floats(-1e6, 1e6, width=32),
        ),
        min_size=1,
        max_size=4,
    ),
    protocol=st.integers(2, 5),
    fortran=st.booleans(),
    old_path=st.booleans(),
)
def test_reads_every_protocol_order_and_module_path(
    tmp_path_factory: pytest.TempPathFactory,
    boxes: list[np.ndarray],
    protocol: int,
    fortran: bool,
    old_path: bool,
) -> None:
    written = _legacy([np.asfortranarray(b) if fortran else b for b in boxes])
    data = pickle.dumps(written, protocol=protocol)
    if old_path and protocol < 4:
        data = data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    path = tmp_path_factory.mktemp("read") / "x_clean.pkl"
    path.write_bytes(data)
    _assert_same(_legacy(boxes), load_legacy(path))


def test_reads_big_endian_and_float64_boxes_and_array_frame_numbers(tmp_path: Path) -> None:
    boxes = [np.arange(12, dtype=">f8").reshape(2, 6)]
    written = _legacy(boxes)
    written["seqs"][0]["frame_id"] = np.array([41], np.float32)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(written))
    (seq,) = load_legacy(path)["seqs"]
    assert seq["frame_id"] == [41]
    np.testing.assert_array_equal(seq["bboxes"][0], np.arange(12).reshape(2, 6))


class _Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._what = function, arguments

    def __reduce__(self) -> Any:
        return self._what


@pytest.mark.parametrize("place", ["top", "inside an array's place", "instead of a name"])
@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, "mkdir"), (eval, "eval"), (io.open, "open")]
)
def test_code_is_refused_by_name_and_never_runs(
    tmp_path: Path, place: str, function: Any, named: str
) -> None:
    trace = tmp_path / "trace"
    arguments = {
        "mkdir": (str(trace),),
        "eval": (f"__import__('os').mkdir({str(trace)!r})",),
        "open": (str(trace), "w"),
    }[named]
    evil = _Runs(function, *arguments)
    written: Any = _legacy([np.ones((1, 6), np.float32)])
    if place == "top":
        written = evil
    elif place == "instead of a name":
        written["categories"][0]["name"] = evil
    else:
        written["seqs"][0]["bboxes"][0] = evil
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(written))
    with pytest.raises(FormatError, match=rf"{named}.*only NumPy arrays"):
        load_legacy(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"cnumpy\nndarray.tofile\n(tR.",
        b"Pnowhere\n.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"\x80\x04\x95",
        b"",
        b"\x80\x03]q\x00.",
        b"\x80\x03}q\x00X\x04\x00\x00\x00seqsq\x01K\x05s.",
    ],
)
def test_odd_files_are_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "odd.pkl"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"odd\.pkl"):
        load_legacy(path)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 2, 3, 4, 5, "x"]], object),
        np.array([b"abc"]),
        np.zeros((1, 5), np.float32),
        np.zeros((0, 6), np.float32),
        np.zeros(6, np.float32),
        np.zeros((1, 6), np.complex64),
    ],
)
def test_arrays_that_are_no_boxes_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(_legacy([array])))
    with pytest.raises(FormatError):
        load_legacy(path)


def test_lists_of_different_length_are_refused(tmp_path: Path) -> None:
    written = _legacy([np.ones((1, 6), np.float32)])
    written["seqs"][0]["frames"].append("more.jpg")
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(written))
    with pytest.raises(FormatError, match="2 pictures"):
        load_legacy(path)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("seqs", 0, "category"), ..., "sequence 0 ('s_0_0.jpg'): key 'category' is missing"),
        (("seqs", 0, "frames"), ..., "sequence 0: key 'frames' is missing"),
        (("seqs", 0, "frame_id"), ..., "sequence 0 ('s_0_0.jpg'): key 'frame_id' is missing"),
        (("seqs", 0, "frame_id"), 3, "('s_0_0.jpg'): frame_id: expected list, found int"),
        (("seqs", 0, "frame_id", 0), float("inf"), "frame_id: 'inf' is no frame number"),
        (("seqs", 0, "category"), "1", "('s_0_0.jpg'): category: expected int, found str"),
        (("seqs", 0), [1], "sequence 0: expected dict, found list"),
        (("seqs",), ..., "the whole: key 'seqs' is missing"),
        (("categories", 0, "name"), ..., "category 0: key 'name' is missing"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, path: tuple[Any, ...], value: Any, text: str
) -> None:
    written: Any = _legacy([np.ones((1, 6), np.float32)])
    inner = written
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps(written))
    with pytest.raises(FormatError) as caught:
        load_legacy(file)
    assert text in str(caught.value)
    assert "Error(" not in str(caught.value)


def test_an_absent_file_is_a_known_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        load_legacy(tmp_path / "none.pkl")
