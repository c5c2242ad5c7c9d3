"""The work on one crop by the best operations that we know, for baselines in worker processes.

Region decode by nvImageCodec below `loaders.cpu.REGION_SHARE` of the picture, else a whole decode
by simplejpeg into a buffer that is used again; OpenCV's warp, colour matrix only where one was
drawn, `cv2.split` into the planes of the batch. On real crops of 446x446 (the four data sets,
quality 90) region decode takes a pair from 0.73 to 0.54 ms of CPU, so baselines get it too.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from nvidia import nvimgcodec

from loaders.cpu import REGION_SHARE
from loaders.recipe import Params
from shards.geometry import index_affine

__all__ = ["PictureDecoder", "apply"]

_CPU_ONLY = -99999  # nvImageCodec's device number for "no GPU"
_FLAGS = int(cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
_REPLICATE = int(cv2.BORDER_REPLICATE)
Picture = npt.NDArray[np.uint8]


class PictureDecoder:
    """Decodes what a crop needs of its picture. One for every process: it is not for threads.

    Parameters
    ----------
    frame_px : side of the stored pictures
    """

    def __init__(self, frame_px: int) -> None:
        self._frame_px = frame_px
        self._whole = np.empty(3 * frame_px**2, np.uint8)
        self._region = nvimgcodec.Decoder(
            device_id=_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)],
        )

    def decode(self, data: Any, region: npt.NDArray[Any]) -> tuple[Picture, tuple[int, int]]:
        """Decode at least a region.

        Parameters
        ----------
        data : buffer of one JPEG
        region : (4,) int64 xyxy, whole pixels

        Returns
        -------
        (H, W, 3) uint8 RGB, valid until the next call, and where its corner lies in the picture

        Raises
        ------
        ValueError : if it cannot be decoded
        """
        left, top, right, bottom = (int(value) for value in region)
        if (right - left) * (bottom - top) < REGION_SHARE * self._frame_px**2:
            view = nvimgcodec.Region(top, left, bottom, right)
            stream = nvimgcodec.CodeStream(data).get_sub_code_stream(region=view)
            image = self._region.decode(stream)
            if image is not None:
                return np.asarray(image), (left, top)
        whole = simplejpeg.decode_jpeg(data, "RGB", buffer=self._whole)
        return np.asarray(whole), (0, 0)


def apply(
    picture: Picture, params: Params, i: int, out: Picture, corner: tuple[int, int] = (0, 0)
) -> None:
    """Augment crop i as the plan says.

    Parameters
    ----------
    picture : (H, W, 3) uint8 RGB, a stored picture or a region of it
    params : of the recipe
    i : which crop
    out : (3, S, S) uint8 with contiguous planes, filled
    corner : (x, y) of the region in the stored picture
    """
    affine = params.frame_from_crop[i].copy()
    affine[:, 2] -= corner
    size = (params.out_px, params.out_px)
    crop = cv2.warpAffine(picture, index_affine(affine), size, flags=_FLAGS, borderMode=_REPLICATE)
    if params.colored[i]:
        crop = cv2.transform(crop, params.color[i])
    cv2.split(crop, list(out))
