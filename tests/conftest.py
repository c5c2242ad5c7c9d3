"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # `import synthetic` from any test

settings.register_profile("siamstream", derandomize=True, deadline=None)
settings.load_profile("siamstream")

import synthetic  # noqa: E402 (needs the path above)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real annotated pictures; without them a test that needs them is skipped, and says so."""
    folder = os.environ.get("SIAMSTREAM_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real pictures: set SIAMSTREAM_TEST_DATA to a folder that has lasot/")
    return Path(folder)


@pytest.fixture(scope="session")
def real_packed(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real LaSOT-like sequences, packed. Read only."""
    from packer.datasets import lasot
    from packer.jobs import PackOptions
    from packer.run import pack

    out = tmp_path_factory.mktemp("real") / "lasot"
    pack(lasot, real_data / "lasot", out, PackOptions(stride=3, min_size=10), workers=1)
    return out


@pytest.fixture(scope="session")
def real_packed_all(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parent of all four data sets of real pictures, packed. Read only."""
    from packer.everything import pack_all

    out = tmp_path_factory.mktemp("real-all")
    states = {one.name: one.state for one in pack_all(real_data, out)}
    wanted = ("lasot", "got10k", "trackingnet", "coco")
    absent = [name for name in wanted if states.get(name) != "packed"]
    if absent:
        pytest.skip(f"real pictures: SIAMSTREAM_TEST_DATA={real_data} has no {', '.join(absent)}")
    return out


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parent of two synthetic packed data sets, lasot (video) and coco (image). Read only."""
    folder = tmp_path_factory.mktemp("packed")
    synthetic.pack(folder, "lasot", sequences=5, frames=14, others=2)
    synthetic.pack(folder, "coco", sequences=12, frames=1, per_shard=4, kind="image", others=1)
    return folder
