"""Models in files: one safetensors file has the weights, and what the weights mean.

Its metadata hold one text under the key ``siamstream``, a YAML document after a line with a
SHA-256 of that document and of all tensors::

    sha256: 5e2f...
    format: 1
    source: epoch_50.pth, epoch 50, sha256 0a1b...
    model: {name: spm_alexnet, grid: corner, ...}

One key, because safetensors orders several by chance: so the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge
from safetensors.torch import save
from torch import Tensor

from configs import strict
from configs.document import parse
from shards.errors import ConfigError, VersionError
from tracker import weights
from tracker.models import SPM, ModelConfig, build
from tracker.training import checkpoint

__all__ = [
    "FORMAT",
    "KEY",
    "Header",
    "Opened",
    "file_sha256",
    "open_model",
    "read_header",
    "run_config",
    "save_model",
]

FORMAT = 1
KEY = "siamstream"
MAX_HEADER = 1 << 24  # bytes; the published models have 5,000
TUNABLE = "track."  # what may be another value than in the file


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


class Opened(NamedTuple):
    """A model, ready to track: in eval mode, on its device; ``sha256`` is that of the file."""

    model: SPM
    config: ModelConfig
    path: Path
    sha256: str


def save_model(path: Path, model: SPM, *, source: str) -> None:
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
    text = strict.dump(Header(format=FORMAT, source=source, model=model.config))
    data = save(state, metadata={KEY: f"sha256: {_digest(text, state)}\n{text}"})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise weights.WeightsError(f"{path}: could not be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


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
    if path.is_file() and weights.is_safetensors(path):
        config, state = _from_safetensors(path, overrides)
    else:
        config, state = _from_run(path, overrides)
    model = build(config)
    weights.load_model(model, state, str(path))
    return Opened(model.to(device).eval(), config, path, file_sha256(path))


def _from_safetensors(
    path: Path, overrides: Sequence[str]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and tensors of a model file, compared with their digest."""
    found = _metadata(path)
    if found is None:
        raise weights.WeightsError(f"{path}: {_convert_first(path)}")
    digest, text = found
    config = _header(path, text, overrides).model
    state = weights.read_state(path)
    if _digest(text, state) != digest:
        raise weights.WeightsError(
            f"{path}: damaged, its tensors are not those that were written; copy or convert again"
        )
    return config, state


def _from_run(path: Path, overrides: Sequence[str]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and tensors of a checkpoint of ``train.py``."""
    content = weights.read_content(path)
    config = run_config(content, path, overrides)
    if config is None:
        raise weights.WeightsError(f"{path}: {_convert_first(path)}")
    return config, weights.state_of(content, path)


def run_config(content: Any, path: Path, overrides: Sequence[str] = ()) -> ModelConfig | None:
    """Model of a checkpoint of ``train.py``; None if the content is not that of one.

    Raises
    ------
    ConfigError : if the configuration in it is invalid
    VersionError : if it is of another format
    """
    if not isinstance(content, Mapping) or any(key not in content for key in checkpoint.KEYS):
        return None
    if content.get("format") != checkpoint.FORMAT:
        raise VersionError(
            f"{path}: checkpoint format {content.get('format')}, this program reads "
            f"{checkpoint.FORMAT}"
        )
    label, meta = f"{path}, its configuration", content["meta"]
    text = meta.get("config") if isinstance(meta, Mapping) else None
    whole = parse(text, label).value if isinstance(text, str) else None
    if not isinstance(whole, dict) or not isinstance(whole.get("model"), dict):
        raise ConfigError(f"{label}: no section 'model'; the file is damaged")
    return strict.load_text(ModelConfig, strict.dump(whole["model"]), label, overrides)


def read_header(path: Path) -> Header | None:
    """Metadata of a model file; None for safetensors files of others.

    Raises
    ------
    WeightsError : if it is missing or damaged
    VersionError : if it is of a newer format
    ConfigError : if its configuration is invalid
    """
    found = _metadata(path)
    return None if found is None else _header(path, found[1])


def _header(path: Path, text: str, overrides: Sequence[str] = ()) -> Header:
    """Check the document of the metadata; overrides are of its model."""
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
        raw = file.read(min(length, MAX_HEADER))
    try:
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
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert_first(path: Path) -> str:
    return (
        "has weights but does not say of which model and grid; convert it first: python -m tracker "
        f"convert --from {path} --out {path.with_suffix('').name}.safetensors"
    )
