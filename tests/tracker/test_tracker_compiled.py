import copy
import shutil
from typing import get_args

import pytest
import torch

from benchmarks.step import make_batch
from tracker.compiled import compile_model
from tracker.config import ModelConfig, ModelName
from tracker.models import build

NAMES = get_args(ModelName)
# Dynamo asks every input for its gradient and hides the warning only from those who print them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor is being accessed:UserWarning"
)


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def kernels_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inductor")


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def assert_same_steps(name: str, backend: str) -> None:
    """Compare two batches with an uncompiled twin; no part breaks or is compiled twice."""
    config = ModelConfig(name=name, width=0.1, init="random")
    model, twin = build(config), build(config)
    compile_model(model, backend)
    assert list(model.state_dict()) == list(twin.state_dict())
    compiled = []
    for epoch in range(2):
        data = make_batch(3, seed=epoch)
        found = []
        for one in (model, twin):
            terms = one(**data, epoch=epoch)
            found.append((terms, torch.autograd.grad(sum(terms.values()), list(one.parameters()))))
        (got, mine), (want, theirs) = found
        for term, value in want.items():
            assert got[term].item() == pytest.approx(value.item(), rel=1e-4), term
        for (parameter, _), a, b in zip(twin.named_parameters(), mine, theirs, strict=True):
            # By norm: where another order of sums flips a rectifier or the choice of a pool, which
            # depends on the CPU, a few elements differ by more.
            assert (a - b).norm() <= 2e-3 * b.norm() + 1e-8, parameter
        compiled.append(graphs())
    parts = len(list(model.children()))
    assert compiled[0] >= parts
    assert compiled[1] == compiled[0]
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("name", NAMES)
def test_every_part_is_one_graph_with_the_same_losses_and_gradients(name):
    assert_same_steps(name, "aot_eager")


# Compiling the parts of an SPM takes minutes on a slow machine; the kernels of the other two are of
# the same parts, and the graphs of all are looked at above.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.services) if n.startswith("spm") else n for n in NAMES],
)
def test_kernels_of_the_default_compiler_have_the_same_losses(name, kernels_folder, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler: g++ is not there")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kernels_folder))
    with torch._inductor.config.patch(compile_threads=1):  # no processes that outlive the test
        assert_same_steps(name, "inductor")


def test_a_compiled_model_can_be_copied_saved_and_evaluated(tmp_path):
    model = build(ModelConfig(name="spm_alexnet", width=0.05, init="random"))
    plain = copy.deepcopy(model)
    compile_model(model, "aot_eager")
    data = make_batch(2)
    model(**data, epoch=0)
    torch.save(model.state_dict(), tmp_path / "state.pth")
    plain.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for one in (model, plain, copied):
            one.eval()
        want = plain(**data, epoch=0)
        for parameter in model.parameters():
            parameter.zero_()  # a copy has weights of its own
        for name, term in copied(**data, epoch=0).items():
            assert term.item() == pytest.approx(want[name].item(), rel=1e-5)
