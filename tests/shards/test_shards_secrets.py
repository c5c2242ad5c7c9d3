import pytest

from shards.secrets import hidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/shards", "/data/shards"),
        ("me@host:/data", "me@host:/data"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
        ("https://me:hunter2@host/shards", "https://host/shards"),
        ("https://me:a@b@host:80/shards", "https://host:80/shards"),
        ("data.path=https://me:hunter2@host", "data.path=https://host"),
        ("data={path: 'https://me:p@host', seed: 1}", "data={path: 'https://host', seed: 1}"),
        ("pipe:curl -H 'Authorization: abc'\n {}", "pipe:(hidden)"),
        ("--data=pipe:cat key | x {}", "--data=pipe:(hidden)"),
        ("a pipeline: b", "a pipeline: b"),
    ],
)
def test_no_password_is_left(text, shown):
    assert hidden(text) == shown
    assert hidden({"a": [text, (text, 3)], "b": None}) == {"a": [shown, [shown, 3]], "b": None}
