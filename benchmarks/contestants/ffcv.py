"""FFCV: a .beton of the same JPEG bytes, Numba-compiled threads in one process.

The beton's table of samples is replaced by the plan's, one row for every crop to be made, so that
FFCV's own way through it, in sequence, is the plan's order (its loader refuses a traversal order of
one's own: it tests an instance where it later calls a class). The table's rows carry the crop's
geometry too. One decoder does all: FFCV's libjpeg-turbo into a picture of the thread's own,
bilinear crop in Numba, float32 out, in memory that FFCV uses again a few batches later. FFCV asks
libjpeg-turbo for its fast DCT, whose pixels are a level off on average; that is in its favour.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import simplejpeg
from ffcv.fields import RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES, SimpleRGBImageDecoder
from ffcv.libffcv import imdecode
from ffcv.loader import Loader
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter

from benchmarks.case import Case, Served
from benchmarks.pairs import whole_work
from benchmarks.peer_forms import Pictures, Rows, form_folder
from loaders.batch import MEAN_RGB, STD_RGB

label = f"FFCV {importlib.metadata.version('ffcv')} (beton, Numba threads)"

_FILE = "pictures.beton"
_FIELD = "jpg"
_GEOMETRY = [(name, "<f8") for name in ("step_x", "step_y", "first_x", "first_y")]
_SCALE = (1 / (255 * np.array(STD_RGB))).astype(np.float32)
_BIAS = (-np.array(MEAN_RGB) / np.array(STD_RGB)).astype(np.float32)


class StoredJpeg(RGBImageField):  # type: ignore[misc]
    """A picture's JPEG bytes, stored as they are."""

    @staticmethod
    def from_binary(_: Any) -> StoredJpeg:
        """Field of a file that is read."""
        return StoredJpeg()

    def encode(self, destination: Any, image: bytes, malloc: Callable[[int], Any]) -> None:
        """Store one picture."""
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["width"], destination["height"] = _size(image)
        destination["data_ptr"], storage = malloc(len(image))
        storage[:] = np.frombuffer(image, np.uint8)


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    height, width, *_ = simplejpeg.decode_jpeg_header(image)
    return width, height


