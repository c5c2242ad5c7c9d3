"""Memory and engines of a GPU, from the driver's own library (NVML), without a CUDA context.

A context would take some hundred MB of the memory that is measured, and would be lost if another
process hurt the device. Functions as in NVIDIA's NVML API reference.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["Device", "open_device"]

_OK = 0


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Device:
    """One GPU. What the driver does not tell is None.

    Parameters
    ----------
    library, handle : of NVML
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    def memory(self) -> tuple[int, int] | None:
        """Bytes in use by all processes, and bytes in all."""
        found = _Memory()
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(found)) != _OK:
            return None
        return int(found.used), int(found.total)

    def jpeg_percent(self) -> int | None:
        """Share of the last moments in which the JPEG engine worked."""
        call = getattr(self._library, "nvmlDeviceGetJpgUtilization", None)  # since driver 530
        if call is None:
            return None
        percent, period = ctypes.c_uint(), ctypes.c_uint()
        if call(self._handle, ctypes.byref(percent), ctypes.byref(period)) != _OK:
            return None
        return int(percent.value)

    def name(self) -> str | None:
        """Name of the model."""
        text = ctypes.create_string_buffer(96)
        if self._library.nvmlDeviceGetName(self._handle, text, len(text)) != _OK:
            return None
        return text.value.decode()

    def driver(self) -> str | None:
        """Version of the driver."""
        text = ctypes.create_string_buffer(80)
        if self._library.nvmlSystemGetDriverVersion(text, len(text)) != _OK:
            return None
        return text.value.decode()


def open_device() -> Device | None:
    """First GPU that CUDA shows this process; None without a driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if library.nvmlInit_v2() != _OK:
        return None
    handle = ctypes.c_void_p()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.isdigit():
        status = library.nvmlDeviceGetHandleByIndex_v2(int(first), ctypes.byref(handle))
    else:
        status = library.nvmlDeviceGetHandleByUUID(first.encode(), ctypes.byref(handle))
    return Device(library, handle) if status == _OK else None
