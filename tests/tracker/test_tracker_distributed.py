from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tracker.models import ModelConfig, build
from tracker.resnet import ResNet18
from tracker.training.world import World

MODES = ("global", "per_gpu")
RANKS = 3  # of 2, 2 and 1 pairs
OTHERS = ("spm_r18c4", "siamrpn_alexnet_dw", "siamfc_alexnet")


def batch() -> dict[str, torch.Tensor]:
    """Five pairs, which the ranks do not divide; in the share of rank 1 nothing is positive."""
    generator = torch.Generator().manual_seed(0)
    box = torch.tensor([[95.0, 96, 161, 158], [60, 80, 150, 130]])
    return {
        "template": torch.randn(5, 3, 255, 255, generator=generator),
        "search": torch.randn(5, 3, 255, 255, generator=generator),
        "template_box": torch.tensor([[96.0, 90, 160, 165]]).repeat(5, 1),
        "search_box": box.repeat(3, 1)[:5],
        "positive": torch.tensor([True, False, True, True, False]),
        "sample": torch.arange(5),
    }


def share(rank: int) -> dict[str, torch.Tensor]:
    """Pairs of one rank, as the loader gives them."""
    return {k: v[rank::RANKS] for k, v in batch().items()}


def config(mode: str, name: str = "spm_alexnet") -> ModelConfig:
    return ModelConfig(name=name, init="random", width=0.03, normalise=mode)


def world() -> World:
    """Make one that has a group already."""
    made = World()
    made.grouped, made.size = True, RANKS
    return made


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS
    )
    data = share(rank)
    found = {}
    for mode in MODES:
        model = DistributedDataParallel(build(config(mode)))
        terms = model(**data, epoch=1)
        sum(terms.values()).backward()
        found[mode] = (gradients(model), {k: v.item() for k, v in terms.items()})
    for name in OTHERS:
        model = build(config("global", name))
        for buffer in model.buffers():
            buffer += rank
        shared = world().share(model)
        terms = shared(**data, epoch=1)
        sum(terms.values()).backward()
        found[name] = (gradients(shared), list(model.buffers()))
    net = ResNet18(0.03)  # with statistics that move
    shared, means = world().share(net), []
    for _ in range(2):
        shared(data["template"] * (rank + 1))
        means.append(net.conv1[1].running_mean.clone())
    found["moving"] = means
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(RANKS)]


def assert_close(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 + 1e-4 * b.abs().max().item())


def test_ranks_give_the_gradient_of_the_whole_batch_though_their_shares_differ(ranks):
    model = build(config("global"))
    terms = model(**batch(), epoch=1)
    sum(terms.values()).backward()
    for rank in ranks:
        assert_close(rank["global"][0], gradients(model))
    for name, term in terms.items():
        mean = sum(rank["global"][1][name] for rank in ranks) / RANKS
        assert mean == pytest.approx(term.item(), rel=1e-4)


def test_per_gpu_normalisers_give_the_mean_of_the_ranks(ranks):
    model = build(config("per_gpu"))
    for rank in range(RANKS):
        terms = model(**share(rank), epoch=1)
        sum(terms.values()).backward()
        for name, term in terms.items():
            assert ranks[rank]["per_gpu"][1][name] == pytest.approx(term.item(), rel=1e-4)
    assert_close(ranks[0]["per_gpu"][0], [g / RANKS for g in gradients(model)])
    whole = ranks[0]["global"][0]
    assert any(
        not torch.allclose(a, b, rtol=1e-2)
        for a, b in zip(whole, ranks[0]["per_gpu"][0], strict=True)
    )


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_start_with_rank_0s_tensors_and_give_the_same_gradient(ranks, name):
    model = build(config("global", name))
    sum(model(**batch(), epoch=1).values()).backward()
    for rank in ranks:
        found, buffers = rank[name]
        assert_close(found, gradients(model))
        assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


def test_statistics_that_move_are_those_of_rank_0_when_a_step_begins(ranks):
    (first_0, second_0), (first_1, second_1), _ = (rank["moving"] for rank in ranks)
    assert not torch.allclose(first_0, first_1)  # each saw its own share
    # From 0 and with momentum 0.1, a step's own mean is added as it was in the first one.
    assert torch.allclose(second_0, 0.9 * first_0 + first_0, atol=1e-6)
    assert torch.allclose(second_1, 0.9 * first_0 + first_1, atol=1e-6)
