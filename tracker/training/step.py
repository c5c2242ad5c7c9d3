"""One optimiser step: forward, backward, clip, update, in full or mixed precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from configs.strict import ConfigError
from tracker.training.config import TrainConfig
from tracker.training.schedule import Phase, learning_rate, make_optimizer, phase

__all__ = ["Stepper"]

PRECISIONS = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """A model in training with its optimiser and loss scaler.

    Nothing here waits for the device: losses stay tensors, and the gradient's norm is not read.

    Parameters
    ----------
    model : called with a batch's tensors by name, gives loss terms whose sum is the loss
    config : schedule and precision
    device : where the model is

    Raises
    ------
    ConfigError : if the precision is not possible on the device
    """

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        if config.amp == "fp16" and device.type != "cuda":
            raise ConfigError(
                f"train.amp 'fp16' needs a CUDA device, this run is on '{device}'; "
                "use 'bf16' or 'off'"
            )
        self.model, self.config, self.device = model, config, device
        self._begin(phase(config, 0))
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")

    def __call__(self, inputs: Mapping[str, Any], step: int, epoch: int) -> dict[str, Tensor]:
        """Train on one batch.

        Parameters
        ----------
        inputs : keyword arguments of the model
        step, epoch : numbers of this step, from 0; they set parameters and learning rate

        Returns
        -------
        ``loss`` and its terms, detached float32 scalars on the device
        """
        self.enter(epoch)
        rate = learning_rate(self.config, step, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(
            self.device.type, PRECISIONS[self.config.amp], enabled=self.config.amp != "off"
        ):
            terms: dict[str, Tensor] = self.model(**inputs)
        loss = torch.stack(list(terms.values())).sum()
        torch.autograd.backward(self.scaler.scale(loss))
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

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

    def _clip(self) -> None:
        """Limit the norm of all gradients together, also of those that are not trained now."""
        self.scaler.unscale_(self.optimizer)
        if self._idle is not None:
            self.scaler.unscale_(self._idle)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)

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
        self.scaler.load_state_dict(state["scaler"])
