"""Environments of their own for other loaders: made whole, seen by the runner, or a clear error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import peers, peers_make
from benchmarks.cli import main
from benchmarks.contestants import CONTESTANTS
from benchmarks.peers import INSTALLED, how_to_add, states
from benchmarks.peers_make import PeerError, make


class FakePip:
    """Notes commands, makes what they would make."""

    def __init__(self, folder: Path, failing: str = "") -> None:
        self.folder, self.failing = folder, failing
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.commands.append(list(command))
        text = " ".join(command)
        if self.failing and self.failing in text:
            raise PeerError(f"'{text}' failed")
        if "venv" in command:
            (self.folder / "site-packages").mkdir(parents=True)
        if "sysconfig" in text:
            return f"{self.folder / 'site-packages'}\n"
        if "list" in command:
            return json.dumps([{"name": "numpy", "version": "2.1.3"}])
        return ""

    def pip(self) -> list[list[str]]:
        """Arguments of the calls of pip that install."""
        return [one[one.index("install") + 1 :] for one in self.commands if "install" in one]


def test_an_environment_sees_our_packages_after_its_own(tmp_path: Path) -> None:
    pip, told = FakePip(tmp_path / "mosaic-streaming"), list[str]()
    assert make("mosaic-streaming", tmp_path, False, told.append, pip)
    assert [one[-1] for one in pip.pip()] == ["mosaicml-streaming==0.13.0"]
    (shown,) = (tmp_path / "mosaic-streaming" / "site-packages").glob("*.pth")
    lines = shown.read_text().splitlines()
    assert str(Path(torch.__file__).parents[1]) in lines
    facts = json.loads((tmp_path / "mosaic-streaming" / INSTALLED).read_text())
    assert facts["version"] == "0.13.0"
    assert facts["packages"] == {"numpy": "2.1.3"}
    assert told
    # once is enough, unless asked
    assert not make("mosaic-streaming", tmp_path, False, told.append, pip)
    assert len(pip.pip()) == 1


def test_a_peer_that_clashes_is_installed_without_what_it_asks_for(tmp_path: Path) -> None:
    pip = FakePip(tmp_path / "ffcv")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(peers_make.shutil, "which", lambda tool: f"/usr/bin/{tool}")
        assert make("ffcv", tmp_path, False, lambda line: None, pip)
    first, second = pip.pip()
    assert "ffcv==1.0.2" not in first
    assert not [one for one in first if "opencv" in one]
    assert second[-2:] == ["--no-deps", "ffcv==1.0.2"]


@pytest.mark.parametrize(
    ("tools", "failing", "named"),
    [
        ((), "", "pkg-config g++ libopencv-dev libturbojpeg0-dev"),
        (("pkg-config", "g++"), "opencv4", "libopencv-dev"),
    ],
)
def test_what_a_peer_is_built_from_is_asked_for_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tools: tuple[str, ...],
    failing: str,
    named: str,
) -> None:
    monkeypatch.setattr(peers_make.shutil, "which", lambda tool: tool if tool in tools else None)
    pip = FakePip(tmp_path / "ffcv", failing)
    with pytest.raises(PeerError, match=f"apt-get install {named.replace('+', '.')}$"):
        make("ffcv", tmp_path, False, lambda line: None, pip)
    assert not (tmp_path / "ffcv").exists()


def test_an_environment_that_fails_is_not_there(tmp_path: Path) -> None:
    pip = FakePip(tmp_path / "mosaic-streaming", failing="import streaming")
    with pytest.raises(PeerError, match="import streaming"):
        make("mosaic-streaming", tmp_path, False, lambda line: None, pip)
    assert not (tmp_path / "mosaic-streaming" / INSTALLED).exists()


def test_a_failing_command_tells_its_last_words() -> None:
    code = "import sys; print('line 1', file=sys.stderr); sys.exit('no such package')"
    with pytest.raises(PeerError, match=r"status 1: line 1 \| no such package"):
        peers_make.run([sys.executable, "-c", code])
    with pytest.raises(PeerError, match="cannot be run"):
        peers_make.run(["/nowhere/python"])


def test_the_command_lists_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HOME", tmp_path)
    (tmp_path / "ffcv").mkdir()
    (tmp_path / "ffcv" / INSTALLED).write_text('{"version": "1.0.2"}')
    listed = CliRunner().invoke(main, ["peers", "--list"])
    assert listed.exit_code == 0
    lines = {line.split()[0]: line for line in listed.output.splitlines()}
    assert "1.0.2" in lines["ffcv"]
    assert lines["mosaic-streaming"].endswith(how_to_add("mosaic-streaming"))
    assert {one.name for one in states()} == {
        one.name for one in CONTESTANTS if one.group == "peer"
    }
    beside = CliRunner().invoke(main, ["peers", "grain"])
    assert beside.exit_code == 1
    assert "pip install" in beside.output
    unknown = CliRunner().invoke(main, ["peers", "deeplake"])
    assert unknown.exit_code == 1
    assert "there are mosaic-streaming, ffcv" in unknown.output
