"""What a file of weights says about itself: of which model, settings and grid they are.

A model file is safetensors. Its metadata hold one text under the key ``siamstream``, a YAML
document after a line with a SHA-256 of that document and of all tensors::

    sha256: 5e2f...
    format: 1
    source: epoch_50.pth, epoch 50, sha256 0a1b...
    model: {name: spm_alexnet, grid: corner, ...}

One key, because safetensors orders several by chance: so the same model gives the same bytes. A
checkpoint of ``train.py`` has the configuration of its run.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from configs import strict
from configs.document import parse
from shards.errors import ConfigError, VersionError
from tracker import weights
from tracker.config import ModelConfig
from tracker.training import checkpoint

__all__ = [
    "FORMAT",
    "Header",
    "metadata_of",
    "read_header",
    "run_config",
    "told_config",
]

FORMAT = 1
KEY = "siamstream"
MAX_BYTES = 1 << 24  # of a header; the published models have 5,000


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the metadata of a model file say.

    Parameters
    ----------
    format : version of this layout
    source : where the weights come from
    model : what they are the weights of
    """

    format: Annotated[int, Ge(1)]
    source: str
    model: ModelConfig


def metadata_of(model: ModelConfig, source: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of a model file with these tensors."""
    text = strict.dump(Header(format=FORMAT, source=source, model=model))
    return {KEY: f"sha256: {_digest(text, state)}\n{text}"}


def told_config(path: Path, content: Any, overrides: Sequence[str] = ()) -> ModelConfig | None:
    """Configuration that a file tells with its weights; None if it does not say.

    Parameters
    ----------
    path : of the file
    content : of `weights.read_content`; that of a model file is compared with its digest
    overrides : of keys of the model

    Raises
    ------
    WeightsError, VersionError, ConfigError : if what it tells is damaged, newer, or invalid
    """
    if not weights.is_safetensors(path):
        return run_config(content, path, overrides)
    header = read_header(path, overrides)
    if header is None:
        return None
    digest, text = _metadata(path) or ("", "")
    if _digest(text, content) != digest:
        raise weights.WeightsError(
            f"{path}: damaged, what it holds is not what was written; copy or convert it again"
        )
    return header.model


def run_config(content: Any, path: Path, overrides: Sequence[str] = ()) -> ModelConfig | None:
    """Model of a checkpoint of ``train.py``, or of what was kept of one with its ``meta``.

    Returns
    -------
    None if the content is not that of one: the configuration of a published checkpoint is no YAML

    Raises
    ------
    ConfigError : if the configuration in it is invalid
    VersionError : if it is of another format
    """
    if not isinstance(content, Mapping):
        return None
    ours = all(key in content for key in checkpoint.KEYS)
    if ours and content.get("format") != checkpoint.FORMAT:
        raise VersionError(
            f"{path}: checkpoint format {content.get('format')}, this program reads "
            f"{checkpoint.FORMAT}"
        )
    label = f"{path}, its configuration"
    try:
        model = _model_section(content.get("meta"), label)
    except ConfigError:
        if ours:
            raise
        return None
    if not ours and not {"name", "grid"} <= model.keys():
        return None
    return strict.load_text(ModelConfig, strict.dump(model), label, overrides)


def _model_section(meta: object, label: str) -> dict[str, Any]:
    """Section ``model`` of the configuration that a checkpoint's ``meta`` has; else ConfigError."""
    text = meta.get("config") if isinstance(meta, Mapping) else None
    whole = parse(text, label).value if isinstance(text, str) else None
    model = whole.get("model") if isinstance(whole, dict) else None
    if not isinstance(model, dict):
        raise ConfigError(f"{label}: no section 'model'; the file is damaged")
    return model


def read_header(path: Path, overrides: Sequence[str] = ()) -> Header | None:
    """Metadata of a model file; None for safetensors files of others.

    Parameters
    ----------
    path : begins as safetensors do
    overrides : of keys of its model

    Raises
    ------
    WeightsError : if it is missing or damaged
    VersionError : if it is of a newer format
    ConfigError : if its configuration is invalid
    """
    found = _metadata(path)
    if found is None:
        return None
    text = found[1]
    label = f"{path}, its metadata"
    value = parse(text, label).value
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise VersionError(
            f"{path}: model file of format {version}, this program reads up to {FORMAT}; update it"
        )
    try:
        return strict.load_text(Header, text, label, [f"model.{one}" for one in overrides])
    except ConfigError as error:
        raise ConfigError(str(error).replace("--set model.", "--set ")) from error


def _metadata(path: Path) -> tuple[str, str] | None:
    """Digest and document of our metadata; None if the file has none.

    The header is read here: the library's reader would map the file with all its tensors.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(min(length, MAX_BYTES))
    try:
        if length != len(raw):
            raise ValueError(f"a header of {length} bytes")
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise weights.WeightsError(
            f"{path}: not a readable file of weights: its header is damaged; copy it again"
        ) from error
    entry = value.get("__metadata__") if isinstance(value, dict) else None
    text = entry.get(KEY) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        return None
    first, _, rest = text.partition("\n")
    return first.removeprefix("sha256: "), rest


def _digest(text: str, state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a document and of tensors with their names, types and shapes."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
