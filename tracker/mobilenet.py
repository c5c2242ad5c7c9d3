"""MobileNetV2 (Sandler et al., CVPR 2018) as a backbone of trackers: stride 8, no last layer.

PySiamTracking's form: the stem and the first block have no padding, and two stages no stride, so
255 px become 127, 125, 63 and then 32 cells. The blocks are torchvision's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual

from tracker.backbones import Backbone, Pretrained, narrow

__all__ = ["MobileNetV2"]

STEM_CHANNELS = 32
EXPANSION = 6  # but 1 in the first block
# blocks, channels and stride of conv2..conv8
STAGES = (
    (1, 16, 1),
    (2, 24, 2),
    (3, 32, 2),
    (4, 64, 1),
    (3, 96, 1),
    (3, 160, 1),
    (1, 320, 1),
)


def _prefixes() -> dict[str, str]:
    """Rows of torchvision's ``features`` in our stages; the last, a 1x1 layer, is left out."""
    names = {"features.0.": "conv1."}
    for stage, (blocks, _, _) in enumerate(STAGES, 2):
        for block in range(blocks):
            names[f"features.{len(names)}."] = f"conv{stage}.{block}."
    return names


class MobileNetV2(Backbone):
    """Stem and seven stages of inverted residuals.

    Parameters
    ----------
    width : factor on the channels; 1 is the published network
    """

    pretrained = Pretrained(
        label="mobilenet_v2",
        url="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        prefixes=_prefixes(),
        tensors=306,
    )

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        inputs = narrow(STEM_CHANNELS, width)
        self.channels = {"conv1": inputs}
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, inputs, 3, stride=2, padding=0, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(inplace=True),
        )
        for i, (depth, channels, stride) in enumerate(STAGES, 2):
            outputs, expansion = narrow(channels, width), 1 if i == 2 else EXPANSION
            blocks = [InvertedResidual(inputs, outputs, stride, expansion)]
            blocks += [InvertedResidual(outputs, outputs, 1, expansion) for _ in range(depth - 1)]
            if i == 2:
                blocks[0].conv[0][0].padding = (0, 0)
                blocks[0].use_res_connect = False  # its output is smaller than its input
            self.add_module(f"conv{i}", nn.Sequential(*blocks))
            self.channels[f"conv{i}"] = inputs = outputs

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of pictures.

        Parameters
        ----------
        image : (B,3,255,255) float, normalised RGB

        Returns
        -------
        conv1 (B,32,127,127), conv2 (B,16,125,125), conv3 (B,24,63,63), and with 32x32 cells conv4
        (32 channels), conv5 (64), conv6 (96), conv7 (160), conv8 (320)
        """
        features: dict[str, Tensor] = {}
        x = image
        for name in self.channels:
            x = self.get_submodule(name)(x)
            features[name] = x
        return features
