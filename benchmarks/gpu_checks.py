"""First part: what machine this is, and whether torch, DALI's decoders and our loader work on it.

Each check has a process of its own, from the simplest to the loader, so that the first one that
fails says what is wrong. There are GPUs on which one version of nvImageCodec ends the process
(SIGSEGV) when it decodes regions, and not when it decodes whole pictures
(github.com/NVIDIA/nvImageCodec issue 55): then all later parts decode whole pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import ask, device
from shards.errors import SiamstreamError

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["CHECKS", "check", "environment"]

# Of a check; at most half of the time that is left, but imports, a context and the libraries take
# ten seconds on a machine that has not read them before.
STEP_S, LEAST_STEP_S = 60.0, 20.0
CHECKS = {
    "torch": "torch computes on the device",
    "whole": "DALI decodes whole pictures",
    "region": "DALI decodes regions of pictures",
    "loader": "our loader makes a batch",
}


def environment(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Run all checks; what they found, and facts of the GPU."""
    own = Facts.read(facts)
    found: dict[str, Any] = {**_machine(), "checks": []}
    for name, what in CHECKS.items():
        left = talk.left_s() / (1 if name == "loader" else 2)
        limit_s = min(STEP_S, talk.left_s(), max(LEAST_STEP_S, left))
        answer = ask("check", own.step(limit_s, check=name), limit_s, talk.say, step=True)
        found["checks"].append(
            {
                "name": name,
                "what": what,
                "ok": answer.error is None,
                "error": answer.error,
                "seconds": answer.seconds,
                "memory": answer.memory(),
            }
        )
        found.update(answer.found)
        if name == "region":  # before the loader's check, which may end the part
            found["mode"] = "region" if _ok(found, "region") or not _ok(found, "whole") else "whole"
            own = replace(own, settings=replace(own.settings, mode=found["mode"]))
        talk.say(f"{what}: {'yes' if answer.error is None else answer.error}")
        talk.found(found)
    if not _ok(found, "loader"):
        raise SiamstreamError(f"our loader does not work here: {found['checks'][-1]['error']}")
    return found


def _ok(found: Mapping[str, Any], name: str) -> bool:
    return any(one["name"] == name and one["ok"] for one in found["checks"])


def _machine() -> dict[str, Any]:
    gpu = device()
    memory = gpu.memory() if gpu else None
    return {
        "gpu": gpu.name() if gpu else None,
        "driver": gpu.driver() if gpu else None,
        "gpu_memory_mb": memory[1] / 1e6 if memory else None,
    }


def check(facts: Mapping[str, Any], _: Talk) -> dict[str, Any]:
    """One check, in its own process."""
    own = Facts.read(facts)
    name = own.work["check"]
    checks: dict[str, Callable[[Facts], dict[str, Any]]] = {
        "torch": _torch,
        "whole": _decode,
        "region": _decode,
        "loader": _loader,
    }
    if name in ("whole", "region"):
        own = replace(own, settings=Settings(mode=name, threads=1, batch_pairs=1))
    return checks[name](own)


def _torch(own: Facts) -> dict[str, Any]:
    import torch

    ones = torch.ones(64, 64, device=own.device)
    if float((ones @ ones).sum()) != 64.0**3:
        raise SiamstreamError(f"torch {torch.__version__} computes wrong sums on {own.device}")
    return {"torch": torch.__version__, "torch_cuda": torch.version.cuda}


def _decode(own: Facts) -> dict[str, Any]:
    from nvidia import dali

    from benchmarks.gpu_decode import Decoder, planned

    found = Decoder(own.settings, planned(own, batches=1), own.is_dry).run()
    if found != 2 * own.settings.batch_pairs:
        raise SiamstreamError(f"DALI made {found} pictures of {2 * own.settings.batch_pairs}")
    return {"dali": dali.__version__}


def _loader(own: Facts) -> dict[str, Any]:
    from importlib.metadata import version

    from benchmarks.pairs import serve_loader

    served = next(serve_loader(own.case(), own.backend, own.device))  # type: ignore[arg-type]
    if float(served.search.float().std()) < 1:
        raise SiamstreamError("our loader's first batch holds nothing but one colour")
    return {"nvimgcodec": version("nvidia-nvimgcodec-cu12")}
