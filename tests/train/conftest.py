"""`import train` must find the program, not this folder of its tests; runs of several processes."""

import functools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1] / "tracker"))  # small data sets to evaluate on


@pytest.fixture
def launch(tmp_path):
    """Start a run's ranks as forked processes: ``launch(out, *arguments, ranks=2, ...)``."""
    from train_process import start_server
    from train_ranks import CONFIG, Ranks

    start_server()
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return functools.partial(Ranks, tmp_path)


@pytest.fixture
def torchrun(tmp_path):
    """Start a run by torchrun: ``torchrun(name, options, arguments, **environment)``."""
    from train_ranks import CONFIG, Torchrun

    (tmp_path / "tiny.yaml").write_text(CONFIG)
    started = []

    def start(*given, **environment):
        started.append(Torchrun(tmp_path, *given, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