class _Samples:
    """Pictures as FFCV's writer takes them: tuples of fields."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> tuple[bytes]:
        return (self._pictures[int(number)],)


def write(pictures: Pictures, folder: Path) -> None:
    """Write one beton."""
    writer = DatasetWriter(str(folder / _FILE), {_FIELD: StoredJpeg()}, num_workers=1)
    writer.from_indexed_dataset(_Samples(pictures))


@numba.njit(nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def crop(
    picture: Any, step: Any, first: Any, side: int, line: Any, scale: Any, bias: Any, out: Any
) -> None:
    """Bilinear crop without rotation, normalised; the picture's edge pixels go on outside.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    step, first : x and y, pixels of the picture between two of the result, and of its first
    side : of the result
    line : (3 W,) float32, overwritten
    scale, bias : (3,) float32, of the channels
    out : (3, S, S) float32, S at least `side`; written
    """
    height, width, _ = picture.shape
    left = min(max(int(np.floor(first[0])), 0), width - 1)
    right = min(max(int(np.floor(first[0] + step[0] * (side - 1))) + 2, left + 1), width)
    for y in range(side):
        at = first[1] + step[1] * y
        low = int(np.floor(at))
        share = np.float32(at - low)
        top = picture[min(max(low, 0), height - 1)].reshape(-1)
        bottom = picture[min(max(low + 1, 0), height - 1)].reshape(-1)
        for k in range(3 * left, 3 * right):
            a = np.float32(top[k])
            line[k] = a + (np.float32(bottom[k]) - a) * share
        for x in range(side):
            at = first[0] + step[0] * x
            low = int(np.floor(at))
            share = np.float32(at - low)
            p = 3 * min(max(low, 0), width - 1)
            q = 3 * min(max(low + 1, 0), width - 1)
            for c in range(3):
                a = line[p + c]
                out[c, y, x] = (a + (line[q + c] - a) * share) * scale[c] + bias[c]


class PlannedCrop(SimpleRGBImageDecoder):  # type: ignore[misc]
    """Decoder that makes the crop which a row of the plan's table asks for.

    Parameters
    ----------
    template_px, search_px : sides of the crops, which take turns
    threads : of the loader
    """

    def __init__(self, template_px: int, search_px: int, threads: int) -> None:
        super().__init__()
        self._sides, self._threads = (template_px, search_px), threads

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        """Shape and type of a result."""
        (self._frame_px,) = {*self.metadata["width"].tolist(), *self.metadata["height"].tolist()}
        side = max(self._sides)
        shape, dtype = (3, side, side), np.dtype("<f4")
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=dtype)
        return state, AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        """Make the function that FFCV compiles."""
        read, decode = self.memory_read, Compiler.compile(imdecode)
        across = Compiler.get_iterator()
        template_px, search_px = self._sides
        frame_px, threads = self._frame_px, self._threads
        scale, bias = _SCALE, _BIAS

        def make(batch_indices: Any, out: Any, metadata: Any, storage_state: Any) -> Any:
            pictures = np.empty((threads, frame_px, frame_px, 3), np.uint8)
            lines = np.empty((threads, 3 * frame_px), np.float32)
            for i in across(len(batch_indices)):
                thread = numba.get_thread_id()
                one = metadata[batch_indices[i]]
                picture, side = pictures[thread], frame_px
                encoded = read(one["data_ptr"], storage_state)
                decode(encoded, picture, side, side, side, side, 0, 0, 1, 1, False, False)
                step = (one["step_x"], one["step_y"])
                first = (one["first_x"], one["first_y"])
                out_px = template_px if i % 2 == 0 else search_px
                crop(picture, step, first, out_px, lines[thread], scale, bias, out[i])
            return out[: len(batch_indices)]

        make.is_parallel = True  # type: ignore[attr-defined]
        return make


def planned_table(case: Case, table: Any) -> Any:
    """FFCV's table of samples with a row for every crop: z0, x0, z1, x1, ...

    Parameters
    ----------
    case : of the run
    table : of the beton, whose only field is the picture
    """
    _, work = whole_work(case)
    rows = Rows(Path(case.data))
    stored = table["f0"]
    planned = np.zeros(2 * len(work), stored.dtype.descr + _GEOMETRY)
    for turn, crops in enumerate((work.template, work.search)):
        part = planned[turn::2]
        found = stored[rows.numbers(crops)]
        for name in stored.dtype.names:
            part[name] = found[name]
        affine = crops.params.index_affine
        part["step_x"], part["step_y"] = affine[:, 0, 0], affine[:, 1, 1]
        part["first_x"], part["first_y"] = affine[:, 0, 2], affine[:, 1, 2]
    out = np.zeros(len(planned), np.dtype([("f0", planned.dtype)], align=True))
    out["f0"] = planned
    return out


def batches(case: Case) -> Iterator[Served]:
    """Batches of FFCV's loader."""
    file = form_folder(case.data, case.derived_folder, "ffcv") / _FILE
    crops = 2 * case.planned_pairs
    loader = Loader(
        str(file),
        batch_size=2 * case.batch_size,
        num_workers=case.threads,
        os_cache=True,
        indices=np.arange(crops, dtype=np.uint64),
        pipelines={
            _FIELD: [PlannedCrop(case.template_px, case.search_px, case.threads), ToTensor()]
        },
        custom_fields={_FIELD: StoredJpeg},
    )
    loader.reader.metadata = planned_table(case, loader.reader.metadata)
    for start, (pixels,) in zip(case.starts(), loader, strict=True):
        template, search = pixels[::2], pixels[1::2]
        z, x = case.template_px, case.search_px
        sample = list(range(start, start + case.batch_size))
        yield Served(sample, template[:, :, :z, :z], search[:, :, :x, :x])
