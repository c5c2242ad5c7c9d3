"""`import train` must find the program, not this folder of its tests; runs of several processes."""

import functools
import multiprocessing
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def _server():
    """Start the server that forks the ranks; it has to find the modules that it imports first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_ranks", "torch.utils.tensorboard"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()


@pytest.fixture
def launch(_server, tmp_path):
    """Start a run's ranks as forked processes: ``launch(out, *arguments, ranks=2, ...)``."""
    from train_ranks import CONFIG, Ranks

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
