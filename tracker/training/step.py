"""One optimiser step: forward, backward, clip, update, in full or mixed precision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from configs.strict import ConfigError
from tracker.training.config import TrainConfig
from tracker.training.schedule import Phase, learning_rate, make_optimizer, phase

__all__ = ["PHASES", "Marks", "StepReport", "Stepper"]

PRECISIONS = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PHASES = ("forward", "backward", "optimizer")


class Marks:
    """Moments of one step, on the clock of the device; to be read when the step has ended there.

    Parameters
    ----------
    device : CUDA events are recorded in its stream, other devices use the clock of the process
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Note the present moment."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.perf_counter())

    def wait(self) -> None:
        """Wait until the device has passed the last moment."""
        if self._cuda:
            self._events[-1].synchronize()

    def seconds(self) -> list[float]:
        """Time between each two moments; call `wait` before."""
        if not self._cuda:
            return [b - a for a, b in zip(self._times, self._times[1:], strict=False)]
        pairs = zip(self._events, self._events[1:], strict=False)
        return [a.elapsed_time(b) / 1000 for a, b in pairs]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepReport:
    """What a step found; nothing of it has been waited for.

    Attributes
    ----------
    names : ``loss``, its terms, ``grad_norm``
    values : (n,) float32 on the device, in that order; the norm is that before clipping
    left_out : () bool on the device: something was not finite, so nothing was updated. Equal on all
        ranks. Gradients that are too large for the loss scale of fp16 do not count, though their
        step is not made either
    marks : start, and the ends of `PHASES`
    """

    names: tuple[str, ...]
    values: Tensor
    left_out: Tensor
    marks: Marks

    def by_name(self) -> dict[str, Tensor]:
        """Scalars on the device, under their names."""
        return dict(zip(self.names, self.values.unbind(), strict=True))


class Stepper:
    """A model in training with its optimiser and loss scaler.

    Nothing here waits for the device: losses stay tensors, the gradient's norm is not read, and a
    step whose gradients are not finite is left out by the optimiser's own kernel, so weights are
    never damaged; nor are running statistics.

    Parameters
    ----------
    model : called with a batch's tensors by name, gives loss terms whose sum is the loss
    config : schedule and precision
    device : where the model is
    steps_per_epoch : for the length of the schedule

    Raises
    ------
    ConfigError : if the precision is not possible on the device
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, device: torch.device, steps_per_epoch: int
    ) -> None:
        if config.amp == "fp16" and device.type != "cuda":
            raise ConfigError(
                f"train.amp 'fp16' needs a CUDA device, this run is on '{device}'; "
                "use 'bf16' or 'off'"
            )
        self.model, self.config, self.device = model, config, device
        self.steps_per_epoch = steps_per_epoch
        self._begin(phase(config, 0))
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")

    def __call__(self, inputs: Mapping[str, Any], step: int, epoch: int) -> StepReport:
        """Train on one batch.

        Parameters
        ----------
        inputs : keyword arguments of the model
        step, epoch : numbers of this step, from 0; they set parameters and learning rate
        """
        self.enter(epoch)
        rate = learning_rate(self.config, step, epoch, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        marks = Marks(self.device)
        marks.mark()
        self.model.zero_grad(set_to_none=True)
        statistics = _moving(self.model)
        before = [one.clone() for one in statistics]
        with torch.autocast(
            self.device.type, PRECISIONS[self.config.amp], enabled=self.config.amp != "off"
        ):
            terms: dict[str, Tensor] = self.model(**inputs)
        loss = torch.stack(list(terms.values())).sum()
        marks.mark()
        # 1, or NaN if the loss is not finite: some gradients would be (|x - NaN| has the slope 0),
        # and the other ranks learn of it with the gradients.
        seed = 1 + 0 * loss.detach()
        torch.autograd.backward(self.scaler.scale(loss), seed)
        marks.mark()
        norm = self._clip()
        left_out = self._update(loss, norm)
        with torch.no_grad():
            for one, old in zip(statistics, before, strict=True):
                one.copy_(torch.where(torch.isfinite(norm), one, old))
        marks.mark()
        values = torch.stack([loss, *terms.values(), norm]).detach()
        names = ("loss", *terms, "grad_norm")
        return StepReport(names=names, values=values, left_out=left_out, marks=marks)

    def enter(self, epoch: int) -> None:
        """Make a new optimiser where the epoch begins another phase."""
        if phase(self.config, epoch) != self.phase:
            self._begin(phase(self.config, epoch))

    def _begin(self, phase: Phase) -> None:
        self.phase: Phase = phase
        self.optimizer = make_optimizer(self.model, self.config, phase)
        # Gradients that count for the norm but are not applied; kept where the scaler finds them.
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        rest = [p for p in self.model.parameters() if id(p) not in trained]
        self._idle = torch.optim.SGD(rest) if rest else None

    def _clip(self) -> Tensor:
        """Limit the norm of all gradients together, also of those that are not trained now."""
        self.scaler.unscale_(self.optimizer)
        if self._idle is not None:
            self.scaler.unscale_(self._idle)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
        return norm

    def _update(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Let the optimiser step unless the norm is not finite; returns what `left_out` says."""
        infinite = ~torch.isfinite(norm)  # equal on all ranks, as the gradients are
        # The fused optimisers take this from a loss scaler, and compare it on the device.
        self.optimizer.found_inf = infinite.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        del self.optimizer.found_inf  # type: ignore[attr-defined]
        if not self.scaler.is_enabled():
            return infinite
        # Too large for the scale is routine; for a scale below 1 they are not only too large.
        small = self.scaler.scale(torch.ones_like(norm)) < 1
        self.scaler.update()
        wrong = (~torch.isfinite(loss.detach()) | (infinite & small)).float()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(wrong, distributed.ReduceOp.MAX)
        return wrong > 0

    def state_dict(self) -> dict[str, Any]:
        """State of optimiser and scaler after the last step."""
        return {
            "phase": self.phase,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, in whichever phase that was."""
        if state["phase"] != self.phase:
            self._begin(state["phase"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The fused kernels walk through memory: buffers must lie as their parameters do, which
        # another `channels_last` has changed.
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if value is not None and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter).copy_(value)
        self.scaler.load_state_dict(state["scaler"])


def _moving(model: nn.Module) -> list[Tensor]:
    """Running statistics that a forward pass moves; the published models have none."""
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [one for norm in norms if norm.training for one in norm.buffers(recurse=False)]
