"""Backbones: a picture in, named feature maps out, stride 8 in all of them.

A backbone is an `nn.Module` with ``channels`` (feature name -> channels) and ``pretrained`` (where
its ImageNet weights come from), whose ``forward`` takes (B,3,255,255) and returns one map per name.
Parameter names and shapes are those of the published checkpoints. AlexNet is here, the others
are in `tracker.resnet` and `tracker.mobilenet`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tracker.anchors import SEARCH_PX

__all__ = [
    "ALEXNET_CHANNELS",
    "AlexNet",
    "Backbone",
    "Pretrained",
    "Stage",
    "narrow",
    "pair_features",
]

ALEXNET_CHANNELS = (64, 192, 384, 256, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """ImageNet weights of a backbone, as torchvision publishes them (IMAGENET1K_V1).

    Parameters
    ----------
    label : the file name's first letters, ``alexnet`` for ``alexnet*.pth``
    url : address of the published file; its name ends in the first digits of its SHA-256
    prefixes : how published tensor names begin -> how ours do; the rest of a name stays. All others
        (the classifier, MobileNet's last layer) are dropped
    tensors : how many are left
    """

    label: str
    url: str
    prefixes: Mapping[str, str]
    tensors: int

    def rename(self, name: str) -> str | None:
        """Our name of a published tensor; None if it is dropped."""
        for theirs, ours in self.prefixes.items():
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return None


class Backbone(nn.Module):
    """What the models need to know about a backbone; see the module docstring."""

    channels: Mapping[str, int]
    pretrained: Pretrained


def narrow(channels: int, width: float) -> int:
    """Channels at a width: the nearest multiple of 8, at least 8."""
    return max(8, 8 * math.floor(channels * width / 8 + 0.5))


def pair_features(
    backbone: Backbone, template: Tensor, search: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features of both crops of a training pair, in two calls, so that batch statistics stay apart.

    Parameters
    ----------
    backbone : called with each
    template, search : (B,3,255,255) float, normalised RGB

    Returns
    -------
    features of the templates and of the search crops, by name

    Raises
    ------
    ValueError : if a crop has another size
    """
    for name, image in (("template", template), ("search", search)):
        if image.shape[1:] != (3, SEARCH_PX, SEARCH_PX):
            raise ValueError(
                f"{name} must be (B, 3, {SEARCH_PX}, {SEARCH_PX}), got {tuple(image.shape)}"
            )
    return backbone(template), backbone(search)


class Stage(nn.Module):
    """Convolution, ReLU and, if asked for, a 3x3 max pool of stride 2.

    Parameters
    ----------
    inputs, outputs : channels
    kernel, stride, padding : of the convolution, pixels of its input
    pool : whether the pool follows
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, padding: int, pool: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        x = F.relu(self.conv(x), inplace=True)
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.pool else x


class AlexNet(Backbone):
    """AlexNet of the SPM tracker (Wang et al., CVPR 2019): five convolutions, no normalisation.

    It is torchvision's AlexNet (Krizhevsky 2014, "one weird trick") with stride 2 and padding 5 in
    conv1 and padded pools, so 255 px become 64, 32 and then 32 cells. Cell k looks at input pixel
    8k.

    Parameters
    ----------
    width : factor on the channels; 1 is the published network
    """

    pretrained = Pretrained(
        label="alexnet",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        prefixes={
            f"features.{theirs}.": f"conv{ours}.conv."
            for ours, theirs in enumerate((0, 3, 6, 8, 10), 1)
        },
        tensors=10,
    )

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels = [narrow(c, width) for c in ALEXNET_CHANNELS]
        self.channels = {f"conv{i}": c for i, c in enumerate(channels, 1)}
        self.conv1 = Stage(3, c1, 11, stride=2, padding=5, pool=True)
        self.conv2 = Stage(c1, c2, 5, stride=1, padding=2, pool=True)
        self.conv3 = Stage(c2, c3, 3, stride=1, padding=1, pool=False)
        self.conv4 = Stage(c3, c4, 3, stride=1, padding=1, pool=False)
        self.conv5 = Stage(c4, c5, 3, stride=1, padding=1, pool=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of pictures.

        Parameters
        ----------
        image : (B,3,255,255) float, normalised RGB

        Returns
        -------
        conv1 (B,64,64,64), conv2 (B,192,32,32), conv3 (B,384,32,32), conv4 and conv5 (B,256,32,32),
        after ReLU and pool
        """
        features: dict[str, Tensor] = {}
        x = image
        for name in self.channels:
            x = self.get_submodule(name)(x)
            features[name] = x
        return features
