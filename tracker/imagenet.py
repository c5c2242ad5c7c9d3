"""ImageNet weights of the backbones: find or fetch torchvision's, convert and load them."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from shards.errors import MismatchError
from tracker import weights
from tracker.backbones import AlexNet, Backbone, Pretrained
from tracker.mobilenet import MobileNetV2
from tracker.resnet import ResNet18, ResNet34, ResNet50
from tracker.weights import WeightsError

__all__ = [
    "BACKBONES",
    "Converted",
    "UnavailableWeights",
    "convert",
    "fetch",
    "imagenet_file",
    "load_backbone",
]

SUFFIXES = (".pth", ".pt", ".safetensors")
STALL_S = 10.0  # without a byte for this long a download is given up
LIMIT_S = 900.0  # and after this long in any case
CHUNK = 1 << 20
DIGITS = 12  # of the SHA-256 in the name of a converted file
BACKBONES: dict[str, type[Backbone]] = {
    network.pretrained.label: network
    for network in (AlexNet, ResNet18, ResNet34, ResNet50, MobileNetV2)
}


class UnavailableWeights(WeightsError):
    """ImageNet weights that fit are neither here nor to be fetched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A file of ImageNet weights in our names.

    Parameters
    ----------
    backbone : label of the network
    out : the file
    source, sha256 : name and SHA-256 of torchvision's file
    tensors, parameters : how many tensors, and numbers in them; batch statistics count
    note : what the user should know about the source (else None)
    """

    backbone: str
    out: str
    source: str
    sha256: str
    tensors: int
    parameters: int
    note: str | None


def convert(label: str, source: Path | None, out: Path) -> Converted:
    """Write torchvision's weights of a backbone in our names, whole or not at all.

    The file is ``<label>-imagenet-<first digits of its SHA-256>.safetensors``; the same weights
    give the same file, and ``model.init: auto`` finds it and checks the digits.

    Parameters
    ----------
    label : one of `BACKBONES`
    source : torchvision's file, or a folder that has it under its published name; None: torch's
        cache or the download
    out : folder to write into, made if it is not there

    Raises
    ------
    UnavailableWeights : if the file is not there, with what to fetch by hand
    WeightsError : if it is damaged, or of another network
    MismatchError : if other weights of this backbone were converted into the folder before
    """
    network = BACKBONES[label]
    pretrained = network.pretrained
    path = _source(pretrained, source)
    _check_hash(path)
    state = _converted(network, weights.read_state(path), path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    note = None
    if not sha256.startswith(digits := pretrained.url[-12:-4]):
        note = f"{path} is not torchvision's file: its SHA-256 begins {sha256[:8]}, not {digits}"
    # (one key: safetensors orders several by chance)
    data = save(state, metadata={"source": f"{path.name}, sha256 {sha256}"})
    digest = hashlib.sha256(data).hexdigest()[:DIGITS]
    target = out / f"{label}-imagenet-{digest}.safetensors"
    if others := sorted({*out.glob(f"{label}-imagenet-*.safetensors")} - {target}):
        raise MismatchError(
            f"{others[0]}: other weights of {label} were converted before; delete that file, or "
            "give another --out"
        )
    weights.write(target, data)
    return Converted(
        backbone=label, out=str(target), source=path.name, sha256=sha256, tensors=len(state),
        parameters=sum(t.numel() for t in state.values()), note=note,
    )  # fmt: skip


def _source(pretrained: Pretrained, source: Path | None) -> Path:
    """File to convert."""
    name = pretrained.url.rsplit("/", 1)[-1]
    by_hand = f"python -m tracker convert --imagenet {pretrained.label} --from {name}"
    if source is None:
        try:
            return fetch(pretrained)
        except UnavailableWeights as error:
            raise UnavailableWeights(
                f"{error}; fetch it by hand and give the file: {by_hand}"
            ) from error
    path = source / name if source.is_dir() else source
    if not path.is_file():
        raise UnavailableWeights(f"{path}: no such file; it is published as {pretrained.url}")
    return path


def _converted(
    network: type[Backbone], state: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Tensors in our names, layers that no tracker uses included, the classifier left out."""
    with torch.device("meta"):
        backbone = network()
    named = backbone_state(backbone, state)
    own, label = backbone.state_dict(), network.pretrained.label
    text = weights.differences(own, {k: v for k, v in named.items() if k in own})
    if not text and len(named) != network.pretrained.tensors:
        text = f"{len(named)} tensors instead of {network.pretrained.tensors}"
    if text:
        raise WeightsError(f"{path}: not torchvision's {label}: {text}")
    weights.check_finite(named, str(path))
    return {k: v.contiguous() for k, v in named.items()}


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
    if text := weights.differences(own, found):
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
