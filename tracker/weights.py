"""Weights: read safely from files, compare with a model, draw at random.

Files are torch's (``weights_only``: nothing in them is executed) or safetensors. Accepted layouts:
a bare dictionary of tensors, or one under ``state_dict`` or ``model``; a leading ``module.`` is
dropped.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.atomic import replace_file
from shards.errors import SiamstreamError
from tracker.resnet import last_norms

__all__ = [
    "WeightsError",
    "check",
    "check_finite",
    "check_zip",
    "differences",
    "is_safetensors",
    "listed",
    "load_model",
    "randomise",
    "read_content",
    "read_state",
    "state_of",
    "write",
]

# What torch's and safetensors' readers raise on damaged files, found by flipping bytes.
UNREADABLE = (
    pickle.UnpicklingError,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class WeightsError(SiamstreamError):
    """A file of weights is missing, unreadable, damaged, or of another model."""


def randomise(model: nn.Module, seed: int) -> None:
    """Draw all weights anew: Xavier uniform (Glorot and Bengio 2010), by group; zero biases.

    Batch normalisation starts as the identity, the last one of each residual block with weight 0.
    All other parameters (SiamFC's score bias) are 0 from the start and become so again.

    Parameters
    ----------
    model : changed in place
    seed : of a generator of its own; torch's global state is neither read nor moved
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                _xavier(module, generator)
            else:
                for parameter in module.parameters(recurse=False):
                    parameter.zero_()
        for norm in last_norms(model):
            norm.weight.zero_()


def _xavier(module: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """Draw one layer."""
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    fan_in = module.weight[0].numel()
    fan_out = module.weight[:, 0].numel() // groups
    bound = math.sqrt(6 / (fan_in + fan_out))
    drawn = torch.empty(module.weight.shape).uniform_(-bound, bound, generator=generator)
    module.weight.copy_(drawn)
    if module.bias is not None:
        module.bias.zero_()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file.

    Parameters
    ----------
    path : ``.pth``, ``.pt`` or ``.safetensors``

    Returns
    -------
    name -> tensor, on the CPU

    Raises
    ------
    WeightsError : if it is missing, damaged, or holds anything but tensors
    """
    return state_of(read_content(path), path)


def read_content(path: Path) -> Any:
    """Read all that a file holds: tensors and plain values, on the CPU; nothing is executed.

    Numbers of NumPy count as plain: mmcv writes them among the facts of a checkpoint.

    Raises
    ------
    WeightsError : if it is missing, damaged, or holds anything else, which is then named
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a file of weights; name a file in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: not a readable file of weights: it is empty; copy it again")
    try:
        if path.suffix == ".safetensors" or is_safetensors(path):
            return load_file(path)
        check_zip(path)
        with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch guesses about a damaged file
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def check_zip(path: Path) -> None:
    """Compare the checksums in a file of ``torch.save``, which ``torch.load`` does not look at.

    Torch's first format, before 1.6, has none: nothing is compared there.

    Raises
    ------
    ValueError, zipfile.BadZipFile and others of `UNREADABLE` : if it is damaged
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        if (wrong := archive.testzip()) is not None:
            raise ValueError(f"damaged, the checksum of {wrong!r} in it does not fit")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by name out of what a file holds; see the module docstring for the layouts.

    Raises
    ------
    WeightsError : if it has anything but tensors where they should be
    """
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        got = type(content).__name__ if not isinstance(content, Mapping) else "an empty one"
        raise WeightsError(f"{path}: expected a dictionary of tensors, got {got}")
    strange = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if strange:
        raise WeightsError(
            f"{path}: expected tensors by name, alone or under 'state_dict' or 'model', but "
            f"{listed(strange)} are none"
        )
    state = {str(k).removeprefix("module."): v for k, v in content.items()}
    if len(state) < len(content):
        twice = [k for k in map(str, content) if f"module.{k}" in content]
        raise WeightsError(
            f"{path}: with and without 'module.' before their names: {listed(twice)}"
        )
    return state


def load_model(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load all tensors of a model, no more and no fewer.

    Parameters
    ----------
    model : changed in place, only if everything fits
    state : name -> tensor
    origin : where they come from, for messages

    Raises
    ------
    WeightsError : listing the missing, the unexpected and the misshapen names
    """
    check(model.state_dict(), state, origin)
    model.load_state_dict(dict(state))


def check(own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Raise WeightsError if tensors do not fit a model, see `differences`."""
    if text := differences(own, state):
        raise WeightsError(f"{origin}: these weights are of another model: {text}")


def check_finite(state: Mapping[str, Tensor], origin: str) -> None:
    """Raise WeightsError naming the tensors with NaN or infinite numbers in them."""
    if wrong := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise WeightsError(
            f"{origin}: NaN or infinite numbers in {listed(wrong)}; the model diverged, or the "
            "file is damaged: take an earlier checkpoint, or copy it again"
        )


def differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Missing, unexpected and misshapen names in words; nothing if all fits.

    Parameters
    ----------
    own : name -> tensor of a model, on any device (``meta`` too)
    state : name -> tensor of a file
    """
    problems = [
        ("missing", [k for k in own if k not in state]),
        ("unexpected", [k for k in state if k not in own]),
        ("misshapen", _misshapen(own, state)),
    ]
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in problems if names)


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made, and a file that is there replaced.

    Raises
    ------
    WeightsError : if the disk does not take it
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(data))
    except OSError as error:
        raise WeightsError(f"{path}: could not be written: {error.strerror}") from error


def _numpy_numbers() -> list[Any]:
    """Names that NumPy's numbers have in a pickle, of NumPy 1 and 2, and what they are here."""
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    places = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*places, np.dtype, *kinds]


def _unreadable(path: Path, error: Exception) -> WeightsError:
    """Say why a file was not read; torch's own text would advise to execute what it holds."""
    said = str(error)
    if found := re.search(r"nsupported (?:global: )?GLOBAL (\w+(?:\.\w+)*)", said):
        return WeightsError(
            f"{path}: not a readable file of weights: it holds {found[1]}, and nothing but tensors "
            "and plain values is ever loaded; save its tensors alone, if you trust where it is from"
        )
    reason = (said.splitlines() or [""])[0][:200] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        reason = "it is damaged, or holds more than tensors"
    elif "legacy .tar format" in said:
        reason = "it is a tar as torch wrote them before 2017, which is not read safely"
    return WeightsError(f"{path}: not a readable file of weights: {reason}; make or copy it again")


def _misshapen(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that both have, in different shapes, with the shapes."""
    return [
        f"{k} ({'x'.join(map(str, state[k].shape))} instead of {'x'.join(map(str, own[k].shape))})"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]


def listed(names: list[str], most: int = 12) -> str:
    """Names for a message, cut where they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
