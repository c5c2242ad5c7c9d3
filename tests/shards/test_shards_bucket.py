"""Buckets as places to write to, against a server of this machine."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from s3_server import BUCKET, client, s3_server
from sink_contract import SinkContract

from shards import bucket
from shards.bucket import BucketSink
from shards.errors import SiamstreamError, StorageError
from shards.sink import Sink

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Environment that says nothing about any cloud, and few retries."""
    for name in (*bucket._CREDENTIALS, "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bucket, "RETRIES", 1)
    bucket._store.cache_clear()
    yield monkeypatch
    bucket._store.cache_clear()


@pytest.fixture
def cloud(server: dict[str, str], no_cloud: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in server.items():
        no_cloud.setenv(name, value)
    return server


@pytest.mark.slow
class TestBucketSink(SinkContract):
    @pytest.fixture
    def sink(self, cloud: dict[str, str]) -> Sink:
        return BucketSink(f"s3://{BUCKET}/contract/{next(NUMBERS)}")


@pytest.mark.slow
def test_a_bucket_without_a_prefix_and_its_neighbours(cloud: dict[str, str]) -> None:
    s3 = client(cloud)
    s3.create_bucket(Bucket="whole-bucket")
    whole = BucketSink("s3://whole-bucket")
    whole.child("a").write("x", b"1")
    whole.child("ab").write("y", b"1")
    whole.write("z", b"1")
    s3.put_object(Bucket="whole-bucket", Key="a/", Body=b"")  # what a console makes of a folder
    assert whole.entries() == ["a", "ab", "z"]
    assert whole.child("a").entries() == ["x"]
    whole.child("a").remove_all()
    assert whole.child("ab").entries() == ["y"]


@pytest.mark.slow
def test_a_bucket_that_is_not_there(cloud: dict[str, str]) -> None:
    sink = BucketSink("s3://no-such-bucket/x")
    for use in (
        sink.entries,
        lambda: sink.read("a"),
        lambda: sink.write("a", b""),
        lambda: sink.write_new("a", b""),
    ):
        with pytest.raises(StorageError, match="there is no such bucket: make it") as caught:
            use()
        assert str(caught.value).startswith("s3://no-such-bucket/x")
        assert "\n" not in str(caught.value)


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """A server that answers everything with an error; gives its URL."""

    class Refusing(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = refuse

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def with_keys(patch: pytest.MonkeyPatch, endpoint: str) -> BucketSink:
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "x")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    return BucketSink("s3://bucket/x")


def test_no_permission(no_cloud: pytest.MonkeyPatch) -> None:
    with refusing(403, "AccessDenied") as endpoint:
        sink = with_keys(no_cloud, endpoint)
        for use in (sink.entries, lambda: sink.read("a"), lambda: sink.write("a", b"")):
            with pytest.raises(StorageError, match=r"no permission \(AccessDenied\)") as caught:
                use()
            assert "\n" not in str(caught.value)


def test_a_server_that_is_out_of_order(no_cloud: pytest.MonkeyPatch) -> None:
    with refusing(500, "InternalError") as endpoint:
        sink = with_keys(no_cloud, endpoint)
        with pytest.raises(StorageError, match="500 Internal Server Error") as caught:
            sink.write("a", b"")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_no_answer(no_cloud: pytest.MonkeyPatch) -> None:
    sink = with_keys(no_cloud, "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"no answer from http://127\.0\.0\.1:9; is AWS"):
        sink.entries()


def test_no_credentials(no_cloud: pytest.MonkeyPatch) -> None:
    no_cloud.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        BucketSink("s3://bucket/x").entries()


def test_a_machine_that_gives_no_credentials(no_cloud: pytest.MonkeyPatch) -> None:
    with refusing(404, "NotFound") as endpoint:
        no_cloud.setenv("AWS_METADATA_ENDPOINT", endpoint)
        with pytest.raises(StorageError, match="no credentials: set AWS_ACCESS_KEY_ID"):
            BucketSink("s3://bucket/x").entries()


def test_the_package_is_named_where_it_is_missing(no_cloud: pytest.MonkeyPatch) -> None:
    no_cloud.setitem(sys.modules, "obstore", None)
    with pytest.raises(SiamstreamError, match=r"pip install 'siamstream\[remote\]'"):
        BucketSink("s3://bucket/x").entries()


@pytest.mark.slow
def test_a_full_local_disk_is_one_line(
    cloud: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    sink = BucketSink(f"s3://{BUCKET}/full")

    def write() -> None:
        with sink.create("a.tar"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="disk or quota is full"):
        write()
    assert sink.entries() == []
