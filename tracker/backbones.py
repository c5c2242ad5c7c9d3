"""Backbones: a picture in, named feature maps out, stride 8 in all of them.

A backbone is an `nn.Module` with ``channels`` (feature name -> channels) and ``pretrained`` (where
its ImageNet weights come from), whose ``forward`` takes (B,3,255,255) and returns one map per name.
Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ALEXNET_CHANNELS", "ALEXNET_IMAGENET", "AlexNet", "Backbone", "Pretrained", "Stage"]

ALEXNET_CHANNELS = (64, 192, 384, 256, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """ImageNet weights of a backbone, as torchvision publishes them.

    Parameters
    ----------
    label : the file name's first letters, ``alexnet`` for ``alexnet*.pth``
    url : address of the published file; its name ends in the first digits of its SHA-256
    names : published tensor name -> tensor name in the backbone; all others (the classifier) are
        dropped
    """

    label: str
    url: str
    names: Mapping[str, str]


ALEXNET_IMAGENET = Pretrained(
    label="alexnet",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    names={
        f"features.{theirs}.{kind}": f"conv{ours}.conv.{kind}"
        for ours, theirs in enumerate((0, 3, 6, 8, 10), 1)
        for kind in ("weight", "bias")
    },
)


class Backbone(nn.Module):
    """What the models need to know about a backbone; see the module docstring."""

    channels: Mapping[str, int]
    pretrained: Pretrained


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
    channels : channels of conv1..conv5; the default is the published network
    """

    pretrained = ALEXNET_IMAGENET

    def __init__(self, channels: tuple[int, int, int, int, int] = ALEXNET_CHANNELS) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels
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
