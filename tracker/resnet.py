"""ResNets (He et al., CVPR 2016) as backbones of trackers: torchvision's blocks, stride 8.

PySiamTracking's C4 form: the stem has no padding, the last stage no stride, and layer4 is left out,
so 255 px become 63, 63, 32 and 32 cells, and cell k looks at input pixel 8k + 3: the middle of the
map is the middle of the crop. No dilation replaces the missing stride.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from tracker.backbones import Backbone, Pretrained, narrow

__all__ = ["ResNet", "ResNet18", "ResNet34", "ResNet50", "last_norms"]

STEM_CHANNELS = 64
STAGES = ((64, 1), (128, 2), (256, 1))  # channels and stride of conv2..conv4


def _imagenet(label: str, digits: str, tensors: int) -> Pretrained:
    """Weights of torchvision's ResNets; their layer4 becomes conv5, which no tracker here has."""
    layers = {f"layer{i}.": f"conv{i + 1}." for i in range(1, 5)}
    return Pretrained(
        label=label,
        url=f"https://download.pytorch.org/models/{label}-{digits}.pth",
        prefixes={"conv1.": "conv1.0.", "bn1.": "conv1.1.", **layers},
        tensors=tensors,
    )


class ResNet(Backbone):
    """Stem and three stages of a ResNet; the subclasses say of which.

    Parameters
    ----------
    width : factor on the channels; 1 is the published network
    norm_eval : keep batch normalisation in evaluation mode also in training, so that it uses the
        statistics that were loaded; its weights and biases are trained all the same
    """

    block: ClassVar[Any]  # BasicBlock or Bottleneck
    depths: ClassVar[tuple[int, int, int]]

    def __init__(self, width: float = 1.0, *, norm_eval: bool = False) -> None:
        super().__init__()
        self.norm_eval = norm_eval
        inputs = narrow(STEM_CHANNELS, width)
        self.channels = {"conv1": inputs}
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, inputs, 7, stride=2, padding=0, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
        )
        for i, ((channels, stride), depth) in enumerate(zip(STAGES, self.depths, strict=True), 2):
            stage, inputs = self._stage(inputs, narrow(channels, width), depth, stride)
            self.add_module(f"conv{i}", stage)
            self.channels[f"conv{i}"] = inputs

    def _stage(
        self, inputs: int, channels: int, depth: int, stride: int
    ) -> tuple[nn.Sequential, int]:
        """Blocks of one stage and the channels that they give out."""
        outputs = channels * self.block.expansion
        shortcut = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        first = self.block(inputs, channels, stride, shortcut)
        return nn.Sequential(
            first, *(self.block(outputs, channels) for _ in range(depth - 1))
        ), outputs

    def train(self, mode: bool = True) -> ResNet:
        """Enter training or evaluation mode, batch normalisation as `norm_eval` says."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of pictures.

        Parameters
        ----------
        image : (B,3,255,255) float, normalised RGB

        Returns
        -------
        conv1 (B,64,63,63), conv2 (B,64,63,63), conv3 (B,128,32,32), conv4 (B,256,32,32), after
        ReLU, conv1 after the pool too; with Bottleneck blocks conv2..conv4 have 4 times as many
        channels
        """
        x = F.max_pool2d(self.conv1(image), 3, stride=2, padding=1)
        features = {"conv1": x}
        for name in list(self.channels)[1:]:
            x = self.get_submodule(name)(x)
            features[name] = x
        return features


class ResNet18(ResNet):
    """ResNet-18 without layer4: two blocks a stage."""

    pretrained = _imagenet("resnet18", "f37072fd", 120)
    block, depths = BasicBlock, (2, 2, 2)


class ResNet34(ResNet):
    """ResNet-34 without layer4."""

    pretrained = _imagenet("resnet34", "b627a593", 216)
    block, depths = BasicBlock, (3, 4, 6)


class ResNet50(ResNet):
    """ResNet-50 without layer4; the stride is on the 3x3 convolution of a block."""

    pretrained = _imagenet("resnet50", "0676ba61", 318)
    block, depths = Bottleneck, (3, 4, 6)


def last_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Last normalisation of every residual block, whose weight starts at 0 without ImageNet."""
    return [
        module.bn3 if isinstance(module, Bottleneck) else module.bn2
        for module in model.modules()
        if isinstance(module, BasicBlock | Bottleneck)
    ]
