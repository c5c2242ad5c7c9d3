"""The loader's contract on every local storage, and the choice of one."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loader_contract import BACKENDS, MOSTLY_LONG, LoaderContract, config_of, equal, take

from benchmarks.faulty_server import FaultyServer
from loaders import storages
from loaders.cli import main
from loaders.loader import PairLoader
from loaders.remote import RemoteConfig
from shards.errors import MismatchError, StorageError
from shards.in_place import index_folder, index_zip
from shards.legacy import export_legacy
from shards.storage import LocalStorage, MemoryStorage

FORMS = {"auto": "tar", "shards": "tar", "zip": "zip", "zip-memory": "zip", "files": "folder"}


@pytest.fixture(scope="session")
def forms(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Parents of the two packed data sets, in three forms. Read only."""
    folder = tmp_path_factory.mktemp("forms")
    for name in ("lasot", "coco"):
        old = export_legacy(packed / name, folder / "old")
        index_zip(old.zip, old.pickle, folder / "zip" / name, name=name)
        with zipfile.ZipFile(old.zip) as archive:
            archive.extractall(folder / "crops" / name)
        index_folder(
            folder / "crops" / name, old.pickle, folder / "folder" / name, name=name, grid="edge"
        )
    return {"tar": packed, "zip": folder / "zip", "folder": folder / "folder"}


class OnStorage(LoaderContract):
    STORAGE = ""

    @pytest.fixture
    def data(self, forms: dict[str, Path]) -> Path:
        return forms[FORMS[self.STORAGE]]

    @pytest.fixture
    def changes(self) -> Mapping[str, Any]:
        return {"storage": self.STORAGE}


class TestShards(OnStorage):
    STORAGE = "shards"


class InOtherForms(OnStorage):
    @pytest.fixture(params=MOSTLY_LONG)
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


class TestZip(InOtherForms):
    STORAGE = "zip"


class TestZipMemory(InOtherForms):
    STORAGE = "zip-memory"


class TestFiles(InOtherForms):
    STORAGE = "files"


class TestRemote(LoaderContract):
    """Over HTTP, with a cache on disk that some loaders of a test fill and others use."""

    @pytest.fixture(params=MOSTLY_LONG)
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def data(self, packed: Path) -> Iterator[str]:
        with FaultyServer(packed) as server:
            yield server.url

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Any]:
        return {"remote": RemoteConfig(cache_dir=str(tmp_path / "cache"), connections=8)}


@pytest.mark.parametrize("backend", BACKENDS[1:3])
def test_every_backend_reads_every_storage(
    forms: dict[str, Path], tmp_path: Path, backend: str
) -> None:
    """The contract's core for those that it leaves to the long tests: same samples, resumed too."""
    expected = take(config_of(forms["tar"], backend), 3)
    with FaultyServer(forms["tar"]) as server:
        remote = RemoteConfig(cache_dir=str(tmp_path / "cache"), connections=8)
        configs = [
            *(config_of(forms[FORMS[name]], backend, storage=name) for name in list(FORMS)[2:]),
            config_of(server.url, backend, remote=remote),
        ]
        for config in configs:
            with PairLoader(config, batch_size=5) as loader:
                assert equal(next(loader), expected[0]), config.storage
                assert equal(next(loader), expected[1]), config.storage
                state = loader.state_dict()
            with PairLoader(config, batch_size=5) as loader:
                loader.load_state_dict(state)
                assert equal(next(loader), expected[2]), config.storage


@pytest.mark.parametrize("form", ["tar", "zip", "folder"])
@pytest.mark.parametrize("storage", ["auto", "zip-memory"])
def test_storages_that_take_any_form(forms: dict[str, Path], form: str, storage: str) -> None:
    config = config_of(forms[form], storage=storage)
    with PairLoader(config, batch_size=4) as loader:
        assert next(loader).sample.tolist() == [0, 1, 2, 3]
        kind = LocalStorage if storage == "auto" else MemoryStorage
        assert all(type(one.storage) is kind for one in loader.sets.sets)


@pytest.mark.parametrize(
    ("storage", "form", "complaint"),
    [
        ("shards", "zip", r"holds a zip of crops, .*reads tar shards; .*packer legacy --zip"),
        ("shards", "folder", "holds a folder of crops"),
        ("zip", "tar", r"holds tar shards, .*data\.storage=auto.*shards index --from-zip"),
        ("zip", "folder", "reads a zip of crops"),
        ("files", "tar", r"reads a folder of crops; .*index --from-folder"),
    ],
)
def test_another_form_is_refused(
    forms: dict[str, Path], storage: str, form: str, complaint: str
) -> None:
    with pytest.raises(MismatchError, match=complaint) as error:
        PairLoader(config_of(forms[form], storage=storage), batch_size=4)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_into_memory_is_refused(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(packed, storage="zip-memory")
    size = sum(path.stat().st_size for path in packed.glob("*/*.tar"))
    monkeypatch.setattr(storages, "available_bytes", lambda: size)
    take(config, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(StorageError, match=r"needs 0\.\d+ GB .*lasot 0.*2 process.* available"):
        take(config, 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(storages, "available_bytes", lambda: size - 1)
    with pytest.raises(StorageError, match="zip-memory needs"):
        take(config, 1)
    take(replace(config, storage="auto"), 1)


def test_reading_into_memory_does_not_hang(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(storages, "MemoryStorage", lambda *_: release.wait(60))
    config = config_of(packed, storage="zip-memory", timeout_s=0.2)
    with pytest.raises(StorageError, match=r"nothing came for data\.timeout_s=0\.2 s"):
        PairLoader(config, batch_size=4)
    release.set()


def test_show_takes_a_storage(forms: dict[str, Path], tmp_path: Path) -> None:
    words = ["show", "--sample", "1", "--backend", "reference", "--data", str(forms["zip"])]
    for storage in ("zip", "zip-memory"):
        out = tmp_path / f"{storage}.png"
        result = CliRunner().invoke(main, [*words, "--storage", storage, "--out", str(out)])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "zip.png").read_bytes() == (tmp_path / "zip-memory.png").read_bytes()
    out = tmp_path / "shards.png"
    result = CliRunner().invoke(main, [*words, "--storage", "shards", "--out", str(out)])
    assert result.exit_code == 1
    assert "holds a zip of crops" in result.output
