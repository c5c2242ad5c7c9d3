"""Models put together from the parts: composition and first weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tracker import imagenet, weights
from tracker.backbones import AlexNet
from tracker.config import ModelConfig
from tracker.header import told_config
from tracker.resnet import ResNet18
from tracker.siamfc import SiamFC
from tracker.siamrpn import SiamRPN
from tracker.spm import SPM

__all__ = ["InitReport", "ModelConfig", "TrackerModel", "build", "initialise"]

TrackerModel = SPM | SiamRPN | SiamFC


def build(config: ModelConfig) -> TrackerModel:
    """Model with random weights; `initialise` gives it those that the configuration asks for.

    Parameters
    ----------
    config : the model

    Returns
    -------
    SPM, SiamRPN or SiamFC on the CPU, in training mode. The same seed gives the same weights;
    global random states stay.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made
        model = _compose(config)
    weights.randomise(model, config.seed)
    return model


def _compose(config: ModelConfig) -> TrackerModel:
    """Parts of the published models: the backbone, and the features that each stage reads."""
    match config.name:
        case "spm_alexnet":
            net = AlexNet(config.width)
            return SPM(net, config, coarse_feature="conv5", fine_features=("conv2", "conv4"))
        case "spm_r18c4":
            res = ResNet18(config.width, norm_eval=True)
            return SPM(res, config, coarse_feature="conv4", fine_features=("conv3", "conv4"))
        case "siamrpn_alexnet":
            return SiamRPN(AlexNet(config.width), config, feature="conv5", depthwise=False)
        case "siamrpn_alexnet_dw":
            return SiamRPN(AlexNet(config.width), config, feature="conv5", depthwise=True)
        case "siamfc_alexnet":
            return SiamFC(AlexNet(config.width), config, feature="conv5")


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport:
    """Where the first weights came from, and what the user should know about it (else None)."""

    source: str
    warning: str | None = None


def initialise(model: TrackerModel, config: ModelConfig) -> InitReport:
    """Give a model its first weights.

    In a distributed run call it on rank 0 alone, before DistributedDataParallel is made: that
    copies the parameters of rank 0 to the others, so one process reads or downloads.

    Parameters
    ----------
    model : of `build`; changed in place
    config : ``init``, ``pretrained``, ``seed`` and ``width`` are used

    Returns
    -------
    InitReport

    Raises
    ------
    WeightsError : if the weights that were asked for cannot be had or do not fit, or if a file that
        is there is damaged
    """
    weights.randomise(model, config.seed)
    if config.init == "random":
        return InitReport(source=f"random, seed {config.seed}")
    if config.init not in ("auto", "imagenet"):
        return _from_file(model, Path(config.init))
    try:
        if config.width != 1:
            raise imagenet.UnavailableWeights(
                f"no ImageNet weights fit a model of width {config.width}"
            )
        path = imagenet.imagenet_file(model.z_net.pretrained, Path(config.pretrained))
    except imagenet.UnavailableWeights as error:
        if config.init == "imagenet":
            raise
        warning = f"{error}. The backbone starts from random weights."
        if getattr(model.z_net, "norm_eval", False):
            warning += " Its batch normalisation has no statistics, and never learns any."
        return InitReport(source=f"random, seed {config.seed}", warning=warning)
    unused = imagenet.load_backbone(model.z_net, weights.read_state(path), str(path))
    return InitReport(source=f"ImageNet, {path}{_without(unused)}")


def _from_file(model: TrackerModel, path: Path) -> InitReport:
    """Load a file that was named: a whole model, or a backbone alone."""
    if not path.is_file():
        raise weights.WeightsError(
            f"model.init: {path} is no file; give auto, imagenet, random, or the path of weights"
        )
    content = weights.read_content(path)
    told, own = told_config(path, content), model.config
    if told is not None and told.name != own.name:
        raise weights.WeightsError(
            f"model.init: {path} is of model.name '{told.name}', this model of '{own.name}'; give "
            f"--set model.name={told.name}, or other first weights"
        )
    state = weights.state_of(content, path)
    of_backbone = {name.startswith("z_net.") for name in state}
    if len(of_backbone) == 1:  # no heads: all names have the prefix, or none has
        unused = imagenet.load_backbone(model.z_net, state, str(path))
        return InitReport(source=f"backbone, {path}{_without(unused)}")
    weights.load_model(model, state, str(path))
    warning = None
    grid = "corner" if told is None else told.grid
    if grid != own.grid:
        what = f"is of grid '{grid}'"
        if told is None:
            what = "does not say of which grid it is; published weights are of 'corner'"
        warning = (
            f"{path} {what}, and this model is of '{own.grid}': at first, what it sees is shifted "
            "by up to a pixel."
        )
    return InitReport(source=f"model, {path}", warning=warning)


def _without(unused: list[str]) -> str:
    """Layers of a file that the backbone does not have, for the report."""
    layers = sorted({name.split(".")[0] for name in unused})
    return f" (without its {', '.join(layers)})" if layers else ""
