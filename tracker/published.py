"""Published checkpoints, and those of our own runs, to model files.

A published file is ``{meta, state_dict, optimizer}`` as mmcv writes it, or the tensors alone; names
may begin with ``module.``. Nothing in it is executed. It says nothing of the model: that is found
from the names and shapes of the tensors. Published models are of the grid ``corner``.
"""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from configs import strict
from shards.errors import ConfigError, MismatchError, SiamstreamError
from tracker import weights
from tracker.config import ModelConfig
from tracker.files import file_sha256, save_model
from tracker.header import FORMAT, Header, read_header, run_config
from tracker.models import build

__all__ = ["MODELS", "Converted", "convert", "recognise"]

MODELS: tuple[str, ...] = get_args(get_type_hints(ModelConfig)["name"])

# How the names of others' tensors begin, and what to say about them.
FOREIGN = {
    "rpn_head.": "it looks like pysot's: there the outputs go by class before anchor, so its "
    "numbers would mean other boxes here; it cannot be converted",
    "features.": "it looks like an ImageNet classifier's; use --imagenet for those",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What `convert` did.

    Parameters
    ----------
    out, model, grid : the model file, and what is in it
    source, sha256 : file that was read (its name without folders)
    epoch, step : how long it was trained, as far as the file says
    tensors, parameters : how many; buffers count among the tensors alone
    notes : what the user should know
    """

    out: str
    model: str
    grid: str
    source: str
    sha256: str
    epoch: int | None
    step: int | None
    tensors: int
    parameters: int
    notes: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the weights come from, on one line."""
        counts = {"epoch": self.epoch, "step": self.step}
        known = [f"{unit} {count}" for unit, count in counts.items() if count is not None]
        return ", ".join([self.source, *known, f"sha256 {self.sha256}"])


def convert(source: Path, out: Path, *, model: str | None = None, force: bool = False) -> Converted:
    """Write a checkpoint as a model file. Again with the same source it writes the same bytes.

    Parameters
    ----------
    source : published checkpoint, or one of ``train.py``, whose grid is kept
    out : model file, ``.safetensors``
    model : which of `MODELS` it must be; None: found from the tensors
    force : replace whatever file is at `out`

    Returns
    -------
    Converted

    Raises
    ------
    WeightsError : if it cannot be read, is of no known model, or holds numbers that are none
    MismatchError : if `out` is another file
    """
    content = weights.read_content(source)
    if weights.is_safetensors(source) and read_header(source) is not None:
        raise weights.WeightsError(f"{source} is a model file already; use it as it is")
    state = weights.state_of(content, source)
    told = run_config(content, source)
    config = told or _config(recognise(state, source, model))
    if model not in (None, config.name):
        raise weights.WeightsError(f"{source} is a run's checkpoint of {config.name}, not {model}")
    network = build(config)
    weights.check(network.state_dict(), state, str(source))
    state, notes = _exact(state, network.state_dict(), source)
    network.load_state_dict(state)
    if told is None and not (isinstance(content, Mapping) and "meta" in content):
        notes = (*notes, "tensors alone do not say of which grid they are; taken for a published "
                         "model, of 'corner'")  # fmt: skip
    found = Converted(
        out=str(out), model=config.name, grid=config.grid, source=source.resolve().name,
        sha256=file_sha256(source), epoch=_count(content, "epoch"), step=_count(content, "step"),
        tensors=len(state), parameters=sum(p.numel() for p in network.parameters()), notes=notes,
    )  # fmt: skip
    _refuse_other(out, source, Header(format=FORMAT, source=found.origin, model=config), force)
    save_model(out, network, source=found.origin)
    return found


def recognise(state: Mapping[str, Tensor], path: Path, wanted: str | None = None) -> str:
    """Find the model that tensors are of.

    Parameters
    ----------
    state : name -> tensor
    path : where they come from, for messages
    wanted : compare with this model alone

    Returns
    -------
    one of `MODELS`

    Raises
    ------
    WeightsError : naming the closest model and what differs, or the project that it may be of
    """
    own = {name: _shapes(name) for name in MODELS}
    fitting = [name for name, shapes in own.items() if not weights.differences(shapes, state)]
    if wanted in fitting or (fitting and wanted is None):
        return wanted or fitting[0]
    if fitting:
        raise weights.WeightsError(
            f"{path}: these weights are not of {wanted}, but of {fitting[0]}; give that as --model"
        )
    alike = {name: sum(k in shapes for k in state) for name, shapes in own.items()}
    if not any(alike.values()):
        raise weights.WeightsError(f"{path}: weights of another project: {_foreign(state)}")
    fits = {name: sum(_same(shapes, state, k) for k in state) for name, shapes in own.items()}
    closest = wanted or max(MODELS, key=lambda name: (fits[name], alike[name]))
    what = f"not of {wanted}" if wanted else f"of no known model; closest is {closest}"
    raise weights.WeightsError(
        f"{path}: these weights are {what}: {weights.differences(own[closest], state)}"
    )


def _config(name: str) -> ModelConfig:
    """Configuration of a published model."""
    return strict.load_text(ModelConfig, f"name: {name}\ngrid: corner\n", "a published model")


def _shapes(name: str) -> dict[str, Tensor]:
    """Tensors of a published model, without memory."""
    with torch.device("meta"):
        return dict(build(_config(name)).state_dict())


def _same(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> bool:
    return name in own and own[name].shape == state[name].shape


def _foreign(state: Mapping[str, Tensor]) -> str:
    """What tensors with unknown names may be."""
    for start, what in FOREIGN.items():
        if found := next((k for k in state if k.startswith(start)), None):
            return f"{what} ({found})"
    return f"none of its names is known here, such as {', '.join(list(state)[:3])}"


def _exact(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors in the types of the model, and notes about those that had others.

    Raises
    ------
    WeightsError : naming the tensors that are not plain numbers, or not finite ones
    """
    strange = [
        k for k, t in state.items()
        if t.layout != torch.strided or t.is_quantized or t.is_meta
        or t.is_floating_point() != own[k].is_floating_point() or t.is_complex()
    ]  # fmt: skip
    if strange:
        listed = weights.listed([f"{k} ({state[k].dtype})" for k in strange])
        raise weights.WeightsError(f"{path}: not plain numbers of the expected kind: {listed}")
    cast = {k: t.detach().to(own[k].dtype) for k, t in state.items()}
    weights.check_finite(cast, str(path))
    kinds = Counter(t.dtype for k, t in state.items() if t.dtype != own[k].dtype)
    notes = [
        f"{count} tensors were {str(kind).removeprefix('torch.')} and are float32 now"
        for kind, count in kinds.items()
        if kind.is_floating_point
    ]
    return cast, tuple(notes)


def _count(content: Any, name: str) -> int | None:
    """Number of epochs or steps, where a checkpoint tells it."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    value = meta.get(name) if isinstance(meta, Mapping) else None
    return int(value) if isinstance(value, numbers.Integral) else None


def _refuse_other(out: Path, source: Path, new: Header, force: bool) -> None:
    """Let nothing be overwritten that is not the same model from the same source."""
    if out.exists() and out.samefile(source):
        raise MismatchError(f"{out} is the file to convert; give another --out")
    if not out.exists() or (force and out.is_file()):
        return
    if not out.is_file():
        raise MismatchError(f"{out} is not a file; give the name of a file as --out")
    there = "is no model file"
    try:
        old = read_header(out) if weights.is_safetensors(out) else None
        if old == new:
            return
        there = there if old is None else f"is a model file of {old.source}"
    except (SiamstreamError, ConfigError) as error:
        there = f"is no readable model file ({error})"
    raise MismatchError(f"{out} {there}; give another --out, or --force to replace it")
