"""Class info in both published forms."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.classinfo import YOUTUBE_BB, files, is_class_file, merge, parse
from shards.errors import DataError

# The order of YouTube-BoundingBoxes, written out so that a slip in the table shows.
NUMBERS = {
    -1: "unknown",
    0: "person",
    1: "bird",
    2: "bicycle",
    3: "boat",
    4: "bus",
    5: "bear",
    6: "cow",
    7: "cat",
    8: "giraffe",
    9: "potted plant",
    10: "horse",
    11: "motorcycle",
    12: "knife",
    13: "airplane",
    14: "skateboard",
    15: "train",
    16: "truck",
    17: "zebra",
    18: "toilet",
    19: "dog",
    20: "elephant",
    21: "umbrella",
    22: "unknown",
    23: "car",
}


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_are_youtube_bb_classes_counted_from_0(number: int) -> None:
    assert parse(f"a_0,{number}\r\n".encode(), "x") == {"a_0": NUMBERS[number]}


def test_both_forms_with_either_line_end_and_odd_names() -> None:
    text = (
        "\ufeff-3TIfnTSM6c_2,21\r\n\r\n--x_0\tpotted plant\r\na-M2_3j67qI_4 , 12 \n"
        " b_1\t-1\nc\tnone\n"
    )
    assert parse(text.encode(), "x") == {
        "-3TIfnTSM6c_2": "umbrella",
        "--x_0": "potted plant",
        "a-M2_3j67qI_4": "knife",
        "b_1": "unknown",
        "c": "unknown",
    }


@pytest.mark.parametrize(
    "line",
    ["a_0", "a_0,", ",3", "a_0,24", "a_0,-2", "a_0,car", "a_0 3", "a_0\t", "\tcat", "\xff\xfe"],
)
def test_malformed_lines_are_named(line: str) -> None:
    with pytest.raises(DataError, match=r"^folder/x\.txt:2: "):
        parse(b"ok_0,1\n" + line.encode("latin-1") + b"\n", "folder/x.txt")


@pytest.mark.parametrize("name", [b"a\x1b[31m", b"a\x00b", b"a\xed\xa0\x80", "a\u2028b".encode()])
def test_names_that_no_class_can_have_are_refused(name: bytes) -> None:
    with pytest.raises(DataError, match=r"^x:2: (class name .* U\+|'utf-8' codec)"):
        parse(b"ok_0\tcat\na_0\t" + name + b"\n", "x")
    with pytest.raises(DataError, match=r"^x:2: a class number needed"):
        parse(b"ok_0\tcat\na_0,c\nd_0\tdog\n", "x")  # a new line ends the entry


def test_a_class_outweighs_unknown_and_two_classes_are_an_error() -> None:
    first, second = ("one", b"a,-1\nb,7\nc,-1\n"), ("two", b"a\tcat\nb\tcat\nc\tnone\n")
    expected = {"a": "cat", "b": "cat", "c": "unknown"}
    assert merge([first, second]) == merge([second, first]) == expected
    with pytest.raises(DataError, match="three: b is 'dog' here and 'cat' before"):
        merge([first, ("three", b"b\tdog\n")])
    with pytest.raises(DataError, match="x:2: a is 'dog' here and 'cat' before"):
        parse(b"a,7\na,19\n", "x")


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_-]{11}_[0-9]", fullmatch=True), st.sampled_from(sorted(NUMBERS))
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_both_forms_say_the_same(listed: dict[str, int], end: str) -> None:
    numbers = "".join(f"{name},{number}{end}" for name, number in listed.items())
    names = "".join(f"{name}\t{NUMBERS[number]}{end}" for name, number in listed.items())
    assert parse(numbers.encode(), "x") == parse(names.encode(), "x")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("TRAIN_0_classinfo.txt", True),
        ("TRAIN_11_classinfo.txt", True),
        ("trackingnet_classmap.txt", True),
        ("class_info.tsv", True),
        ("README.txt", False),
        ("classes.txt", False),
        ("TRAIN_0_classinfo.txt.zip", False),
    ],
)
def test_which_files_of_a_folder_are_taken(name: str, taken: bool) -> None:
    assert is_class_file(name) is taken


def test_files_of_a_folder_are_sorted_and_bad_places_are_named(tmp_path: Path) -> None:
    for name in ("TRAIN_1_classinfo.txt", "TRAIN_0_classinfo.txt", "other.txt"):
        (tmp_path / name).write_text(name)
    assert [Path(path).name for path, _ in files(tmp_path)] == [
        "TRAIN_0_classinfo.txt",
        "TRAIN_1_classinfo.txt",
    ]
    assert files(tmp_path / "other.txt") == [(str(tmp_path / "other.txt"), b"other.txt")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class info in this folder"):
        files(tmp_path / "empty")
    with pytest.raises(DataError, match="cannot be read"):
        files(tmp_path / "nowhere")


def test_the_genuine_file(real_data: Path) -> None:
    classes = merge(files(real_data / "fixtures/trackingnet"))
    assert len(classes) == 2511
    assert list(classes.values()).count("unknown") == 20
    assert list(classes.values()).count("car") == 98
    assert set(classes.values()) <= {*YOUTUBE_BB, "unknown"}
    assert classes["-3TIfnTSM6c_2"] == "umbrella"
