"""What every sink must do. Subclass `SinkContract` and supply `sink`."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from shards.errors import FormatError
from shards.sink import Sink


class SinkContract:
    @pytest.fixture
    def sink(self) -> Sink:
        pytest.fail("a sink contract needs a fixture `sink`: an empty place")

    def test_a_place_is_empty_at_first(self, sink: Sink) -> None:
        assert (sink.sizes(), sink.entries(), sink.exists()) == ({}, [], False)
        assert sink.read("a.tar") is None
        sink.remove(["a.tar"])
        sink.remove_all()
        sink.clean()

    def test_a_file_appears_only_when_it_is_whole(self, sink: Sink) -> None:
        with sink.create("a.tar") as handle:
            handle.write(b"1234")
            handle.seek(0)
            assert handle.read() == b"1234"  # can be checked before it is there
            assert (sink.sizes(), sink.entries()) == ({}, [])
            assert sink.read("a.tar") is None
        assert sink.read("a.tar") == b"1234"
        assert sink.sizes() == {"a.tar": 4}

        def fail() -> None:
            with sink.create("a.tar") as handle:
                handle.write(b"56")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert sink.read("a.tar") == b"1234"
        assert sink.entries() == ["a.tar"]

    def test_the_last_of_two_writers_wins(self, sink: Sink) -> None:
        with sink.create("a.tar") as first, sink.create("a.tar") as second:
            first.write(b"first")
            second.write(b"second")
        assert sink.read("a.tar") == b"first"  # its block ended last
        assert sink.entries() == ["a.tar"]

    def test_a_large_file(self, sink: Sink) -> None:
        data = bytes(range(256)) * 50_000  # more than one piece of an upload
        with sink.create("a.tar") as handle:
            handle.write(data)
        assert sink.read("a.tar") == data

    def test_places_below(self, sink: Sink) -> None:
        parts = sink.child(".parts")
        assert not parts.exists()
        parts.write("a.arrow", b"12")
        sink.write("b.tar", b"3")
        assert parts.sizes() == {"a.arrow": 2}
        assert sink.sizes() == {"b.tar": 1}
        assert sink.entries() == [".parts", "b.tar"]
        parts.remove_all()
        assert not parts.exists()
        assert sink.entries() == ["b.tar"]

    def test_remove(self, sink: Sink) -> None:
        for name in ("a", "b", "c"):
            sink.write(name, b"1")
        sink.remove(["a", "not-there", "c"])
        assert sink.entries() == ["b"]

    def test_write_new_leaves_what_is_there(self, sink: Sink) -> None:
        assert sink.write_new("plan.json", b"first")
        assert not sink.write_new("plan.json", b"second")
        assert sink.read("plan.json") == b"first"
        assert sink.entries() == ["plan.json"]

    def test_of_many_that_begin_at_once_one_is_first(self, sink: Sink) -> None:
        texts = [b"%d" % number for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(lambda text: sink.write_new("plan.json", text), texts))
        assert first.count(True) == 1
        assert sink.read("plan.json") == texts[first.index(True)]

    def test_it_survives_the_way_to_a_worker(self, sink: Sink) -> None:
        again = pickle.loads(pickle.dumps(sink))
        again.write("a.tar", b"1")
        assert sink.sizes() == {"a.tar": 1}
        assert str(again) == str(sink)

    @pytest.mark.parametrize("name", ["../a.tar", "/a.tar", "x/a.tar", ".hidden", "s3://x/y"])
    def test_names_stay_inside(self, sink: Sink, name: str) -> None:
        for use in (
            sink.read,
            lambda name: sink.write(name, b""),
            lambda name: sink.remove([name]),
        ):
            with pytest.raises(FormatError, match="plain names"):
                use(name)
