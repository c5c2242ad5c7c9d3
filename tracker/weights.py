"""Weights from files: read safely, fetch from ImageNet, compare with a model, draw at random.

Files are torch's (``weights_only``: nothing in them is executed) or safetensors. Accepted layouts:
a bare dictionary of tensors, or one under ``state_dict`` or ``model``; a leading ``module.`` is
dropped.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import pickle
import re
import struct
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.errors import SiamstreamError
from tracker.backbones import Backbone, Pretrained
from tracker.resnet import last_norms

__all__ = [
    "UnavailableWeights",
    "WeightsError",
    "backbone_state",
    "check",
    "check_finite",
    "check_zip",
    "differences",
    "fetch",
    "imagenet_file",
    "is_safetensors",
    "listed",
    "load_backbone",
    "load_model",
    "randomise",
    "read_content",
    "read_state",
    "state_of",
]

SUFFIXES = (".pth", ".pt", ".safetensors")
STALL_S = 10.0  # without a byte for this long a download is given up
LIMIT_S = 900.0  # and after this long in any case
CHUNK = 1 << 20
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


class UnavailableWeights(WeightsError):
    """ImageNet weights that fit are neither here nor to be fetched."""


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
        raise WeightsError(
            f"{path}: expected a dictionary of tensors, got {type(content).__name__}"
        )
    strange = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if strange:
        raise WeightsError(f"{path}: expected tensors only, but {listed(strange)} are not")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


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


def load_backbone(backbone: Backbone, state: Mapping[str, Tensor], origin: str) -> list[str]:
    """Load a backbone from torchvision's names or from ours (``conv1...`` or ``z_net.conv1...``).

    Parameters
    ----------
    backbone : changed in place, only if everything fits
    state : name -> tensor; those that the backbone does not have are left out
    origin : where they come from, for messages

    Returns
    -------
    names, as in `state`, of the tensors that were left out

    Raises
    ------
    WeightsError : if tensors are missing or misshapen
    """
    own = backbone.state_dict()
    named = backbone_state(backbone, state)
    found = {k: v for k, v in named.items() if k in own}
    problems = [
        ("missing", [k for k in own if k not in found]),
        ("misshapen", _misshapen(own, found)),
    ]
    if any(keys for _, keys in problems):
        text = "; ".join(f"{kind}: {listed(keys)}" for kind, keys in problems if keys)
        raise WeightsError(f"{origin}: not the weights of this {backbone.pretrained.label}: {text}")
    backbone.load_state_dict(found)
    kept = {id(v) for v in found.values()}
    return [k for k, v in state.items() if id(v) not in kept]


def backbone_state(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names, whether theirs are torchvision's or ours (with ``z_net.`` or not).

    Batch counters that are not there (torchvision's older files have none) are 0; nothing here
    reads them.

    Parameters
    ----------
    backbone : whose names are meant
    state : name -> tensor

    Returns
    -------
    name -> tensor, also of tensors that the backbone does not have; torchvision's classifier is
    dropped
    """
    own, rename = backbone.state_dict(), backbone.pretrained.rename
    ours = {k.removeprefix("z_net."): v for k, v in state.items()}
    theirs = {new: v for k, v in state.items() if (new := rename(k)) is not None}
    found = max(ours, theirs, key=lambda named: len(named.keys() & own.keys()))
    counters = [
        f"{k.removesuffix('running_var')}num_batches_tracked"
        for k in found
        if k.endswith(".running_var")
    ]
    return {**found, **{k: torch.tensor(0) for k in counters if k not in found}}


def imagenet_file(pretrained: Pretrained, folder: Path) -> Path:
    """File of ImageNet weights: the first by name in a folder, else the download.

    Where the name ends in digits of a SHA-256, as torchvision's do, they are compared.

    Parameters
    ----------
    pretrained : which
    folder : searched for ``<label>*`` with a suffix of weights

    Raises
    ------
    UnavailableWeights : saying what to fetch by hand and where to put it
    WeightsError : if the file that is there is not what its name says
    """
    here = folder.iterdir() if folder.is_dir() else ()
    names = [p for p in here if p.name.startswith(pretrained.label) and p.suffix in SUFFIXES]
    try:
        path = min(names) if names else fetch(pretrained)
    except UnavailableWeights as error:
        raise UnavailableWeights(
            f"no ImageNet weights: {error}; fetch that file by hand and put it into {folder}/"
        ) from error
    _check_hash(path)
    return path


def fetch(pretrained: Pretrained, *, stall_s: float = STALL_S, limit_s: float = LIMIT_S) -> Path:
    """File of ImageNet weights in torch's own cache, downloaded if it is not there yet.

    Call it in one process only: the others get the weights when DistributedDataParallel starts.

    Parameters
    ----------
    pretrained : what to fetch
    stall_s : seconds without data after which it is given up
    limit_s : seconds after which it is given up in any case

    Returns
    -------
    path of the complete file

    Raises
    ------
    UnavailableWeights : without network, or if what came is not what the name says
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / pretrained.url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    partial = folder / f"{path.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _download(pretrained.url, file, stall_s=stall_s, limit_s=limit_s)
        _check_hash(partial, named=path)
        partial.replace(path)
    except (OSError, http.client.HTTPException, WeightsError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UnavailableWeights(f"{pretrained.url} could not be fetched: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _download(url: str, file: BinaryIO, *, stall_s: float, limit_s: float) -> None:
    """Copy what an address holds, within limits of time."""
    deadline = time.monotonic() + limit_s
    with urllib.request.urlopen(url, timeout=stall_s) as reply:
        while data := reply.read1(CHUNK):
            file.write(data)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {limit_s:.0f} s")


def _check_hash(path: Path, named: Path | None = None) -> None:
    """Compare a file with the digits of a SHA-256 that its name (or another) ends in.

    Eight digits without a letter are taken for a date.
    """
    found = re.search(r"-(?=\d*[a-f])([0-9a-f]{8,64})$", (named or path).stem)
    if found is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise WeightsError(
            f"{named or path}: damaged, its SHA-256 begins {digest[: len(found[1])]} and its name "
            f"says {found[1]}; delete it and copy or download it again"
        )


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
