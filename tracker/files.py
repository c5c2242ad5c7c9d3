"""Models in files: one safetensors file has the weights, and what the weights mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from shards.errors import ConfigError
from tracker import weights
from tracker.config import ModelConfig
from tracker.header import metadata_of, told_config
from tracker.models import TrackerModel, build

__all__ = ["Opened", "file_sha256", "open_model", "save_model"]

TUNABLE = "track."  # what may be another value than in the file


class Opened(NamedTuple):
    """A model, ready to track: in eval mode, on its device; ``sha256`` is that of the file."""

    model: TrackerModel
    config: ModelConfig
    path: Path
    sha256: str


def save_model(path: Path, model: TrackerModel, *, source: str) -> None:
    """Write a model's tensors with its configuration, whole or not at all.

    Parameters
    ----------
    path : final name, ``.safetensors``; a file that is there is replaced
    model : any device, any mode
    source : where its weights come from, for people

    Raises
    ------
    WeightsError : if the name ends in something else, or the disk does not take it
    """
    if path.suffix != ".safetensors":
        raise weights.WeightsError(f"{path}: the name of a model file must end in .safetensors")
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    data = save(state, metadata=metadata_of(model.config, source, state))
    weights.write(path, data)


def open_model(
    path: str | Path, overrides: Sequence[str] = (), device: str | torch.device = "cpu"
) -> Opened:
    """Open a model file, or a checkpoint of a run.

    Parameters
    ----------
    path : ``.safetensors`` of `save_model`, or ``.pth`` of ``train.py``
    overrides : ``track.match.window=0.3`` and the like; only keys of ``track`` can be changed
    device : where the model goes

    Returns
    -------
    Opened

    Raises
    ------
    WeightsError : if it is missing, damaged, or has no configuration with it (then it must be
        converted)
    VersionError : if it is of a newer format
    ConfigError : if its configuration, or an override, is invalid
    """
    path = Path(path)
    for text in overrides:
        if not text.strip().startswith(TUNABLE):
            raise ConfigError(
                f"--set {text}: weights fit one model and one grid; only keys of "
                f"'{TUNABLE}' can be changed when {path} is opened"
            )
    content = weights.read_content(path)
    config = told_config(path, content, overrides)
    if config is None:
        raise weights.WeightsError(
            f"{path}: has weights but does not say of which model and grid; convert it first: "
            f"python -m tracker convert --from {path} --out {path.with_suffix('').name}.safetensors"
        )
    state = weights.state_of(content, path)
    weights.check_finite(state, str(path))
    model = build(config)
    weights.load_model(model, state, str(path))
    return Opened(model.to(device).eval(), config, path, file_sha256(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
