"""What every part of ``benchmarks gpu`` is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.case import Case

__all__ = ["Facts", "Settings"]

MOST_WORKERS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One point of the sweep.

    Attributes
    ----------
    mode : ``region`` or ``whole`` pictures are decoded
    hw_decoder_load : share for the JPEG engine
    threads : of DALI
    batch_pairs : pairs of a batch, so half its pictures
    """

    mode: str = "region"
    hw_decoder_load: float = 0.65
    threads: int = 8
    batch_pairs: int = 32

    def dali(self) -> dict[str, Any]:
        """Keys of ``data.dali``."""
        return {"region": self.mode == "region", "hw_decoder_load": self.hw_decoder_load}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """See the module.

    Attributes
    ----------
    data, derived : folders, as of `benchmarks.case.Case`
    device : ``cuda``, or ``cpu`` in a dry run
    cores : usable
    seconds : in which the part should be done
    settings : of decoding; those of the sweep's best once it is known
    work : of a step
    """

    data: str
    derived: str
    device: str
    cores: int
    seconds: float = 60.0
    settings: Settings = field(default_factory=Settings)
    work: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_dry(self) -> bool:
        """Whether this is a rehearsal on the CPU, with tiny sizes."""
        return self.device != "cuda"

    @property
    def workers(self) -> int:
        """Processes that plan and read for ours, ``data.workers``, where they are tried."""
        return max(1, min(MOST_WORKERS, self.cores // 2 - 1))

    @property
    def backend(self) -> str:
        """Backend of ours that is measured."""
        return "dali-cpu" if self.is_dry else "dali"

    def case(self, **changes: Any) -> Case:
        """Work of these settings."""
        known = {
            "batch_size": self.settings.batch_pairs,
            "threads": self.settings.threads,
            "pairs": self.settings.batch_pairs,
            "warmup_batches": 1,
            "dali": self.settings.dali(),
        }
        return Case(data=self.data, derived=self.derived, **{**known, **changes})

    def step(self, seconds: float, **work: Any) -> dict[str, Any]:
        """Facts of a step, as JSON has them."""
        return asdict(replace(self, seconds=seconds, work=work))

    @staticmethod
    def read(facts: Mapping[str, Any]) -> Facts:
        """Facts from what JSON makes of them."""
        return Facts(**{**facts, "settings": Settings(**facts["settings"])})
